"""What our Flower messages hold, by key, and the ClientApp's two ends of them.

The ServerApp's two ends are in `server.flower.envelope`.
"""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict

from dogo_fed.wire import dogo_pb2 as pb

RECORD = "dogo"
"""The record of a message to a peer's host, and of its reply."""

REQUEST = "request"
"""An encoded `HostRequest`."""

LEASE_S = "lease-s"
"""Seconds without a message after which a simulated peer's process may end."""

REPLY = "reply"
"""An encoded `HostReply`."""

ABOUT = "about"
"""The record of the answer to a hello."""

PEER = "peer"
"""The peer that a node is for, in the node's configuration too; empty if it names none."""

IS_SITE = "is-site"
"""Whether the node has a site's own peer process behind it."""

PARTITION_ID = "partition-id"
"""Flower's number of a simulated node, in the node's configuration too."""

NUM_PARTITIONS = "num-partitions"
"""How many nodes Flower simulates, in the node's configuration too."""


def request_in(message: Message) -> tuple[bytes, float]:
    """Returns the encoded `HostRequest` in a message, and the seconds of the lease."""
    told = message.content.config_records[RECORD]
    body, lease_s = told[REQUEST], told[LEASE_S]
    assert isinstance(body, bytes), "the ServerApp sends bytes"
    assert isinstance(lease_s, float), "the ServerApp sends seconds"
    return body, lease_s


def answer_to(message: Message, reply: pb.HostReply) -> Message:
    """Returns the message that brings back the reply of a peer's host."""
    content = RecordDict(
        {
            RECORD: ConfigRecord({REPLY: reply.SerializeToString()}),
            "metrics": MetricRecord({"next-step": reply.next_step}),
        }
    )
    return Message(content, reply_to=message)
