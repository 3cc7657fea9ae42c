"""The live view of a run: a table in a terminal, a log line per round everywhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live

from dogo_fed.contracts import Record
from dogo_fed.reporting.live.progress import RunProgress
from dogo_fed.reporting.live.round_log import RoundLog
from dogo_fed.reporting.live.table import render
from dogo_fed.reporting.sink import Sink

_REFRESHES_PER_S = 4


class LiveView(Sink):
    """A sink and context manager that shows a run while it trains.

    `emit` only takes notes; the drawing happens four times a second in a thread of its own. Where
    the output is no terminal, every round becomes one line of the log instead, and events are
    logged as they come.
    """

    def __init__(
        self,
        peers: Sequence[str],
        total_steps: int,
        title: str,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
        exchange_every_steps: int = 1,
    ) -> None:
        """Prepares the view; nothing is shown before the `with` block.

        Args:
            peers: their names, in the order of the rows.
            total_steps: steps of the whole run.
            title: one line above the table.
            console: where to draw; standard output by default.
            clock: gives seconds.
            exchange_every_steps: between two exchanges, the last one's numbers are shown.
        """
        self._title = title
        self._console = console or Console()
        self._lock = threading.Lock()  # records come from the peers' and the coordinator's threads
        self._progress = RunProgress(peers, total_steps, clock, exchange_every_steps)
        self._round_log: RoundLog | None = None
        self._live: Live | None = None
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(
                console=self._console,
                get_renderable=lambda: render(self._title, self._snapshot(), self._console.width),
                refresh_per_second=_REFRESHES_PER_S,
            )
        else:
            self._round_log = RoundLog(title, total_steps)

    def __enter__(self) -> LiveView:
        """Starts to draw."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draws once more and leaves the last picture in the terminal."""
        self.close()

    def emit(self, record: Record) -> None:
        """Takes one record."""
        with self._lock:
            self._progress.take(record)
            if self._round_log is not None:
                self._round_log.take(record, self._progress)

    def close(self) -> None:
        """Stops drawing; a second call does nothing."""
        with self._lock:
            if self._round_log is not None:
                self._round_log.finish(self._progress)
        if self._live is not None:
            self._live.stop()

    def _snapshot(self) -> RunProgress:
        with self._lock:
            return self._progress.copy()
