"""Between `contracts` and protobuf: the only encoder and decoder. Everything decoded is checked.

Nothing is unpickled, evaluated or imported: a message is numbers, short strings and one matrix.
"""

# N = images in the step's batch

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from dogo_fed.contracts import (
    PeerId,
    PeerResult,
    RoundReport,
    SimilarityDistribution,
    StepReport,
    TeacherSignal,
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
from dogo_fed.wire.validation import check_distribution

_ITEM_BYTES = 4
_OVERHEAD_BYTES = 64 * 1024
_LITTLE_ENDIAN_FLOAT32 = np.dtype("<f4")

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


def message_limit(batch_size: int, *, is_symmetric: bool = False) -> int:
    """Returns the size in bytes that a message of a run may have: its matrices and its envelope."""
    num_matrices = 2 if is_symmetric else 1
    return num_matrices * batch_size * batch_size * _ITEM_BYTES + _OVERHEAD_BYTES


def encode_distribution(distribution: SimilarityDistribution) -> pb.Distribution:
    """Returns the message of one direction; exact, no rounding."""
    p_NN = np.ascontiguousarray(distribution.p_NN, dtype=_LITTLE_ENDIAN_FLOAT32)
    return pb.Distribution(
        dtype=pb.FLOAT32,
        size=len(p_NN),
        rows=p_NN.tobytes(),
        negative_entropy=distribution.negative_entropy,
    )


def decode_distribution(message: pb.Distribution, batch_size: int) -> SimilarityDistribution:
    """Returns one direction, checked; its matrix is read-only and shares the message's memory.

    Raises:
        MalformedDistribution: wrong type, size or number of bytes, or not row-stochastic.
    """
    if message.dtype != pb.FLOAT32:
        raise MalformedDistribution(
            f"the distribution has dtype code {message.dtype}; this run exchanges float32"
        )
    if message.size != batch_size:
        raise MalformedDistribution(
            f"the distribution is over {message.size} images; the batch size is {batch_size}"
        )
    expected = batch_size * batch_size * _ITEM_BYTES
    if len(message.rows) != expected:
        raise MalformedDistribution(
            f"the distribution has {len(message.rows)} bytes instead of {expected}"
        )
    p_NN = np.frombuffer(message.rows, dtype=_LITTLE_ENDIAN_FLOAT32).reshape(batch_size, batch_size)
    distribution = SimilarityDistribution(
        p_NN=p_NN.astype(np.float32, copy=False), negative_entropy=message.negative_entropy
    )
    check_distribution(distribution)
    return distribution


def encode_exchange(
    sender: pb.Sender, ticket: Ticket, distribution: SimilarityDistribution
) -> pb.ExchangeRequest:
    """Returns the request of a step."""
    return pb.ExchangeRequest(
        sender=sender,
        ticket=encode_ticket(ticket),
        distribution=encode_distribution(distribution),
        reverse=_encode_if_any(distribution.reverse),
    )


def decode_published(request: pb.ExchangeRequest, batch_size: int) -> SimilarityDistribution:
    """Returns what a peer has published, checked; whether two directions are agreed is not asked here.

    Raises:
        MalformedDistribution: see `decode_distribution`.
    """
    given = decode_distribution(request.distribution, batch_size)
    if not request.HasField("reverse"):
        return given
    return dataclasses.replace(given, reverse=_decode_reverse(request.reverse, batch_size))


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


def encode_signal(signal: TeacherSignal) -> pb.ExchangeReply:
    """Returns the message."""
    mean = None
    if signal.mean_NN is not None:
        mean = encode_distribution(SimilarityDistribution(signal.mean_NN, signal.negative_entropy))
    return pb.ExchangeReply(
        mean=mean,
        reverse_mean=_encode_if_any(signal.reverse),
        teachers=signal.teachers,
        next_step=signal.next_step,
        stop=signal.stop,
        waited_s=signal.waited_s,
    )


def decode_signal(
    message: pb.ExchangeReply, batch_size: int, *, is_symmetric: bool = False
) -> TeacherSignal:
    """Returns the signal, its matrices checked.

    Raises:
        MalformedDistribution: a mean is no distribution, or it comes without teachers or they
            without it, or there are not as many view directions as agreed.
    """
    teachers = tuple(PeerId(name) for name in message.teachers)
    if message.HasField("mean") != bool(teachers):
        raise MalformedDistribution(
            f"the coordinator's answer names {len(teachers)} teachers but "
            f"{'has a' if message.HasField('mean') else 'has no'} mean distribution"
        )
    if message.HasField("reverse_mean") != (is_symmetric and bool(teachers)):
        has = "has a" if message.HasField("reverse_mean") else "has no"
        raise MalformedDistribution(
            f"the coordinator's answer {has} mean of the reverse direction; this run exchanges "
            f"{'both directions' if is_symmetric else 'one direction'}"
        )
    mean_NN, negative_entropy, reverse = None, 0.0, None
    if teachers:
        mean = decode_distribution(message.mean, batch_size)
        mean_NN, negative_entropy = mean.p_NN, mean.negative_entropy
        reverse = _decode_reverse(message.reverse_mean, batch_size) if is_symmetric else None
    return TeacherSignal(
        mean_NN=mean_NN,
        negative_entropy=negative_entropy,
        teachers=teachers,
        next_step=message.next_step,
        stop=message.stop,
        waited_s=_non_negative(message.waited_s),
        reverse=reverse,
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
            values[name] = _non_negative(values[name])
    return kind(peer=peer, **values)


def _encode_if_any(distribution: SimilarityDistribution | None) -> pb.Distribution | None:
    return None if distribution is None else encode_distribution(distribution)


def _decode_reverse(message: pb.Distribution, batch_size: int) -> SimilarityDistribution:
    try:
        return decode_distribution(message, batch_size)
    except MalformedDistribution as error:
        raise MalformedDistribution(f"in the reverse direction, {error}") from error


def _field_names(kind: type[StepReport] | type[RoundReport] | type[PeerResult]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name != "peer"]


def _non_negative(value: float) -> float:
    return value if math.isfinite(value) and value > 0 else 0.0
