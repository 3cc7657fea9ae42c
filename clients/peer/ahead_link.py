"""A link over which a peer publishes its next step before the answer to the last one is there.

A coordinator takes one step at a time. So what is published ahead waits here, in a thread that does
one exchange after the other over the peer's link, while the peer computes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from clients.peer.link import CoordinatorLink
from dogo_fed.contracts import (
    PeerResult,
    RoundReport,
    SimilarityDistribution,
    StepReport,
    TeacherSignal,
    Ticket,
)
from dogo_fed.errors import CoordinatorLost
from dogo_fed.exchange.base import Traffic
from dogo_fed.ledger import Span, add_beside, recorded_apart

_POLL_S = 1.0
_ENDS_WITHIN_S = 5.0


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came of an exchange: a signal, or the error that `collect` raises; and what took its time."""

    step: int
    signal: TeacherSignal | None
    error: Exception | None
    traffic: Traffic
    spans: list[Span]


class AheadLink:
    """A `CoordinatorLink` whose exchanges are done by a thread of its own, in the order of the steps."""

    def __init__(self, inner: CoordinatorLink) -> None:
        self._inner = inner
        self._published: queue.SimpleQueue[tuple[Ticket, SimilarityDistribution] | None] = (
            queue.SimpleQueue()
        )
        self._answers: queue.SimpleQueue[_Answer] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._traffic = Traffic()

    @property
    def last_traffic(self) -> Traffic:
        """Bytes on the wire for the ticket that was collected last."""
        return self._traffic

    def join(self, agreement: Mapping[str, str]) -> int:
        """Enters the run; see `Link.join`."""
        return self._inner.join(agreement)

    def publish(self, ticket: Ticket, distribution: SimilarityDistribution) -> None:
        """Hands over my distribution; what is wrong with it is told by `collect`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._exchange, name="exchange", daemon=True)
            self._thread.start()
        self._published.put((ticket, distribution))

    def collect(self, ticket: Ticket) -> TeacherSignal:
        """Waits for the teachers' mean; see `Exchange.collect`.

        The link under this one has the deadlines. Answers to earlier tickets are dropped.
        """
        while True:
            answer = self._next_answer()
            if answer.step != ticket.step:
                continue
            self._traffic = answer.traffic
            add_beside(answer.spans)
            if answer.error is not None:
                raise answer.error
            assert answer.signal is not None, "no error, so there is a signal"
            return answer.signal

    def report(
        self,
        steps: list[StepReport],
        rounds: list[RoundReport],
        result: PeerResult | None,
        *,
        is_evaluating: bool = False,
        is_brief: bool = False,
    ) -> bool:
        """Delivers reports; see `CoordinatorLink.report`."""
        return self._inner.report(
            steps, rounds, result, is_evaluating=is_evaluating, is_brief=is_brief
        )

    def close(self) -> None:
        """Leaves the run; a second call does nothing."""
        if self._thread is not None:
            self._published.put(None)
            self._thread.join(_ENDS_WITHIN_S)  # it may wait for an answer that nobody needs
            self._thread = None
        self._inner.close()

    def _next_answer(self) -> _Answer:
        assert self._thread is not None, "collect without publish"
        while True:
            try:
                return self._answers.get(timeout=_POLL_S)
            except queue.Empty:
                if not self._thread.is_alive():
                    raise CoordinatorLost("the exchange has ended before its answer") from None

    def _exchange(self) -> None:
        """Does what is published, one exchange after the other, until there is no more."""
        while (item := self._published.get()) is not None:
            ticket, distribution = item
            signal: TeacherSignal | None = None
            error: Exception | None = None
            with recorded_apart(ticket.step) as spans:
                try:
                    self._inner.publish(ticket, distribution)
                    signal = self._inner.collect(ticket)
                except (
                    Exception
                ) as failed:  # raised, with its traceback, where somebody waits for it
                    error = failed
            self._answers.put(_Answer(ticket.step, signal, error, self._inner.last_traffic, spans))
