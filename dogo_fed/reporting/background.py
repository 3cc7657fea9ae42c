"""A sink that writes in a thread of its own, so that whoever reports never waits for a disk."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeAlias

from dogo_fed.contracts import Event, EventKind, Record
from dogo_fed.reporting.counted_log import CountedLog
from dogo_fed.reporting.sink import Sink

logger = logging.getLogger(__name__)

_MOST_WAITING = 50_000
_CLOSE_WITHIN_S = 60.0


class _Alive:
    """Stands for a call of `alive` among the records."""


_Item: TypeAlias = "Record | Future[None] | _Alive | None"


class BackgroundSink(Sink):
    """Passes records on to another sink, in order, from a thread of its own.

    `emit` neither waits nor raises. A record that the other sink can't take is counted and said; the
    next ones are tried all the same. `close` ends the thread and leaves the other sink open.
    """

    def __init__(self, sink: Sink, most_waiting: int = _MOST_WAITING) -> None:
        """Makes a sink without records; its thread starts with the first.

        Args:
            sink: takes the records.
            most_waiting: how many records may wait; more are left out, and that is said.
        """
        self._sink = sink
        self._most_waiting = most_waiting
        self._items: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()  # records come from any thread; only one may start ours
        self._is_closed = False
        self._num_left_out = 0
        self._complaints = CountedLog(logger)

    def emit(self, record: Record) -> None:
        """Takes one record; the other sink gets it soon."""
        with self._lock:
            if self._is_closed or self._items.qsize() >= self._most_waiting:
                self._num_left_out += 1
                return
            self._put(record)

    def alive(self) -> None:
        """Tells the other sink soon; left out if records wait."""
        with self._lock:
            if not self._is_closed and self._items.empty():
                self._put(_Alive())

    def written(self) -> Future[None]:
        """Returns a future that is done when the other sink has got all records up to now."""
        done: Future[None] = Future()
        with self._lock:
            if self._is_closed or self._thread is None:
                done.set_result(None)
            else:
                self._put(done)
        return done

    def flush(self) -> None:
        """Waits until the other sink has got all records up to now, and flushes it.

        Raises:
            TimeoutError: that takes longer than 60 s.
        """
        self.written().result(_CLOSE_WITHIN_S)
        self._sink.flush()

    def close(self) -> None:
        """Waits until all records are passed on, and ends the thread; a second call does nothing."""
        with self._lock:
            thread, was_closed = self._thread, self._is_closed
            self._is_closed = True
            if thread is not None and not was_closed:
                self._items.put(None)
        if thread is not None:
            thread.join(_CLOSE_WITHIN_S)
            if thread.is_alive():
                logger.error("the run's records could not be written in %g s", _CLOSE_WITHIN_S)

    def _put(self, item: _Item) -> None:
        self._items.put(item)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="records", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            if isinstance(item, Future):
                if item.set_running_or_notify_cancel():
                    item.set_result(None)
            elif isinstance(item, _Alive):
                self._try_to("a sign of life could not be passed on:", self._sink.alive)
            else:
                self._pass_on(item)
            self._complaints.flush()
        if self._num_left_out:
            message = f"{self._num_left_out} records of the run could not be written"
            self._pass_on(Event(kind=EventKind.RECORDS_LEFT_OUT, message=message))
        self._complaints.close()

    def _pass_on(self, record: Record) -> None:
        what = "a record could not be written:"
        if not self._try_to(what, lambda: self._sink.emit(record)):
            with self._lock:
                self._num_left_out += 1

    def _try_to(self, what_failed: str, action: Callable[[], None]) -> bool:
        """Does something and returns whether that went well; a failure is counted and said."""
        try:
            action()
        except Exception as error:  # a full disk must not end the peers' exchange
            self._complaints.warn(what_failed, f"{type(error).__name__}: {error}")
            return False
        return True
