"""The ServerApp's ends of our Flower messages: what goes out in one, and what came back in one.

Every message has a time to live, after which Flower calls it lost. Without one, that would be
twelve hours.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, RecordDict
from google.protobuf.message import DecodeError

from clients.flower.envelope import LEASE_S, RECORD, REPLY, REQUEST
from dogo_fed.text import one_line
from dogo_fed.wire import dogo_pb2 as pb

LIVES_S = 300.0
"""The time to live of a message, in seconds."""

_LONGEST_LINE = 300


def packed(
    request: pb.HostRequest, kind: str, node_id: int, lease_s: float, group_id: str | None = None
) -> Message:
    """Returns a message to a peer's host.

    Args:
        request: what it is told.
        kind: Flower's type of the message, e.g. "train.start".
        node_id: the node of the peer.
        lease_s: seconds without a message after which a simulated peer's process may end.
        group_id: Flower's group of the message; the number of the round, if there is one.
    """
    record = ConfigRecord({REQUEST: request.SerializeToString(), LEASE_S: lease_s})
    return Message(
        RecordDict({RECORD: record}),
        dst_node_id=node_id,
        message_type=kind,
        group_id=group_id,
        ttl=LIVES_S,
    )


def packed_hello(node_id: int) -> Message:
    """Returns a message that asks a node which peer it is for."""
    return Message(RecordDict(), dst_node_id=node_id, message_type="query.hello", ttl=LIVES_S)


def unpacked(message: Message, most_bytes: int) -> pb.HostReply:
    """Returns the reply of a peer's host.

    Args:
        message: what came back.
        most_bytes: size of the largest reply; a larger one is not decoded.

    Raises:
        ValueError: there is no reply in it; the text says why, and may quote the other side.
    """
    if message.has_error():
        raise ValueError(last_line(message.error.reason))
    try:
        body = message.content.config_records[RECORD][REPLY]
        if not isinstance(body, bytes):
            raise TypeError("the reply is no bytes")
        if len(body) > most_bytes:
            raise TypeError(
                f"{len(body)} bytes are more than the {most_bytes} of the largest reply"
            )
        return pb.HostReply.FromString(body)
    except (KeyError, TypeError, ValueError, DecodeError) as error:
        raise ValueError(f"it answered with something that is no reply: {error}") from error


def last_line(text: str | None) -> str:
    """Returns the last line of one of Flower's error texts, which may hold whole tracebacks."""
    lines = [line for line in (text or "").splitlines() if line.strip()]
    return one_line(lines[-1].strip(), _LONGEST_LINE) if lines else "no reason given"
