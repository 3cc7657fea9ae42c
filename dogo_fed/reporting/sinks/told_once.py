"""Passes on each step and each round of a peer once, whoever reports it how often."""

from __future__ import annotations

import threading

from dogo_fed.contracts import Record, RoundReport, StepReport
from dogo_fed.reporting.sink import Sink


class ToldOnce(Sink):
    """A sink in front of all that write, draw or count.

    A report may come twice: its receiver was killed after it had written the report and before it
    had answered, so the peer keeps the report and delivers it to the next coordinator. Or a peer has
    died and does its last steps again.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._last_step: dict[str, int] = {}
        self._rounds: set[tuple[str, int]] = set()

    def remember(self, record: Record) -> None:
        """Takes note of a record that an earlier start of the run has passed on."""
        self._is_new(record)

    def emit(self, record: Record) -> None:
        """Passes a record on, unless it is about a step or a round that was told already."""
        if self._is_new(record):
            self._sink.emit(record)

    def alive(self) -> None:
        """Tells the sink."""
        self._sink.alive()

    def flush(self) -> None:
        """Flushes the sink."""
        self._sink.flush()

    def close(self) -> None:
        """Closes the sink."""
        self._sink.close()

    def _is_new(self, record: Record) -> bool:
        with self._lock:
            if isinstance(record, StepReport):
                is_new = record.step > self._last_step.get(record.peer, -1)
                if is_new:
                    self._last_step[record.peer] = record.step
                return is_new
            if isinstance(record, RoundReport):
                key = (str(record.peer), record.round)
                is_new = key not in self._rounds
                self._rounds.add(key)
                return is_new
            return True
