"""The state of a coordinator as plain values, with which another one gives the same answers.

Times are seconds since the coordinator's start, so they mean the same in another process.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from dogo_fed.contracts import PeerId, SimilarityDistribution


class Membership(enum.Enum):
    """What a peer is to the coordinator.

    EXPECTED: it has not joined yet.
    PRESENT: it has joined; steps wait for it.
    LOST: it missed a deadline or its process died; no step waits for it.
    DONE: it has left.
    """

    EXPECTED = "expected"
    PRESENT = "present"
    LOST = "lost"
    DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """The state of one peer; see `roster.Member`."""

    membership: Membership
    incarnation: str
    next_step: int
    first_joined_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RendezvousState:
    """The state of one step; see `rendezvous.Rendezvous`.

    Attributes:
        closed_s: when the step was closed; None while it is open.
        contributions: the distribution of each peer that has published.
        arrived_s: when it arrived.
    """

    step: int
    opened_s: float
    closed_s: float | None
    stop: bool
    contributions: Mapping[PeerId, SimilarityDistribution]
    arrived_s: Mapping[PeerId, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorState:
    """The state of a whole coordinator.

    Attributes:
        elapsed_s: seconds from the coordinator's start to the snapshot.
        next_step: the step after the last one that has closed.
        meetings: the closed steps that are still kept, then the open one, if there is one.
    """

    run_id: str
    elapsed_s: float
    next_step: int
    is_stopping: bool
    members: Mapping[PeerId, MemberState]
    meetings: tuple[RendezvousState, ...]
