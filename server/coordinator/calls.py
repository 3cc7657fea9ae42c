"""The coordinator's four calls, from message to message: decode, ask the state machine, encode.

Nothing here waits or decides. Over gRPC the service holds an answer back until its step has closed.
If a framework carries the messages, the code that delivers them asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dogo_fed.contracts import PeerId, PeerResult, RoundReport, StepReport
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.errors import SchemaMismatch, StaleTicket
from dogo_fed.reporting.sink import Sink
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat
from server.coordinator.reported import Reported

logger = logging.getLogger(__name__)


class CoordinatorCalls:
    """The four calls. They are not thread-safe: one thread makes all of them."""

    def __init__(
        self,
        coordinator: Coordinator,
        run_id: str,
        wire: WireFormat,
        sink: Sink,
        clock: Callable[[], float],
        reported: Reported | None = None,
    ) -> None:
        """Makes the calls of one coordinator.

        Args:
            coordinator: the state machine.
            run_id: the run's name; a peer that joins must name the same.
            wire: the form of the run's distributions.
            sink: gets the peers' reports.
            clock: the time in seconds.
            reported: the reports that arrived earlier; None if there are none.
        """
        self.coordinator = coordinator
        self.wire = wire
        self.reported = Reported() if reported is None else reported
        self._run_id = run_id
        self._sink = sink
        self._clock = clock

    @property
    def next_open_step(self) -> int:
        """The first exchanging step that has not closed."""
        return self.coordinator.next_open_step

    def has_answer(self, step: int) -> bool:
        """Whether offers for this step can be answered."""
        return self.coordinator.is_halted or step < self.next_open_step

    def join(self, request: pb.JoinRequest) -> pb.JoinReply:
        """Lets a peer join, or refuses it and says what differs."""
        try:
            if request.run_id != self._run_id:
                raise SchemaMismatch(
                    f"peer {request.sender.peer!r} wants run {request.run_id!r}, this is run "
                    f"{self._run_id!r}"
                )
            next_step = self.coordinator.join(
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
            self.coordinator.offer(
                peer,
                request.sender.incarnation,
                codec.decode_ticket(request.ticket),
                self.wire.decode_published(request),
                self._clock(),
            )
        except codec.REFUSALS as error:
            logger.warning("refused an exchange of peer=%s step=%d: %s", peer, step, error)
            return pb.ExchangeReply(refusal=codec.encode_refusal(error))
        return None

    def answer(self, sender: pb.Sender, step: int) -> pb.ExchangeReply | None:
        """Returns the reply to an offer of the sender, or None while its step is open.

        It is a refusal if the run ends before that step.
        """
        if self.coordinator.is_halted and step >= self.next_open_step:
            error = StaleTicket(f"the run ends before step {step}")
            return pb.ExchangeReply(refusal=codec.encode_refusal(error))
        signal = self.coordinator.answer(PeerId(sender.peer), step)
        return None if signal is None else self.wire.encode_signal(signal)

    def report(self, request: pb.ReportRequest) -> pb.ReportReply:
        """Takes reports; a repeated report counts once."""
        peer = PeerId(request.sender.peer)
        try:
            self.coordinator.check_sender(peer, request.sender.incarnation)
        except codec.REFUSALS as error:
            return pb.ReportReply(refusal=codec.encode_refusal(error))
        sender = (request.sender.peer, request.sender.incarnation)
        for step in request.steps:
            if self.reported.is_new_step(*sender, step.step):
                self._sink.emit(codec.decode_report(StepReport, step, peer))
        for one in request.rounds:
            if self.reported.is_new_round(*sender, one.round):
                self._sink.emit(codec.decode_report(RoundReport, one, peer))
        if request.HasField("result") and self.reported.is_new_result(*sender):
            self._sink.emit(codec.decode_report(PeerResult, request.result, peer))
        return pb.ReportReply(stop=self.coordinator.stop_requested)

    def leave(self, request: pb.LeaveRequest) -> pb.LeaveReply:
        """Takes note that a peer leaves."""
        try:
            self.coordinator.leave(
                PeerId(request.sender.peer), request.sender.incarnation, self._clock()
            )
        except codec.REFUSALS as error:
            return pb.LeaveReply(refusal=codec.encode_refusal(error))
        return pb.LeaveReply()
