"""The interface of a peer's link to its coordinator, and the sink that reports over it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from dogo_fed.contracts import PeerResult, Record, RoundReport, StepReport
from dogo_fed.errors import ExchangeError
from dogo_fed.exchange.base import Link
from dogo_fed.reporting.sink import Sink

logger = logging.getLogger(__name__)

_REPORT_EVERY_S = 1.0


class CoordinatorLink(Link, Protocol):
    """A `Link` that also delivers reports."""

    def report(
        self,
        steps: list[StepReport],
        rounds: list[RoundReport],
        result: PeerResult | None,
        *,
        is_evaluating: bool = False,
        is_brief: bool = False,
    ) -> bool:
        """Delivers reports; returns whether the run is to end early.

        Args:
            steps: of single steps.
            rounds: of evaluations.
            result: the last report, if it is time for it.
            is_evaluating: says that the peer evaluates its encoder, and does no step meanwhile.
            is_brief: tries once, and not for long.

        Raises:
            ExchangeError: the coordinator can't be reached, or refuses them.
        """
        ...


class ReportSink(Sink):
    """A sink that delivers step reports about once a second, and other reports at once.

    A report that could not be delivered is kept, and goes with the next one.
    """

    def __init__(self, link: CoordinatorLink, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock
        self._steps: list[StepReport] = []
        self._rounds: list[RoundReport] = []
        self._sent_at_s = clock()
        self._is_stop_requested = False

    def stop_requested(self) -> bool:
        """Whether the coordinator asked for an early end."""
        return self._is_stop_requested

    def ask(self) -> bool:
        """Asks the coordinator now; returns whether it wants an early end."""
        self._send()
        return self._is_stop_requested

    def emit(self, record: Record) -> None:
        """Delivers a record; step reports are collected for about a second."""
        if isinstance(record, StepReport):
            self._steps.append(record)
            if self._clock() - self._sent_at_s >= _REPORT_EVERY_S:
                self._send()
        elif isinstance(record, RoundReport):
            self._rounds.append(record)
            self._send()
        elif isinstance(record, PeerResult):
            self._send(record)

    def alive(self) -> None:
        """Says that the peer evaluates. Tries once: the next report tells if nobody is there."""
        self._try_to_send(is_evaluating=True)

    def flush(self) -> None:
        """Delivers what was collected, if the coordinator answers now."""
        if self._steps or self._rounds:
            self._try_to_send(is_evaluating=False)

    def undelivered(self) -> list[Record]:
        """Returns the reports that have not been delivered."""
        return [*self._steps, *self._rounds]

    def close(self) -> None:
        """Delivers what is left.

        Raises:
            ExchangeError: the coordinator can't be reached, or refuses it.
        """
        if self._steps or self._rounds:
            self._send()

    def _try_to_send(self, *, is_evaluating: bool) -> None:
        try:
            self._send(is_evaluating=is_evaluating, is_brief=True)
        except ExchangeError as error:
            logger.warning("a report is kept for later: %s", error)

    def _send(
        self,
        result: PeerResult | None = None,
        *,
        is_evaluating: bool = False,
        is_brief: bool = False,
    ) -> None:
        self._is_stop_requested |= self._link.report(
            self._steps, self._rounds, result, is_evaluating=is_evaluating, is_brief=is_brief
        )
        self._steps, self._rounds = [], []
        self._sent_at_s = self._clock()
