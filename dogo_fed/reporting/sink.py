"""Where records go: what a sink is, and a fan-out."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from typing import Protocol

from dogo_fed.contracts import Record


class Sink(Protocol):
    """Takes what peers and coordinator report; `emit` may be called from any thread.

    A subclass needs `emit` only. A class with the same methods is a sink without being one.
    """

    @abstractmethod
    def emit(self, record: Record) -> None:
        """Takes one record; records of one peer arrive in order."""

    def alive(self) -> None:
        """Takes note that the run goes on although there is nothing to report: it evaluates."""
        return  # said, since an empty body makes a protocol's method abstract

    def stop_requested(self) -> bool:
        """Whether an early end is wanted, as far as this sink has heard."""
        return False

    def flush(self) -> None:
        """Delivers what was emitted; called before a checkpoint, so that the two belong together."""
        return

    def undelivered(self) -> list[Record]:
        """Returns what `flush` could not deliver; it goes into the checkpoint."""
        return []

    def close(self) -> None:
        """Finishes writing; a second call does nothing."""
        return


class TeeSink(Sink):
    """Passes every record on to several sinks, in the order given."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks

    def emit(self, record: Record) -> None:
        """Passes the record on to every sink, even if one of them fails; then raises its error."""
        with ExitStack() as passing:
            for sink in reversed(self._sinks):
                passing.callback(sink.emit, record)

    def alive(self) -> None:
        """Tells every sink."""
        for sink in self._sinks:
            sink.alive()

    def stop_requested(self) -> bool:
        """Whether any of the sinks has heard so."""
        return any(sink.stop_requested() for sink in self._sinks)

    def flush(self) -> None:
        """Flushes every sink."""
        for sink in self._sinks:
            sink.flush()

    def close(self) -> None:
        """Closes every sink, even if closing one of them fails; then raises what went wrong."""
        with ExitStack() as closing:
            for sink in reversed(self._sinks):
                closing.callback(sink.close)
