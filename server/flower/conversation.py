"""The messages to and from one peer's host: what to send next, and what was received.

It is a state machine that imports no Flower. At most one message is under way at a time. Every
message may be repeated, so one that was lost is sent again.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dogo_fed.assignment import Assignment
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.text import one_line
from dogo_fed.wire import dogo_pb2 as pb

_CLOSE_TRIES = 3
_PAUSE_AFTER_MISS_S = 1.0
_BEFORE_CLOSING_S = 5.0
_LONGEST_PLACE = 200
_MOST_REPORTS, _MOST_LAST_REPORTS = 256, 16_384
"""Reports that are taken from one reply, and from a peer's last one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Time limits, in seconds.

    Attributes:
        answer_s: how long to wait for a reply; then the message is sent again.
        unreachable_s: how long a node or a peer's process may be unreachable before it is given up.
        placement_s: how long a peer may wait for a free GPU.
        hold_s: how long a host may hold a reply back until its peer has news.
        poll_s: the shortest time between two messages that only ask for the state.
        silent_s: how long a peer that waits for an answer is told nothing; then a message tells it
            that the run goes on.
    """

    answer_s: float
    unreachable_s: float
    placement_s: float
    hold_s: float
    poll_s: float
    silent_s: float


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to a peer's host; `kind` is its Flower message type."""

    kind: str
    request: pb.HostRequest


class Conversation:
    """The conversation with one peer's host. Times are of the caller's clock, in seconds.

    Attributes:
        where: the peer's process, for people; empty until its first reply.
        next_step: the step that the peer does next.
        ending: how the peer ended, a sentence if its process is gone, or None.
        gave_up: whether the peer was told to end and never confirmed it.
    """

    def __init__(self, peer: PeerId, run_id: str, patience: Patience) -> None:
        """Makes a conversation without messages."""
        self.peer = peer
        self._run_id = run_id
        self._patience = patience
        self._assignment: Assignment | None = None
        self._closings: deque[int] = deque()
        self._close_tries = 0
        self.gave_up = False
        self._sent: Outgoing | None = None
        self._sent_at_s = -math.inf
        self._forget()

    def _forget(self) -> None:
        """Resets everything that belongs to one start of the peer."""
        self.where = ""
        self.next_step = 0
        self.ending: Ending | str | None = None
        self._is_known = False
        self._join: pb.JoinReply | None = None
        self._answer: tuple[int, pb.ExchangeReply] | None = None
        self._offer: pb.ExchangeRequest | None = None
        self._num_reports = 0
        self._told_until = 0
        self._was_told_to_stop = False
        self._missed_since_s: float | None = None
        self._missed_for: Outcome | None = None
        self._is_node_missed = False

    # ---- what is wanted ----

    def assign(self, assignment: Assignment) -> None:
        """Starts the peer, or starts it again."""
        self._forget()
        self._assignment = assignment

    def close(self) -> None:
        """Ends the peer's present start; a second call does nothing."""
        if self._assignment is not None:
            self._closings.append(self._assignment.number)
            self._assignment = None

    @property
    def is_closed(self) -> bool:
        """Whether no message is left to be sent."""
        return not self._closings and self._assignment is None

    def bring_join(self, reply: pb.JoinReply) -> None:
        """Puts the answer to the peer's request to join into the next message."""
        self._join = reply

    def bring_answer(self, step: int, reply: pb.ExchangeReply) -> None:
        """Puts the coordinator's answer for this step into the next message."""
        self._answer, self._offer = (step, reply), None

    @property
    def open_offer(self) -> pb.ExchangeRequest | None:
        """The distribution that the peer has published and that is not answered yet."""
        return self._offer

    # ---- the next message ----

    def next_message(self, until_step: int, stop: bool, now_s: float) -> Outgoing | None:
        """Returns the message to send now, or None.

        There is none while a message is under way. One that is overdue must be `missed` first.

        Args:
            until_step: the peer may do the steps before this one.
            stop: whether the run is to end early.
            now_s: the time.
        """
        if self._sent is not None:
            return None
        outgoing = self._due(until_step, stop, now_s)
        if outgoing is not None:
            self._sent, self._sent_at_s = outgoing, now_s
        return outgoing

    def overdue(self, now_s: float) -> str | None:
        """Returns why we gave up waiting for the current reply, or None."""
        if self._sent is None:
            return None
        is_in_the_way = self._closings and self._sent.kind != "query.stop"
        allowed_s = _BEFORE_CLOSING_S if is_in_the_way else self._patience.answer_s
        return f"no answer within {allowed_s:g} s" if now_s - self._sent_at_s >= allowed_s else None

    def _due(self, until_step: int, stop: bool, now_s: float) -> Outgoing | None:
        is_missed = self._missed_since_s is not None
        pause_s = _PAUSE_AFTER_MISS_S if is_missed else self._patience.poll_s
        is_poll_due = now_s - self._sent_at_s >= pause_s
        if is_missed and not is_poll_due:
            return None
        if self._closings:
            request = pb.HostRequest(
                run_id=self._run_id, peer=self.peer, start=self._closings[0], close=True
            )
            return Outgoing("query.stop", request)
        if self._assignment is None or self.ending is not None:
            return None
        kind = self._kind(until_step, stop, is_poll_due, now_s)
        if kind is None:
            return None
        request = pb.HostRequest(
            run_id=self._run_id,
            peer=self.peer,
            start=self._assignment.number,
            until_step=until_step,
            stop=stop,
            reports_received=self._num_reports,
            join=self._join,
        )
        if kind == "train.start":
            request.assignment = self._assignment.to_json()
        else:
            request.hold_s = self._patience.hold_s
        if self._answer is not None:
            request.answer_step = self._answer[0]
            request.answer.CopyFrom(self._answer[1])
        return Outgoing(kind, request)

    def _kind(self, until_step: int, stop: bool, is_poll_due: bool, now_s: float) -> str | None:
        if not self._is_known:
            return "train.start" if is_poll_due else None
        if self._answer is not None:
            return "train.step"
        if self._join is not None or until_step > self._told_until or stop > self._was_told_to_stop:
            return "train.round"
        if self._offer is not None:
            # The next message is the answer, once the step has closed. That may take hours if
            # another peer evaluates.
            is_silent = now_s - self._sent_at_s >= self._patience.silent_s
            return "query.status" if is_silent else None
        return "query.status" if is_poll_due else None

    # ---- replies ----

    def missed(self, what: str, now_s: float) -> bool:
        """Notes that the current message got no reply; returns whether it is the first in a row."""
        was_closing = self._sent is not None and self._sent.kind == "query.stop"
        self._sent = None
        if self._closings:
            self._close_tries += was_closing
            if self._close_tries >= _CLOSE_TRIES:
                self.gave_up = True
                self._was_closed()
            return False
        is_news, self._is_node_missed = not self._is_node_missed, True
        self._note_absence(what, self._patience.unreachable_s, Outcome.FAILED, now_s)
        return is_news

    def receive(self, reply: pb.HostReply, now_s: float) -> bool:
        """Takes a reply; returns whether it may carry calls for the coordinator."""
        sent, self._sent = self._sent, None
        self._is_node_missed = False
        if self._closings or self._assignment is None or sent is None:
            if sent is not None and sent.kind == "query.stop":
                self._was_closed()
            return False
        if reply.state not in (pb.RUNNING, pb.WAITING, pb.ENDED):
            self._is_not_there(reply, now_s)
            return False
        self._missed_since_s = None
        self._is_known = True
        self.where = one_line(reply.where, _LONGEST_PLACE)
        self.next_step = max(self.next_step, reply.next_step)
        self._told_until = max(self._told_until, sent.request.until_step)
        self._was_told_to_stop |= sent.request.stop
        if sent.request.HasField("join"):
            self._join = None
        if sent.request.HasField("answer"):
            self._answer = None
        if reply.HasField("offer"):
            self._offer = reply.offer
        if reply.state == pb.ENDED:
            self.ending = _ending(reply)
        return True

    def new_reports(
        self, reply: pb.HostReply, is_welcome: Callable[[pb.ReportRequest], bool] = lambda _: True
    ) -> Iterator[pb.ReportRequest]:
        """Yields the reports of a reply that earlier replies did not have, and so takes them.

        What is not taken is not confirmed either, so the peer sends it again. It keeps what has not
        been confirmed, so a reply that begins behind that is none of its replies.

        Args:
            reply: what a peer's host has answered.
            is_welcome: whether this report may be taken now. After the end none comes again, so then
                nobody is asked.
        """
        is_last = reply.state == pb.ENDED
        most = _MOST_LAST_REPORTS if is_last else _MOST_REPORTS
        if reply.first_report > self._num_reports:
            return
        known = self._num_reports - reply.first_report
        for report in itertools.islice(reply.reports, known, known + most):
            if not is_last and not is_welcome(report):
                return
            self._num_reports += 1
            yield report

    def _is_not_there(self, reply: pb.HostReply, now_s: float) -> None:
        """Notes why the peer's host can't answer for it: it starts, waits for a GPU, or is gone."""
        patience = self._patience
        if reply.state == pb.UNKNOWN and self._is_known:
            self.ending = f"is gone: {one_line(reply.message)}"
        elif reply.state == pb.NO_ROOM:
            self._note_absence(one_line(reply.message), patience.placement_s, Outcome.UNFIT, now_s)
        else:
            self._note_absence(
                one_line(reply.message), patience.unreachable_s, Outcome.FAILED, now_s
            )

    def _note_absence(self, what: str, allowed_s: float, outcome: Outcome, now_s: float) -> None:
        if self._missed_since_s is None or outcome is not self._missed_for:
            self._missed_since_s, self._missed_for = now_s, outcome
        elif now_s - self._missed_since_s > allowed_s and self.ending is None:
            self.ending = Ending(outcome, f"was not there for {allowed_s:g} s: {what}")

    def _was_closed(self) -> None:
        self._closings.popleft()
        self._close_tries = 0


def _ending(reply: pb.HostReply) -> Ending:
    """Returns how a peer ended. Its words are a site's, and go into errors that anybody may print."""
    said = one_line(reply.message)
    try:
        return Ending(Outcome(reply.outcome), said)
    except ValueError:
        return Ending(
            Outcome.FAILED,
            f"ended in a way that this version does not know ({reply.outcome}): {said}",
        )
