"""Which round the peers of a Flower run are in, and how far they may go. Knows no Flower."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass

from dogo_fed.contracts import PeerId, Record, StepReport
from dogo_fed.engine.plan import Plan
from dogo_fed.reporting.sink import Sink

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CoordinatorView:
    """The coordinator at one moment. Asking it goes through its thread, so not at every turn.

    Attributes:
        at_s: when it was asked.
        next_step: the step after the last one that has closed.
        is_stopping: whether the run is to end early.
        lost: the peers that nobody waits for.
    """

    at_s: float
    next_step: int
    is_stopping: bool
    lost: frozenset[PeerId]


class KnownSteps(Sink):
    """How far each peer is known to be, from what it reports and replies."""

    def __init__(self) -> None:
        self._next_step: dict[PeerId, int] = {}

    def emit(self, record: Record) -> None:
        """Takes a record; only reports of steps matter."""
        if isinstance(record, StepReport):
            self.raise_to(record.peer, record.step + 1)

    def raise_to(self, peer: PeerId, next_step: int) -> None:
        """Notes the step that a peer does next; it never goes back."""
        self._next_step[peer] = max(self.of(peer), next_step)

    def of(self, peer: PeerId) -> int:
        """Returns the step that a peer does next; 0 before it is heard of."""
        return self._next_step.get(peer, 0)


class Rounds:
    """The run's rounds, one after the other."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.number = 0

    def advance(self, view: CoordinatorView, steps: KnownSteps, peers: Collection[PeerId]) -> None:
        """Goes on with the next round when these peers have done this one."""
        if self.number == 0:
            self._begin(self._plan.round_of(view.next_step))
        until_step = self._plan.end_of(self.number)
        is_done = all(steps.of(peer) >= until_step for peer in peers)
        if peers and is_done and self.number < self._plan.num_rounds:
            self._begin(self.number + 1)

    def until_step(self, view: CoordinatorView) -> int:
        """Returns how far peers may go: one round ahead, so that none of them waits for a message."""
        if view.is_stopping:
            return self._plan.total_steps  # on to the step that tells them all to stop
        return self._plan.end_of(self.number + 1)

    def _begin(self, number: int) -> None:
        self.number = number
        logger.info("round=%d of %d begins", number, self._plan.num_rounds)
