"""The coordinator as a pure state machine: members, the open step, when it closes, lost peers.

It knows no network and no clock: every call that depends on time gets the time as an argument. Its
host (the process itself, or a gRPC service) delivers calls, asks `next_deadline_s` how long it may
sleep, calls `tick`, and answers the peers whose step has closed.

What may be relied on:
    * A step closes when every peer that it waits for has contributed, or at its deadline. No peer
      waits longer.
    * After a step has closed, the answer to a peer for it never changes. Repeated calls get the
      same answer.
    * A peer that misses a deadline is lost: later steps do not wait for it until it is heard of
      again. It then goes on with the step after the last one that has closed.
    * A stop is decided when a step closes, so all peers of that step stop after the same step. If
      there are steps without an exchange before the open one, it never closes: each peer stops
      where it is. All have done the same exchanges in either case.

Only steps that exchange are known here (every step, unless exchange.every_steps says otherwise).
Between two of them each peer trains alone and waits for no other.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dogo_fed.agreement import differences
from dogo_fed.contracts import (
    Event,
    EventKind,
    PeerId,
    SimilarityDistribution,
    TeacherSignal,
    Ticket,
    Weighting,
)
from dogo_fed.coordination.allowance import Allowance
from dogo_fed.coordination.rendezvous import Rendezvous
from dogo_fed.coordination.roster import Member, Roster
from dogo_fed.coordination.state import CoordinatorState, Membership
from dogo_fed.errors import CheckpointError, Refused, SchemaMismatch, StaleTicket
from dogo_fed.plan import Plan
from dogo_fed.text import one_line

logger = logging.getLogger(__name__)

_CLOSED_KEPT = 2
_LONGEST_INCARNATION = 64
_MOST_EVENTS = 100
_MORE_EVENTS_PER_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """What the coordinator needs to know of a run.

    Attributes:
        agreement: what every joining peer must present, see `dogo_fed.agreement`.
        first_step: 0, or the step that a resumed run goes on with.
        batch_digest: returns the digest of a step's ordered sample ids.
        deadline_s: seconds that an open step waits for a peer that has joined.
        join_deadline_s: seconds that the run waits for a peer to join.
        evaluation_deadline_s: seconds that the others wait for a peer that evaluates its encoder.
        plan: how many steps the run has, and which of them exchange.
        graph: for each learner its teachers with their weights; None lets every peer learn from all
            others, with equal weights.
        weighting: how much each teacher counts on top of that, image by image.
    """

    run_id: str
    agreement: Mapping[str, str]
    peers: tuple[PeerId, ...]
    first_step: int
    batch_digest: Callable[[int], str]
    deadline_s: float
    join_deadline_s: float
    evaluation_deadline_s: float
    plan: Plan
    graph: Mapping[str, Mapping[str, float]] | None = None
    weighting: Weighting = Weighting.UNIFORM

    def teachers_of(self, learner: PeerId) -> Mapping[str, float] | None:
        """Returns a learner's teachers with their weights; None if all others teach equally."""
        return None if self.graph is None else self.graph.get(learner, {})


class Coordinator:
    """The state of one run: its members and its steps. Not thread-safe: one thread calls it."""

    def __init__(
        self, settings: CoordinatorSettings, now_s: float, on_event: Callable[[Event], None]
    ) -> None:
        self._settings = settings
        self._started_at_s = now_s
        self._join_deadline_at_s = now_s + settings.join_deadline_s
        self._excused_until_s = -math.inf
        self._on_event = on_event
        self._roster = Roster(settings.peers, settings.first_step)
        self._open: Rendezvous | None = None
        self._closed: dict[int, Rendezvous] = {}
        self._next_step = settings.first_step
        self._next_open_step = settings.plan.next_exchange(settings.first_step)
        self._stopping = False
        self._event_allowances: dict[str, Allowance] = {}
        self._num_untold: dict[str, int] = {}

    @classmethod
    def restored(
        cls,
        settings: CoordinatorSettings,
        state: CoordinatorState,
        now_s: float,
        on_event: Callable[[Event], None],
    ) -> Coordinator:
        """Returns a coordinator that goes on from a snapshot of an earlier one.

        Raises:
            CheckpointError: the state is of another run or of other peers.
        """
        if state.run_id != settings.run_id or set(state.members) != set(settings.peers):
            raise CheckpointError(
                f"this is the state of run {state.run_id!r} with peers "
                f"{', '.join(sorted(state.members))}, not of run {settings.run_id!r} with peers "
                f"{', '.join(sorted(settings.peers))}"
            )
        made = cls(settings, now_s - state.elapsed_s, on_event)
        made._roster.restore(state.members, made._started_at_s)
        made._next_step = state.next_step
        made._next_open_step = settings.plan.next_exchange(state.next_step)
        made._stopping = state.is_stopping
        made._excused_until_s = now_s  # nobody could report meanwhile, nor say that it evaluates
        for saved in state.meetings:
            meeting = Rendezvous.restored(saved, made._started_at_s)
            if meeting.closed_at_s is None:
                made._open = meeting
            else:
                made._closed[meeting.step] = meeting
        return made

    def snapshot(self, now_s: float) -> CoordinatorState:
        """Returns the state that `restored` needs; the matrices are not copied."""
        meetings = [*self._closed.values(), *([] if self._open is None else [self._open])]
        return CoordinatorState(
            run_id=self._settings.run_id,
            elapsed_s=now_s - self._started_at_s,
            next_step=self._next_step,
            is_stopping=self._stopping,
            members=self._roster.snapshot(self._started_at_s),
            meetings=tuple(meeting.snapshot(self._started_at_s) for meeting in meetings),
        )

    @property
    def settings(self) -> CoordinatorSettings:
        """What this coordinator knows of the run."""
        return self._settings

    @property
    def stop_requested(self) -> bool:
        """Whether the run is to end early."""
        return self._stopping

    @property
    def is_halted(self) -> bool:
        """Whether the run ends before its open step: each peer stops where it is."""
        return self._stopping and self._next_step < self._next_open_step

    @property
    def next_open_step(self) -> int:
        """The first exchanging step that has not closed; at the end it lies beyond the run."""
        return self._next_open_step

    @property
    def next_step(self) -> int:
        """The step after the last one that has closed; a returning peer goes on with it."""
        return self._next_step

    def membership(self, peer: PeerId) -> Membership:
        """Returns what a peer is to this coordinator."""
        return self._roster[peer].membership

    def has_joined(self, peer: PeerId) -> bool:
        """Whether any process of this peer has joined the run."""
        return bool(self._roster[peer].incarnation)

    def join(
        self, peer: PeerId, incarnation: str, agreement: Mapping[str, str], now_s: float
    ) -> int:
        """Lets a process of a peer join; it replaces an earlier process of that peer.

        Returns:
            The step the peer goes on with.

        Raises:
            Refused: no such peer in this run, or its incarnation is no name.
            SchemaMismatch: the peer does not run the same thing; the message names what differs.
        """
        member = self._roster[peer]
        if not incarnation:
            raise Refused(f"peer {peer!r} wants to join without an incarnation")
        if one_line(incarnation, _LONGEST_INCARNATION) != incarnation:
            raise Refused(
                f"peer {peer!r} wants to join with an incarnation that is not printable or longer "
                f"than {_LONGEST_INCARNATION} characters"
            )
        found = differences(
            self._settings.agreement,
            agreement,
            my_name="the coordinator",
            their_name=f"peer {peer}",
        )
        if found:
            raise SchemaMismatch(
                f"peer {peer!r} does not run the same thing as the coordinator: {'; '.join(found)}"
            )
        if member.incarnation == incarnation:
            return member.next_step
        is_return = bool(member.incarnation) or member.membership is Membership.LOST
        if not member.incarnation:
            # Not later than the join deadline, so that late joiners can't prolong the others' wait.
            member.first_joined_at_s = min(now_s, self._join_deadline_at_s)
        member.incarnation = incarnation
        member.evaluates_since_s, member.offered_step = None, -1
        self._withdraw(peer)
        self._readmit(member)
        if is_return:
            self._event(EventKind.PEER_REJOINED, f"rejoins at step {member.next_step}", peer, now_s)
        return member.next_step

    def check_offer(self, peer: PeerId, incarnation: str, ticket: Ticket) -> None:
        """Checks whether a peer may offer for this ticket; cheap, so it can be asked first.

        Raises:
            Refused: no such peer.
            StaleTicket: an older process of the peer calls, the step is not open, or the run ends
                before it.
            SchemaMismatch: another run, a step that does not exchange, or other images than the
                schedule's.
        """
        member = self._roster.check_incarnation(peer, incarnation)
        self._check(peer, ticket)
        if member.membership is Membership.DONE:
            rendezvous = self._closed.get(ticket.step)
            if rendezvous is None or peer not in rendezvous.contributors:
                raise StaleTicket(f"peer {peer!r} has left the run; it can't offer any more")

    def offer(
        self,
        peer: PeerId,
        incarnation: str,
        ticket: Ticket,
        distribution: SimilarityDistribution,
        now_s: float,
    ) -> None:
        """Takes a peer's distribution for a ticket. Repeating the same offer changes nothing.

        Raises:
            Refused, SchemaMismatch: see `check_offer`.
            StaleTicket: see `check_offer`, or another distribution for the same ticket.
        """
        self.check_offer(peer, incarnation, ticket)
        member = self._roster[peer]
        member.evaluates_since_s, member.offered_step = None, ticket.step
        if ticket.step < self._next_open_step:
            self._offer_late(peer, member, ticket, distribution, now_s)
            return
        if member.membership is Membership.LOST:
            self._event(
                EventKind.PEER_REJOINED, f"is heard of again at step {ticket.step}", peer, now_s
            )
        member.membership = Membership.PRESENT
        if self._open is None:
            self._open = Rendezvous(ticket.step, now_s)
        self._open.add(peer, distribution, now_s)
        self._close_if_complete(now_s)

    def answer(self, peer: PeerId, step: int) -> TeacherSignal | None:
        """Returns what `peer` learns from at `step`, or None while the step is open.

        For a step that closed too long ago to be kept, the answer has no teachers.
        """
        if step >= self._next_open_step:
            return None
        rendezvous = self._closed.get(step)
        member = self._roster[peer]
        if rendezvous is None:
            return TeacherSignal(
                mean_NN=None,
                negative_entropy=0.0,
                teachers=(),
                next_step=member.next_step,
                stop=self._stopping,
            )
        was_late = peer not in rendezvous.contributors
        next_step = member.next_step if was_late else step + 1
        teachers = self._settings.teachers_of(peer)
        return rendezvous.signal_for(peer, next_step, teachers, self._settings.weighting)

    def tick(self, now_s: float) -> None:
        """Marks peers that have missed a deadline as lost; the step may then close without them."""
        if now_s >= self._join_deadline_at_s:
            for peer in self._roster.with_membership(Membership.EXPECTED):
                self.lose(
                    peer,
                    f"has not joined within {self._settings.join_deadline_s:g} s",
                    now_s,
                )
        for peer, deadline_at_s in self._overdue():
            if now_s >= deadline_at_s and self._open is not None:
                self.lose(
                    peer,
                    f"missed the deadline of {self._settings.deadline_s:g} s at step "
                    f"{self._open.step}",
                    now_s,
                )

    def next_deadline_s(self) -> float | None:
        """Returns the time, on the caller's clock, when `tick` has work next; None if never."""
        deadlines = []
        if self._roster.with_membership(Membership.EXPECTED):
            deadlines.append(self._join_deadline_at_s)
        deadlines += [deadline_at_s for _, deadline_at_s in self._overdue()]
        return min(deadlines, default=None)

    def check_sender(self, peer: PeerId, incarnation: str) -> None:
        """Checks that a report comes from the peer's latest process.

        Raises:
            Refused: no such peer.
            StaleTicket: an older process of the peer calls.
        """
        self._roster.check_incarnation(peer, incarnation)

    def note_evaluation(self, peer: PeerId, now_s: float) -> bool:
        """Takes note that a peer evaluates: its deadline does not run meanwhile.

        Returns:
            Whether the peer may take its time. It may not in the middle of a round, where nothing
            is evaluated, or if it has evaluated for longer than the evaluation deadline, without a
            step or another start.

        Raises:
            Refused: no such peer.
        """
        member, plan = self._roster[peer], self._settings.plan
        is_in_a_round = (
            member.offered_step >= 0
            and self._next_open_step < plan.total_steps
            and plan.round_of(member.offered_step) == plan.round_of(self._next_open_step)
        )
        if is_in_a_round:
            return False
        if member.evaluates_since_s is None:
            member.evaluates_since_s = now_s
        if now_s - member.evaluates_since_s > self._settings.evaluation_deadline_s:
            return False
        member.alive_at_s = now_s
        return True

    def note_step(self, peer: PeerId) -> None:
        """Takes note that a peer has done a step: its next evaluation is another one.

        Raises:
            Refused: no such peer.
        """
        self._roster[peer].evaluates_since_s = None

    def excuse(self, seconds: float, now_s: float) -> None:
        """Lets a time in which this process itself did not run count for no deadline.

        The peers may have called meanwhile: their calls are read after this, and are not late.
        """
        logger.warning(
            "the coordinator did not run for %.0f s (was its machine asleep?); that time counts "
            "for no deadline",
            seconds,
        )
        self._excused_until_s = now_s
        self._join_deadline_at_s += seconds

    def lose(self, peer: PeerId, reason: str, now_s: float) -> None:
        """Marks a peer as lost, so that no step waits for it; one that has left stays done."""
        member = self._roster[peer]
        if member.membership in (Membership.LOST, Membership.DONE):
            return
        member.membership = Membership.LOST
        self._event(EventKind.PEER_LOST, reason, peer, now_s)
        self._close_if_complete(now_s)

    def leave(self, peer: PeerId, incarnation: str, now_s: float) -> None:
        """Marks a peer that leaves as done; a second call does nothing.

        Raises:
            Refused: no such peer.
            StaleTicket: an older process of the peer calls.
        """
        member = self._roster.check_incarnation(peer, incarnation)
        member.membership = Membership.DONE
        self._close_if_complete(now_s)

    def stop(self, reason: str, now_s: float) -> None:
        """Asks for an early end: the step that closes next is the last one.

        If peers train alone before that step, the run ends without it (see `is_halted`).
        """
        if not self._stopping:
            self._stopping = True
            self._event(EventKind.STOPPED, reason, None, now_s)
            if self.is_halted:
                self._open = None

    def note(self, kind: EventKind, message: str, peer: PeerId | None, now_s: float) -> bool:
        """Emits an event at the run's present step; returns whether it is told.

        Of the events about one peer, 100 at once and 6 each minute are told, so that nobody fills
        the run's files by coming and going. How many were left out is said in the next one.
        """
        name = peer or ""
        allowance = self._event_allowances.setdefault(
            name, Allowance(_MORE_EVENTS_PER_S, _MOST_EVENTS)
        )
        if not allowance.take(1, now_s):
            self._num_untold[name] = self._num_untold.get(name, 0) + 1
            return False
        num_untold = self._num_untold.pop(name, 0)
        if num_untold:
            message = f"{message} ({num_untold} events about it before this one are left out)"
        event = Event(
            kind=kind,
            message=message,
            peer=peer or "",
            step=self._next_step if self._open is None else self._open.step,
            at_s=now_s - self._started_at_s,
        )
        try:
            self._on_event(event)
        except Exception as error:
            # A full disk must not stop peers that wait; the sink's owner raises its own error.
            logger.error("an event could not be reported (%s): %s", error, message)
        return True

    def _overdue(self) -> list[tuple[PeerId, float]]:
        """Returns the present peers that the open step still waits for, each with its deadline.

        The deadline counts from the first contribution to the step, the peer's first joining, the
        last sign that it evaluates, or the end of a time in which this process did not run:
        whichever is latest.
        """
        rendezvous = self._open
        if rendezvous is None:
            return []
        missing = []
        for peer in self._roster.awaited(rendezvous.step):
            member = self._roster[peer]
            if member.membership is Membership.PRESENT and peer not in rendezvous.contributors:
                since_s = max(
                    rendezvous.opened_at_s,
                    member.first_joined_at_s,
                    member.alive_at_s,
                    self._excused_until_s,
                )
                missing.append((peer, since_s + self._settings.deadline_s))
        return missing

    def _check(self, peer: PeerId, ticket: Ticket) -> None:
        if ticket.run_id != self._settings.run_id:
            raise SchemaMismatch(
                f"peer {peer!r} speaks of run {ticket.run_id[:128]!r}, this is run "
                f"{self._settings.run_id!r}"
            )
        if not self._settings.plan.exchanges_at(ticket.step):
            raise SchemaMismatch(
                f"peer {peer!r} offers step {ticket.step}, at which nothing is exchanged; check "
                "that exchange.every_steps and exchange.dense_steps are the same"
            )
        if ticket.step >= self._settings.plan.total_steps:
            raise StaleTicket(
                f"peer {peer!r} offers step {ticket.step}, but the run ends after "
                f"{self._settings.plan.total_steps} steps"
            )
        if ticket.step > self._next_open_step:
            raise StaleTicket(
                f"peer {peer!r} offers step {ticket.step}, but step {self._next_open_step} is open"
            )
        if self.is_halted and ticket.step == self._next_open_step:
            raise StaleTicket(f"the run ends before step {ticket.step}, which peer {peer!r} offers")
        # Only now: the digest of a step far from the present one costs a permutation of all images.
        digest = self._settings.batch_digest(ticket.step)
        if ticket.batch_digest != digest:
            raise SchemaMismatch(
                f"peer {peer!r} used other images at step {ticket.step}: its batch digest is "
                f"{ticket.batch_digest[:64]!r}, the schedule's is {digest!r}; check that seed, "
                "data set and batch size are the same"
            )

    def _offer_late(
        self,
        peer: PeerId,
        member: Member,
        ticket: Ticket,
        distribution: SimilarityDistribution,
        now_s: float,
    ) -> None:
        rendezvous = self._closed.get(ticket.step)
        if rendezvous is not None and peer in rendezvous.contributors:
            rendezvous.add(peer, distribution, now_s)
            return
        was_lost = member.membership is Membership.LOST
        self._readmit(member)
        if was_lost:
            self._event(
                EventKind.PEER_REJOINED,
                f"came late to step {ticket.step} and goes on with step {member.next_step}",
                peer,
                now_s,
            )

    def _withdraw(self, peer: PeerId) -> None:
        """Removes the earlier process's contribution to the step that is still open."""
        if self._open is not None:
            self._open.withdraw(peer)
            if not self._open.contributors:
                self._open = None

    def _readmit(self, member: Member) -> None:
        member.membership = Membership.PRESENT
        member.next_step = self._next_step

    def _close_if_complete(self, now_s: float) -> None:
        rendezvous = self._open
        if rendezvous is None:
            return
        contributors = rendezvous.contributors
        if any(peer not in contributors for peer in self._roster.awaited(rendezvous.step)):
            return
        rendezvous.close(now_s, stop=self._stopping)
        self._closed[rendezvous.step] = rendezvous
        for step in list(self._closed)[:-_CLOSED_KEPT]:
            del self._closed[step]
        self._open = None
        self._next_step = rendezvous.step + 1
        self._next_open_step = self._settings.plan.next_exchange(self._next_step)
        for peer in contributors:
            self._roster[peer].next_step = self._next_step

    def _event(self, kind: EventKind, message: str, peer: PeerId | None, now_s: float) -> None:
        self.note(kind, f"peer {peer} {message}" if peer is not None else message, peer, now_s)
