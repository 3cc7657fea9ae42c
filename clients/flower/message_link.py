"""A peer's link to its coordinator if a framework carries the messages, one at a time.

The peer's thread stores its calls here and waits for the answers. The peer's host handles the
messages: it passes a message's content to `take`, and lets `tell` add the calls to the reply. The
peer keeps its graph meanwhile.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar

from dogo_fed.contracts import (
    PeerId,
    PeerResult,
    RoundReport,
    SimilarityDistribution,
    StepReport,
    TeacherSignal,
    Ticket,
)
from dogo_fed.errors import CoordinatorLost, ExchangeTimeout
from dogo_fed.exchange.base import Traffic
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat

T = TypeVar("T")

_ANSWER_MARGIN_S = 60.0
"""Added to the coordinator's deadlines, since Flower needs seconds for each message."""


class MessageLink:
    """A `CoordinatorLink` by messages. The peer calls the first half, its host the second.

    The two halves run in different threads. Every field is read and written under one condition,
    and whatever changes a field notifies the other side.
    """

    def __init__(
        self,
        peer: PeerId,
        run_id: str,
        wire: WireFormat,
        answer_within_s: float,
        changed: threading.Condition | None = None,
    ) -> None:
        """Makes a link without calls.

        Args:
            peer: the peer's name.
            run_id: the name of the run that it joins.
            wire: the form of the run's distributions; answers of another form are refused.
            answer_within_s: longest time in seconds that an answer may be held back for other
                peers.
            changed: the condition for both sides. The host gives its own, so that it can wait for
                this link and for other news at once.
        """
        self._run_id = run_id
        self._wire = wire
        self._timeout_s = answer_within_s + _ANSWER_MARGIN_S
        self._sender = pb.Sender(peer=peer, incarnation=uuid.uuid4().hex)
        self._changed = threading.Condition() if changed is None else changed
        self._join: pb.JoinRequest | None = None
        self._joined: pb.JoinReply | None = None
        self._offer: pb.ExchangeRequest | None = None
        self._answer: pb.ExchangeReply | None = None
        self._reports: list[pb.ReportRequest] = []
        self._num_received = 0
        self._is_stop_requested = False
        self._has_left = False
        self._heard_at_s = time.monotonic()
        self._cut: str | None = None
        self._traffic = Traffic()

    # ---- the peer's side ----

    @property
    def last_traffic(self) -> Traffic:
        """Bytes of the messages for the ticket that was collected last."""
        return self._traffic

    def join(self, agreement: Mapping[str, str]) -> int:
        """Enters the run; see `CoordinatorLink.join`."""
        with self._changed:
            self._join = pb.JoinRequest(
                sender=self._sender, run_id=self._run_id, agreement=agreement
            )
            self._changed.notify_all()
            reply = self._wait_for(lambda: self._joined, "the request to join")
        codec.raise_refusal(reply)
        return int(reply.next_step)

    def publish(self, ticket: Ticket, distribution: SimilarityDistribution) -> None:
        """Stores my distribution for the next message; see `Exchange.publish`."""
        request = self._wire.encode_published(self._sender, ticket, distribution)
        with self._changed:
            self._offer, self._answer = request, None
            self._changed.notify_all()

    def collect(self, ticket: Ticket) -> TeacherSignal:
        """Waits for the message with the teachers' mean; see `Exchange.collect`."""
        with self._changed:
            offer = self._offer
            assert offer is not None, "collect without publish"
            assert offer.ticket.step == ticket.step, "collect of another ticket than published"
            reply = self._wait_for(lambda: self._answer, f"the distribution of step {ticket.step}")
            self._offer = None
        codec.raise_refusal(reply)
        self._traffic = Traffic(offer.ByteSize(), reply.ByteSize())
        return self._wire.decode_signal(reply)

    def report(
        self,
        steps: list[StepReport],
        rounds: list[RoundReport],
        result: PeerResult | None,
        *,
        is_evaluating: bool = False,
        is_brief: bool = False,
    ) -> bool:
        """Stores reports for the next message; see `CoordinatorLink.report`."""
        with self._changed:
            is_news = bool(steps or rounds or result is not None)
            says_so_already = bool(self._reports) and self._reports[-1].evaluating
            if is_news or (is_evaluating and not says_so_already):
                requests = codec.encode_reports(self._sender, steps, rounds, result)
                requests[0].evaluating = is_evaluating
                self._reports += requests
            return self._is_stop_requested

    def close(self) -> None:
        """Leaves the run with the next message; a second call does nothing."""
        with self._changed:
            self._has_left = True
            self._changed.notify_all()

    def _wait_for(self, arrived: Callable[[], T | None], what: str) -> T:
        """Returns the answer when it has arrived. The caller holds the condition; waiting frees it.

        Raises:
            ExchangeTimeout: no message has come for too long. While some come without the answer,
                the coordinator waits for other peers and knows how long.
            CoordinatorLost: the host has cut the link.
        """
        self._heard_at_s = time.monotonic()
        while arrived() is None and self._cut is None:
            left_s = self._heard_at_s + self._timeout_s - time.monotonic()
            if left_s <= 0:
                raise ExchangeTimeout(
                    f"no message has come for {self._timeout_s:g} s, and {what} is not answered; "
                    "is the coordinator's app still running?"
                )
            self._changed.wait(left_s)
        found = arrived()
        if found is None:
            raise CoordinatorLost(f"{what} will not be answered: {self._cut}")
        return found

    # ---- the host's side ----

    def take(self, request: pb.HostRequest) -> None:
        """Takes a message's content; an answer to a call that is not open is dropped."""
        with self._changed:
            self._heard_at_s = time.monotonic()
            self._is_stop_requested |= request.stop
            # Reports are kept until a message confirms them, since a reply may be lost.
            received = min(request.reports_received, self._num_received + len(self._reports))
            if received > self._num_received:
                del self._reports[: received - self._num_received]
                self._num_received = received
            if request.HasField("join") and self._join is not None and self._joined is None:
                self._joined = request.join
            if (
                request.HasField("answer")
                and self._offer is not None
                and self._offer.ticket.step == request.answer_step
            ):
                self._answer = request.answer
            self._changed.notify_all()

    def tell(self, reply: pb.HostReply) -> None:
        """Adds the unanswered calls and the unconfirmed reports to a reply."""
        with self._changed:
            if self._join is not None and self._joined is None:
                reply.join.CopyFrom(self._join)
            if self._offer is not None and self._answer is None:
                reply.offer.CopyFrom(self._offer)
            if self._has_left:
                reply.leave.sender.CopyFrom(self._sender)
            reply.reports.extend(self._reports)
            reply.first_report = self._num_received

    def has_question(self) -> bool:
        """Whether the peer waits for an answer."""
        with self._changed:
            is_joining = self._join is not None and self._joined is None
            return is_joining or (self._offer is not None and self._answer is None)

    def cut(self, reason: str) -> None:
        """Ends the peer's waiting with an error, because no more messages will come."""
        with self._changed:
            self._cut = reason
            self._changed.notify_all()
