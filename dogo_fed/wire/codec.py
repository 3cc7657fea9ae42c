"""Tickets, reports and refusals as messages, and back. Distributions are `format.WireFormat`'s.

Nothing is unpickled, evaluated or imported: a message is numbers, short strings and matrices.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from dogo_fed.contracts import (
    PeerId,
    PeerResult,
    RoundReport,
    StepReport,
    Ticket,
)
from dogo_fed.errors import (
    DogoError,
    MalformedDistribution,
    Refused,
    SchemaMismatch,
    StaleTicket,
)
from dogo_fed.wire import dogo_pb2 as pb

_CODES: dict[type[DogoError], pb.Code] = {
    Refused: pb.REFUSED,
    SchemaMismatch: pb.SCHEMA_MISMATCH,
    StaleTicket: pb.STALE_TICKET,
    MalformedDistribution: pb.MALFORMED,
}
_ERRORS: dict[int, type[DogoError]] = {code: error for error, code in _CODES.items()}

_REPORT_MESSAGES: dict[type, Any] = {
    StepReport: pb.StepReport,
    RoundReport: pb.RoundReport,
    PeerResult: pb.PeerResult,
}

Report = TypeVar("Report", StepReport, RoundReport, PeerResult)

REFUSALS: tuple[type[DogoError], ...] = tuple(_CODES)
"""The errors that travel as a refusal, with their sentence."""


def encode_reports(
    sender: pb.Sender,
    steps: Sequence[StepReport],
    rounds: Sequence[RoundReport],
    result: PeerResult | None,
) -> pb.ReportRequest:
    """Returns the request that delivers these reports."""
    return pb.ReportRequest(
        sender=sender,
        steps=[encode_report(step) for step in steps],
        rounds=[encode_report(one) for one in rounds],
        result=None if result is None else encode_report(result),
    )


def encode_ticket(ticket: Ticket) -> pb.Ticket:
    """Returns the message."""
    return pb.Ticket(
        run_id=ticket.run_id,
        round=ticket.round,
        step=ticket.step,
        batch_digest=ticket.batch_digest,
    )


def decode_ticket(message: pb.Ticket) -> Ticket:
    """Returns the ticket."""
    return Ticket(
        run_id=message.run_id,
        round=message.round,
        step=message.step,
        batch_digest=message.batch_digest,
    )


def encode_refusal(error: DogoError) -> pb.Refusal:
    """Returns the message for one of `REFUSALS`."""
    return pb.Refusal(code=_CODES[type(error)], message=str(error))


def raise_refusal(reply: pb.JoinReply | pb.ExchangeReply | pb.ReportReply | pb.LeaveReply) -> None:
    """Raises the coordinator's refusal if the reply carries one."""
    if reply.HasField("refusal"):
        raise _ERRORS.get(reply.refusal.code, Refused)(reply.refusal.message)


def encode_report(report: StepReport | RoundReport | PeerResult) -> Any:
    """Returns the message of the same name and fields; the sender is named once, in the request."""
    message_type = _REPORT_MESSAGES[type(report)]
    return message_type(**{name: getattr(report, name) for name in _field_names(type(report))})


def decode_report(kind: type[Report], message: Any, peer: PeerId) -> Report:
    """Returns the report of `peer`; a time that is no time becomes 0."""
    values = {name: getattr(message, name) for name in _field_names(kind)}
    for name in values:
        if name.endswith("_s"):
            values[name] = non_negative(values[name])
    return kind(peer=peer, **values)


def _field_names(kind: type[StepReport] | type[RoundReport] | type[PeerResult]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name != "peer"]


def non_negative(value: float) -> float:
    """Returns a time in seconds; 0 for what is none."""
    return value if math.isfinite(value) and value > 0 else 0.0
