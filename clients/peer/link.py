"""The interface of a peer's link to its coordinator, and the sink that reports over it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from dogo_fed.contracts import PeerResult, Record, RoundReport, StepReport
from dogo_fed.exchange.base import Link

_REPORT_EVERY_S = 1.0


class CoordinatorLink(Link, Protocol):
    """A `Link` that also delivers reports."""

    def report(
        self, steps: list[StepReport], rounds: list[RoundReport], result: PeerResult | None
    ) -> bool:
        """Delivers reports; returns whether the run is to end early."""
        ...


class ReportSink:
    """A sink that delivers step reports about once a second, and other reports at once."""

    def __init__(self, link: CoordinatorLink, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock
        self._steps: list[StepReport] = []
        self._sent_at_s = clock()
        self._is_stop_requested = False

    def stop_requested(self) -> bool:
        """Whether the coordinator asked for an early end."""
        return self._is_stop_requested

    def ask(self) -> bool:
        """Asks the coordinator now; returns whether it wants an early end."""
        self._send([], None)
        return self._is_stop_requested

    def emit(self, record: Record) -> None:
        """Delivers a record; step reports are collected for about a second."""
        if isinstance(record, StepReport):
            self._steps.append(record)
            if self._clock() - self._sent_at_s >= _REPORT_EVERY_S:
                self._send([], None)
        elif isinstance(record, RoundReport):
            self._send([record], None)
        elif isinstance(record, PeerResult):
            self._send([], record)

    def flush(self) -> None:
        """Delivers the step reports that were collected."""
        if self._steps:
            self._send([], None)

    def close(self) -> None:
        """Delivers the step reports that are left."""
        self.flush()

    def _send(self, rounds: list[RoundReport], result: PeerResult | None) -> None:
        if self._link.report(self._steps, rounds, result):
            self._is_stop_requested = True
        self._steps = []
        self._sent_at_s = self._clock()
