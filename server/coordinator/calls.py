"""The coordinator's four calls, from message to message: decode, ask the state machine, encode.

Nothing here waits or decides. Over gRPC the service holds an answer back until its step has closed.
If a framework carries the messages, the code that delivers them asks again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from dogo_fed.contracts import PeerId
from dogo_fed.coordination.allowance import Allowance
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.errors import DogoError, Refused, SchemaMismatch, StaleTicket
from dogo_fed.reporting.counted_log import CountedLog
from dogo_fed.reporting.sink import Sink
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat
from dogo_fed.wire.reports import ReportRules, Reports
from server.coordinator.reported import Reported

logger = logging.getLogger(__name__)

_MOST_RECORDS, _MORE_RECORDS_PER_S = 4096, 1000.0
_MOST_REFUSALS, _MORE_REFUSALS_PER_S = 100, 2.0


class CoordinatorCalls:
    """The four calls. They are not thread-safe: one thread makes all of them.

    Whoever delivers a call says which peer makes it: the one whose credential the call carries, or
    the one whose node sent it. A message that names another peer as its sender is refused.

    Attributes:
        complaints: what was refused, in few lines however much it is.
    """

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
        self.complaints = CountedLog(logger, clock)
        self._run_id = run_id
        self._sink = sink
        self._clock = clock
        known = coordinator.settings
        self._rules = ReportRules(
            plan=known.plan, num_peers=len(known.peers), message_bytes=wire.limit_bytes
        )
        self._records = {
            peer: Allowance(_MORE_RECORDS_PER_S, _MOST_RECORDS) for peer in known.peers
        }
        self._refusals = {
            peer: Allowance(_MORE_REFUSALS_PER_S, _MOST_REFUSALS) for peer in known.peers
        }

    @property
    def next_open_step(self) -> int:
        """The first exchanging step that has not closed."""
        return self.coordinator.next_open_step

    def has_answer(self, step: int) -> bool:
        """Whether offers for this step can be answered."""
        return self.coordinator.is_halted or step < self.next_open_step

    def join(self, peer: PeerId, request: pb.JoinRequest) -> pb.JoinReply:
        """Lets a peer join, or refuses it and says what differs."""
        try:
            self._check_caller(peer, request.sender)
            if request.run_id != self._run_id:
                raise SchemaMismatch(
                    f"peer {peer!r} wants run {request.run_id[:128]!r}, this is run "
                    f"{self._run_id!r}"
                )
            next_step = self.coordinator.join(
                peer, request.sender.incarnation, dict(request.agreement), self._clock()
            )
        except codec.REFUSALS as error:
            return pb.JoinReply(refusal=self._refused(peer, "was not let in", error))
        return pb.JoinReply(next_step=next_step)

    def offer(self, peer: PeerId, request: pb.ExchangeRequest) -> pb.ExchangeReply | None:
        """Takes a distribution; returns a refusal, or None if it was taken."""
        incarnation = request.sender.incarnation
        try:
            self._check_caller(peer, request.sender)
            ticket = codec.decode_ticket(request.ticket)
            self.coordinator.check_offer(
                peer, incarnation, ticket
            )  # before the matrix is looked at
            distribution = self.wire.decode_published(request)
            self.coordinator.offer(peer, incarnation, ticket, distribution, self._clock())
        except codec.REFUSALS as error:
            what = f"was refused an exchange of step={request.ticket.step}"
            return pb.ExchangeReply(refusal=self._refused(peer, what, error))
        return None

    def answer(self, peer: PeerId, step: int) -> pb.ExchangeReply | None:
        """Returns the reply to an offer of the peer, or None while its step is open.

        It is a refusal if the run ends before that step.
        """
        if self.coordinator.is_halted and step >= self.next_open_step:
            error = StaleTicket(f"the run ends before step {step}")
            return pb.ExchangeReply(refusal=codec.encode_refusal(error))
        signal = self.coordinator.answer(peer, step)
        return None if signal is None else self.wire.encode_signal(signal)

    def report_wait_s(self, peer: PeerId, request: pb.ReportRequest) -> float:
        """Returns for how long this report should not be taken yet, since there were many before."""
        return self._records[peer].wait_s(_num_records(request), self._clock())

    def report(self, peer: PeerId, request: pb.ReportRequest) -> pb.ReportReply:
        """Takes reports, all or none; a repeated report counts once.

        A peer that says that it evaluates gets time for it.
        """
        try:
            self._check_caller(peer, request.sender)
            self.coordinator.check_sender(peer, request.sender.incarnation)
            reports = self._rules.read(request, peer)
            plan = self._rules.plan
            self.reported.count(peer, _num_records(request), plan.total_steps + plan.num_rounds + 2)
        except codec.REFUSALS as error:
            return pb.ReportReply(refusal=self._refused(peer, "was refused a report", error))
        self._records[peer].owe(_num_records(request), self._clock())
        if request.evaluating and self.coordinator.note_evaluation(peer, self._clock()):
            self._sink.alive()
        self._emit(peer, request.sender.incarnation, reports)
        return pb.ReportReply(stop=self.coordinator.stop_requested)

    def leave(self, peer: PeerId, request: pb.LeaveRequest) -> pb.LeaveReply:
        """Takes note that a peer leaves."""
        try:
            self._check_caller(peer, request.sender)
            self.coordinator.leave(peer, request.sender.incarnation, self._clock())
        except codec.REFUSALS as error:
            return pb.LeaveReply(refusal=self._refused(peer, "could not leave", error))
        return pb.LeaveReply()

    def _emit(self, peer: str, incarnation: str, reports: Reports) -> None:
        for step in reports.steps:
            if self.reported.is_new_step(peer, incarnation, step.step):
                self.coordinator.note_step(PeerId(peer))
                self._sink.emit(step)
        for report in reports.rounds:
            if self.reported.is_new_round(peer, incarnation, report.round):
                self._sink.emit(report)
        if reports.result is not None and self.reported.is_new_result(peer, incarnation):
            self._sink.emit(reports.result)

    def garbage(self, peer: PeerId, what: str) -> None:
        """Takes note that a peer has sent what is no message."""
        self._refusals[peer].take(1, self._clock())
        self.complaints.warn(f"peer={peer}", what)

    def is_patient_with(self, peer: PeerId) -> bool:
        """Whether the peer has not been refused too often just before."""
        return self._refusals[peer].wait_s(1, self._clock()) == 0

    def _check_caller(self, peer: PeerId, sender: pb.Sender) -> None:
        """Raises Refused if a peer speaks for another, or was refused too often just before."""
        if not self.is_patient_with(peer):
            raise Refused(f"peer {peer!r} has been refused too often; it should wait for a while")
        if sender.peer != peer:
            raise Refused(f"peer {peer!r} speaks for {sender.peer[:64]!r}, which it is not")

    def _refused(self, peer: PeerId, what: str, error: DogoError) -> pb.Refusal:
        """Returns the refusal, and counts it."""
        self._refusals[peer].take(1, self._clock())
        self.complaints.warn(f"peer={peer}", f"{what}: {error}")
        return codec.encode_refusal(error)


def _num_records(request: pb.ReportRequest) -> int:
    return len(request.steps) + len(request.rounds) + request.HasField("result")
