"""The coordinator's four calls, from message to message: decode, ask the state machine, encode.

Nothing here waits and nothing decides. Over gRPC the service holds back an answer until its step has
closed; where a framework carries the messages, whoever delivers them asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dogo_fed.contracts import PeerId, PeerResult, RoundReport, StepReport
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.errors import SchemaMismatch
from dogo_fed.reporting.sink import Sink
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat

logger = logging.getLogger(__name__)


class CoordinatorCalls:
    """The four calls. All of them from one thread."""

    def __init__(
        self,
        coordinator: Coordinator,
        run_id: str,
        wire: WireFormat,
        sink: Sink,
        clock: Callable[[], float],
    ) -> None:
        self._coordinator = coordinator
        self._run_id = run_id
        self._wire = wire
        self._sink = sink
        self._clock = clock
        self._reported_step: dict[tuple[str, str], int] = {}
        self._reported: set[tuple[str, str, int]] = set()

    @property
    def next_open_step(self) -> int:
        """The first step that has not closed."""
        return self._coordinator.next_open_step

    def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        """Lets a peer in, or says what differs."""
        try:
            if request.run_id != self._run_id:
                raise SchemaMismatch(
                    f"peer {request.sender.peer!r} wants run {request.run_id!r}, this is run "
                    f"{self._run_id!r}"
                )
            next_step = self._coordinator.join(
                PeerId(request.sender.peer),
                request.sender.incarnation,
                dict(request.agreement),
                self._clock(),
            )
        except codec.REFUSALS as error:
            logger.warning("refused to let in: %s", error)
            return pb.JoinReply(refusal=codec.encode_refusal(error))
        return pb.JoinReply(next_step=next_step)

    def offer(self, request: pb.ExchangeRequest) -> pb.ExchangeReply | None:
        """Takes a distribution; returns a refusal, or None if it was taken."""
        peer, step = PeerId(request.sender.peer), request.ticket.step
        try:
            self._coordinator.offer(
                peer,
                request.sender.incarnation,
                codec.decode_ticket(request.ticket),
                self._wire.decode_published(request),
                self._clock(),
            )
        except codec.REFUSALS as error:
            logger.warning("refused an exchange of peer=%s step=%d: %s", peer, step, error)
            return pb.ExchangeReply(refusal=codec.encode_refusal(error))
        return None

    def answer(self, sender: pb.Sender, step: int) -> pb.ExchangeReply | None:
        """Returns what the sender of an offer learns from, or None while the step is open."""
        signal = self._coordinator.answer(PeerId(sender.peer), step)
        return None if signal is None else self._wire.encode_signal(signal)

    def report(self, request: pb.ReportRequest) -> pb.ReportReply:
        """Takes reports; a repeated one is counted once."""
        peer = PeerId(request.sender.peer)
        try:
            self._coordinator.check_sender(peer, request.sender.incarnation)
        except codec.REFUSALS as error:
            return pb.ReportReply(refusal=codec.encode_refusal(error))
        sender = (request.sender.peer, request.sender.incarnation)
        for step in request.steps:
            if step.step > self._reported_step.get(sender, -1):
                self._reported_step[sender] = step.step
                self._sink.emit(codec.decode_report(StepReport, step, peer))
        for one in request.rounds:
            if self._is_new(*sender, one.round):
                self._sink.emit(codec.decode_report(RoundReport, one, peer))
        if request.HasField("result") and self._is_new(*sender, -1):
            self._sink.emit(codec.decode_report(PeerResult, request.result, peer))
        return pb.ReportReply(stop=self._coordinator.stop_requested)

    def leave(self, request: pb.LeaveRequest) -> pb.LeaveReply:
        """Lets a peer go."""
        try:
            self._coordinator.leave(
                PeerId(request.sender.peer), request.sender.incarnation, self._clock()
            )
        except codec.REFUSALS as error:
            return pb.LeaveReply(refusal=codec.encode_refusal(error))
        return pb.LeaveReply()

    def _is_new(self, peer: str, incarnation: str, number: int) -> bool:
        """Notes a round (-1: the result) of a process; returns whether it is the first time."""
        is_new = (peer, incarnation, number) not in self._reported
        self._reported.add((peer, incarnation, number))
        return is_new
