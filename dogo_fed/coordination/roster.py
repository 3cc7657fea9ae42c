"""The members of a run, and the membership of each.

EXPECTED --join--> PRESENT --leave--> DONE
    |                | ^
    +--deadline------+-|-----> LOST
                       +-join--+        (a new process, or a late contribution of the old one)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dogo_fed.contracts import PeerId
from dogo_fed.coordination.state import Membership, MemberState
from dogo_fed.errors import Refused, StaleTicket


@dataclass(slots=True)
class Member:
    """One peer as the coordinator knows it.

    Attributes:
        incarnation: identifies the peer's latest process; empty before the first join.
        next_step: the first step this peer may still take part in.
        first_joined_at_s: when it first joined; the deadline of its first step counts from here.
        offered_step: the step for which its latest process has offered last; -1 before that.
        evaluates_since_s: since when it has been evaluating its encoder; None if it is not.
        alive_at_s: when it last said that it is; its deadline counts from here.
    """

    membership: Membership
    incarnation: str
    next_step: int
    first_joined_at_s: float = 0.0
    offered_step: int = -1
    evaluates_since_s: float | None = None
    alive_at_s: float = -math.inf


class Roster:
    """All peers of a run, in name order."""

    def __init__(self, peers: Iterable[PeerId], first_step: int) -> None:
        self._members = {
            peer: Member(Membership.EXPECTED, "", first_step) for peer in sorted(peers)
        }

    def snapshot(self, started_at_s: float) -> dict[PeerId, MemberState]:
        """Returns the state of each peer, for `restore`; times count from the start."""
        return {
            peer: MemberState(
                membership=member.membership,
                incarnation=member.incarnation,
                next_step=member.next_step,
                first_joined_s=member.first_joined_at_s - started_at_s,
            )
            for peer, member in self._members.items()
        }

    def restore(self, members: Mapping[PeerId, MemberState], started_at_s: float) -> None:
        """Replaces the members by those of a snapshot."""
        for peer, state in members.items():
            self._members[peer] = Member(
                state.membership,
                state.incarnation,
                state.next_step,
                state.first_joined_s + started_at_s,
            )

    def __getitem__(self, peer: PeerId) -> Member:
        """Returns the member.

        Raises:
            Refused: no such peer in this run.
        """
        member = self._members.get(peer)
        if member is None:
            raise Refused(
                f"there is no peer {peer[:64]!r} in this run; its peers are "
                f"{', '.join(repr(str(name)) for name in self._members)}"
            )
        return member

    def with_membership(self, *among: Membership) -> list[PeerId]:
        """Returns the peers whose membership is one of these, in name order."""
        return [peer for peer, member in self._members.items() if member.membership in among]

    def awaited(self, step: int) -> list[PeerId]:
        """Returns the peers that `step` waits for: expected or present, and not past it."""
        return [
            peer
            for peer, member in self._members.items()
            if member.membership in (Membership.EXPECTED, Membership.PRESENT)
            and member.next_step <= step
        ]

    def check_incarnation(self, peer: PeerId, incarnation: str) -> Member:
        """Returns the member if `incarnation` is its latest process.

        Raises:
            Refused: no such peer.
            StaleTicket: a newer process has joined as this peer, or no process has joined yet.
        """
        member = self[peer]
        if not member.incarnation:
            raise StaleTicket(f"peer {peer!r} has not joined the run yet")
        if member.incarnation != incarnation:
            raise StaleTicket(
                f"another process has joined as peer {peer!r} since; this one is no longer part of "
                "the run"
            )
        return member
