"""The round of a Flower run, and the steps that its peers may do. Imports no Flower."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass

from dogo_fed.contracts import PeerId, Record, StepReport
from dogo_fed.plan import Plan
from dogo_fed.reporting.sink import Sink

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CoordinatorView:
    """The coordinator's state at one moment.

    It is kept for a while, because a question to the coordinator goes through another thread.

    Attributes:
        at_s: when the coordinator was asked.
        next_step: the step after the last one that has closed.
        is_stopping: whether the run is to end early.
        lost: the peers that no step waits for.
    """

    at_s: float
    next_step: int
    is_stopping: bool
    lost: frozenset[PeerId]


class KnownSteps(Sink):
    """The next step of each peer, as far as its reports and replies tell."""

    def __init__(self) -> None:
        self._next_step: dict[PeerId, int] = {}
        self._lock = threading.Lock()  # reports come in another thread than replies

    def emit(self, record: Record) -> None:
        """Notes the step of a step report; ignores other records."""
        if isinstance(record, StepReport):
            self.raise_to(record.peer, record.step + 1)

    def raise_to(self, peer: PeerId, next_step: int) -> None:
        """Notes the step that a peer does next, unless a later one is known."""
        with self._lock:
            self._next_step[peer] = max(self.of(peer), next_step)

    def of(self, peer: PeerId) -> int:
        """Returns the step that a peer does next; 0 before its first report."""
        return self._next_step.get(peer, 0)


class Rounds:
    """The present round of the run."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.number = 0

    def advance(self, view: CoordinatorView, steps: KnownSteps, peers: Collection[PeerId]) -> None:
        """Begins the next round when all of these peers have done the present one."""
        if self.number == 0:
            self._begin(self._plan.round_of(view.next_step))
        until_step = self._plan.end_of(self.number)
        is_done = all(steps.of(peer) >= until_step for peer in peers)
        if peers and is_done and self.number < self._plan.num_rounds:
            self._begin(self.number + 1)

    def until_step(self, view: CoordinatorView) -> int:
        """Returns the step before which peers must stop: one round ahead, so that none waits."""
        if view.is_stopping:
            return self._plan.total_steps  # the next exchange tells all of them to stop
        return self._plan.end_of(self.number + 1)

    def _begin(self, number: int) -> None:
        self.number = number
        logger.info("round=%d of %d begins", number, self._plan.num_rounds)
