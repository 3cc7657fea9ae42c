"""The sink that reports to the coordinator over a peer's link."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from clients.peer.link import CoordinatorLink
from dogo_fed.contracts import PeerResult, Record, RoundReport, StepReport
from dogo_fed.errors import ExchangeError
from dogo_fed.reporting.sink import Sink

logger = logging.getLogger(__name__)

_REPORT_EVERY_S = 1.0
_WAITS_BRIEFLY_S = 5.0


class _Delivery:
    """Step reports that a thread of their own delivers.

    Attributes:
        steps: the reports.
        is_stop_wanted: whether the coordinator wants an early end; known when the thread has ended.
        error: why they were not delivered; None if they were.
    """

    def __init__(self, link: CoordinatorLink, steps: list[StepReport]) -> None:
        self.steps = steps
        self.is_stop_wanted = False
        self.error: Exception | None = None
        self._link = link
        self._thread = threading.Thread(target=self._deliver, name="reports", daemon=True)
        self._thread.start()

    def has_ended(self, within_s: float | None) -> bool:
        """Returns whether the thread ends within this time; None waits as long as it takes."""
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _deliver(self) -> None:
        try:
            self.is_stop_wanted = self._link.report(self.steps, [], None)
        except Exception as failed:  # raised in the peer's thread, with its traceback
            self.error = failed


class ReportSink(Sink):
    """A sink that delivers step reports about once a second, and other reports at once.

    No step waits for the delivery of step reports: a thread does it, one delivery after the other.
    All else is delivered after them, before the call returns. A report that could not be delivered
    is kept, and goes with the next one.
    """

    def __init__(self, link: CoordinatorLink, clock: Callable[[], float] = time.monotonic) -> None:
        self._link = link
        self._clock = clock
        self._steps: list[StepReport] = []
        self._rounds: list[RoundReport] = []
        self._under_way: _Delivery | None = None
        self._error: Exception | None = None
        self._sent_at_s = clock()
        self._is_stop_requested = False

    def stop_requested(self) -> bool:
        """Whether the coordinator asked for an early end."""
        self._is_settled(0.0)
        return self._is_stop_requested

    def ask(self) -> bool:
        """Asks the coordinator now; returns whether it wants an early end."""
        self._send()
        return self._is_stop_requested

    def emit(self, record: Record) -> None:
        """Delivers a record; step reports are collected for about a second.

        Raises:
            ExchangeError: the coordinator can't be reached, or refuses it; or it was so when earlier
                step reports were delivered. The record is kept.
        """
        if isinstance(record, StepReport):
            self._steps.append(record)
            is_settled = self._is_settled(0.0)
            self._raise_error()
            if is_settled and self._clock() - self._sent_at_s >= _REPORT_EVERY_S:
                self._sent_at_s = self._clock()
                self._under_way, self._steps = _Delivery(self._link, self._steps), []
        elif isinstance(record, RoundReport):
            self._rounds.append(record)
            self._send()
        elif isinstance(record, PeerResult):
            self._send(record)

    def alive(self) -> None:
        """Says that the peer evaluates. Tries once: the next report tells if nobody is there."""
        self._try_to_send(is_evaluating=True)

    def flush(self) -> None:
        """Delivers what was collected, if the coordinator answers now.

        An error of an earlier delivery is left to the next report: a checkpoint comes first.
        """
        self._try_to_send(is_evaluating=False)

    def undelivered(self) -> list[Record]:
        """Returns the reports whose delivery the coordinator has not confirmed."""
        self._is_settled(0.0)
        under_way = [] if self._under_way is None else self._under_way.steps
        return [*under_way, *self._steps, *self._rounds]

    def close(self) -> None:
        """Delivers what is left; then no thread is left either.

        Raises:
            ExchangeError: the coordinator can't be reached, or refuses it.
        """
        self._is_settled(None)
        self._raise_error()
        if self._steps or self._rounds:
            self._send()

    def _is_settled(self, within_s: float | None) -> bool:
        """Returns whether no delivery is under way any more, and takes note of what became of it.

        Args:
            within_s: how long to wait for its end; None waits as long as it takes.
        """
        ended = self._under_way
        if ended is None:
            return True
        if not ended.has_ended(within_s):
            return False
        self._under_way = None
        self._is_stop_requested |= ended.is_stop_wanted
        if ended.error is not None:
            self._steps = [*ended.steps, *self._steps]
            self._error = ended.error
        return True

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _try_to_send(self, *, is_evaluating: bool) -> None:
        if not self._is_settled(_WAITS_BRIEFLY_S):
            logger.warning("reports are kept for later: those before them are not delivered yet")
            return
        if self._error is not None:
            logger.warning("reports are kept for later: %s", self._error)
            return
        if not (is_evaluating or self._steps or self._rounds):
            return
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
        self._is_settled(None)  # the link's own deadlines end the delivery
        self._raise_error()
        self._is_stop_requested |= self._link.report(
            self._steps, self._rounds, result, is_evaluating=is_evaluating, is_brief=is_brief
        )
        self._steps, self._rounds = [], []
        self._sent_at_s = self._clock()
