"""A peer's link to its coordinator where a framework carries the messages, one at a time.

The peer's thread says what it has to say and waits; whoever hosts the peer fetches that with `tell`
when a message comes by, and brings what came with it by `take`. The peer keeps its graph meanwhile.
"""

from __future__ import annotations

import threading
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
"""What a message may take on top of the coordinator's deadlines; Flower needs seconds for each."""


class MessageLink:
    """One peer's process, as the coordinator sees it. The peer calls the first half, its host the second."""

    def __init__(
        self,
        peer: PeerId,
        run_id: str,
        wire: WireFormat,
        answer_within_s: float,
        changed: threading.Condition | None = None,
    ) -> None:
        """Makes a link that has nothing to say yet.

        Args:
            peer: whose.
            run_id: of the run that it enters.
            wire: what distributions look like; an answer that looks otherwise is refused.
            answer_within_s: longest time in seconds that an exchange may be held back for others.
            changed: notified whenever there is something new, on either side.
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
        self._cut: str | None = None
        self._traffic = Traffic()

    # ---- the peer's side ----

    @property
    def last_traffic(self) -> Traffic:
        """Bytes of both messages of the ticket that was collected last."""
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
        """Lays my distribution out for the next message; see `Exchange.publish`."""
        request = self._wire.encode_published(self._sender, ticket, distribution)
        with self._changed:
            self._offer, self._answer = request, None
            self._changed.notify_all()

    def collect(self, ticket: Ticket) -> TeacherSignal:
        """Waits for the message that brings the mean of the others'; see `Exchange.collect`."""
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
        self, steps: list[StepReport], rounds: list[RoundReport], result: PeerResult | None
    ) -> bool:
        """Lays reports out for the next message; returns whether the run is to end early."""
        with self._changed:
            if steps or rounds or result is not None:
                self._reports.append(codec.encode_reports(self._sender, steps, rounds, result))
            return self._is_stop_requested

    def close(self) -> None:
        """Leaves the run with the next message; a second call does nothing."""
        with self._changed:
            self._has_left = True
            self._changed.notify_all()

    def _wait_for(self, arrived: Callable[[], T | None], what: str) -> T:
        """Returns what has arrived. The caller holds the lock."""
        if not self._changed.wait_for(
            lambda: arrived() is not None or self._cut is not None, self._timeout_s
        ):
            raise ExchangeTimeout(
                f"no message has brought an answer to {what} within {self._timeout_s:g} s; is the "
                "coordinator's app still running?"
            )
        found = arrived()
        if found is None:
            raise CoordinatorLost(f"{what} will not be answered: {self._cut}")
        return found

    # ---- the host's side ----

    def take(self, request: pb.HostRequest) -> None:
        """Brings what a message carries. What answers nothing that is open is dropped."""
        with self._changed:
            self._is_stop_requested |= request.stop
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
        """Adds to a message what the coordinator has not heard or not answered yet."""
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
        """Lets whoever waits go: there will be no more messages."""
        with self._changed:
            self._cut = reason
            self._changed.notify_all()
