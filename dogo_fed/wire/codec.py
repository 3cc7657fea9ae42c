"""Turns tickets, reports and refusals into messages, and back.

Distributions are encoded by `format.WireFormat`. Nothing is unpickled, evaluated or imported: a
message holds numbers, short strings and matrices.
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
from dogo_fed.text import one_line
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
T = TypeVar("T")

MOST_STEPS = 512
"""Step reports in one message; more are sent in several. They fit beside the smallest batch."""

MOST_ROUNDS = 16
"""Round reports in one message."""

_LONGEST_REFUSAL = 2000

REFUSALS: tuple[type[DogoError], ...] = tuple(_CODES)
"""The errors that are sent as a refusal, with their message."""


def encode_reports(
    sender: pb.Sender,
    steps: Sequence[StepReport],
    rounds: Sequence[RoundReport],
    result: PeerResult | None,
) -> list[pb.ReportRequest]:
    """Returns the requests that deliver these reports, at least one; the last one has the result."""
    num_requests = max(1, -(-len(steps) // MOST_STEPS), -(-len(rounds) // MOST_ROUNDS))
    requests = [
        pb.ReportRequest(
            sender=sender,
            steps=[encode_report(report) for report in _part(steps, number, MOST_STEPS)],
            rounds=[encode_report(report) for report in _part(rounds, number, MOST_ROUNDS)],
        )
        for number in range(num_requests)
    ]
    if result is not None:
        requests[-1].result.CopyFrom(encode_report(result))
    return requests


def _part(reports: Sequence[T], number: int, size: int) -> Sequence[T]:
    return reports[number * size : (number + 1) * size]


def encode_ticket(ticket: Ticket) -> pb.Ticket:
    """Returns the message for a ticket."""
    return pb.Ticket(
        run_id=ticket.run_id,
        round=ticket.round,
        step=ticket.step,
        batch_digest=ticket.batch_digest,
    )


def decode_ticket(message: pb.Ticket) -> Ticket:
    """Returns the ticket in a message; its values are not checked."""
    return Ticket(
        run_id=message.run_id,
        round=message.round,
        step=message.step,
        batch_digest=message.batch_digest,
    )


def encode_refusal(error: DogoError) -> pb.Refusal:
    """Returns the message for one of `REFUSALS`."""
    return pb.Refusal(code=_CODES[type(error)], message=one_line(error, _LONGEST_REFUSAL))


def raise_refusal(reply: pb.JoinReply | pb.ExchangeReply | pb.ReportReply | pb.LeaveReply) -> None:
    """Raises the coordinator's refusal if the reply carries one.

    Raises:
        Refused, SchemaMismatch, StaleTicket, MalformedDistribution: as the coordinator raised it.
    """
    if reply.HasField("refusal"):
        raise _ERRORS.get(reply.refusal.code, Refused)(reply.refusal.message)


def encode_report(report: StepReport | RoundReport | PeerResult) -> Any:
    """Returns the message for a report, without the peer: the request names the sender once."""
    message_type = _REPORT_MESSAGES[type(report)]
    return message_type(**{name: getattr(report, name) for name in _field_names(type(report))})


def decode_report(kind: type[Report], message: Any, peer: PeerId) -> Report:
    """Returns the report of `peer`; a duration that is negative or not finite becomes 0."""
    values = {name: getattr(message, name) for name in _field_names(kind)}
    for name, value in values.items():
        if name.endswith("_s"):
            values[name] = non_negative(value)
        elif isinstance(value, float) and math.isnan(value):
            values[name] = math.nan  # the same object, so that equal reports compare equal
    return kind(peer=peer, **values)


def _field_names(kind: type[StepReport] | type[RoundReport] | type[PeerResult]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name != "peer"]


def non_negative(value: float) -> float:
    """Returns a duration in seconds, or 0 if it is negative or not finite."""
    return value if math.isfinite(value) and value > 0 else 0.0
