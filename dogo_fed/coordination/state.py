"""What a coordinator knows, as plain values: enough for another one to give the same answers.

Times are seconds since the coordinator's start, so they mean the same in another process.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from dogo_fed.contracts import PeerId, SimilarityDistribution


class Membership(enum.Enum):
    """A peer's standing with the coordinator."""

    EXPECTED = "expected"
    PRESENT = "present"
    LOST = "lost"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """One peer; see `membership.Member`."""

    standing: Membership
    incarnation: str
    next_step: int
    first_joined_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousState:
    """One step's meeting point; see `rendezvous.Rendezvous`.

    Attributes:
        closed_s: None while the step is open.
        contributions: what each peer gave.
        arrived_s: when it came.
    """

    step: int
    opened_s: float
    closed_s: float | None
    stop: bool
    contributions: Mapping[PeerId, SimilarityDistribution]
    arrived_s: Mapping[PeerId, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorState:
    """A whole coordinator.

    Attributes:
        elapsed_s: seconds from its start to this moment.
        next_step: the step after the last one that has closed.
        meetings: the steps that have closed and are still kept, then the one that is open, if any.
    """

    run_id: str
    elapsed_s: float
    next_step: int
    is_stopping: bool
    members: Mapping[PeerId, MemberState]
    meetings: tuple[RendezvousState, ...]
