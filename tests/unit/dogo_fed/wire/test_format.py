"""Messages with matrices: the bytes of their parts, and no copy that protobuf does not ask for."""

from __future__ import annotations

import dataclasses

import pytest

from dogo_fed.contracts import TeacherSignal
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat
from tests.support.distributions import ADA, BOB, SIZE, both_ways, distribution, ticket

SENDER = pb.Sender(peer=ADA, incarnation="ada-1")
BOTH = pytest.mark.parametrize("make", [distribution, both_ways])


def signal_of(given):
    return TeacherSignal(
        mean_NN=given.p_NN,
        negative_entropy=given.negative_entropy,
        teachers=(BOB,),
        next_step=4,
        stop=True,
        waited_s=0.5,
        reverse=given.reverse,
    )


@BOTH
def test_a_message_has_the_bytes_of_its_parts(make):
    given = make(3)
    wire = WireFormat(SIZE, given.reverse is not None)
    parts = [wire.encode(given)]
    if given.reverse is not None:
        parts.append(wire.encode(given.reverse))
    request = pb.ExchangeRequest(
        sender=SENDER,
        ticket=codec.encode_ticket(ticket(3)),
        **dict(zip(("distribution", "reverse"), parts, strict=False)),
    )
    made = wire.encode_published(SENDER, ticket(3), given)
    assert made.SerializeToString() == request.SerializeToString()
    reply = pb.ExchangeReply(
        teachers=[BOB],
        next_step=4,
        stop=True,
        waited_s=0.5,
        **dict(zip(("mean", "reverse_mean"), parts, strict=False)),
    )
    assert wire.encode_signal(signal_of(given)).SerializeToString() == reply.SerializeToString()


@BOTH
def test_a_matrix_is_written_into_its_message_and_not_into_one_that_is_copied(make, monkeypatch):
    given = make(3)
    wire = WireFormat(SIZE, given.reverse is not None)
    monkeypatch.setattr(pb, "Distribution", None)  # so that none can be made
    assert wire.encode_published(SENDER, ticket(3), given).distribution.size == SIZE
    assert wire.encode_signal(signal_of(given)).mean.size == SIZE


class Counting:
    """A message that counts how often its bytes are read: each time they are copied."""

    def __init__(self, message):
        self._message = message
        self.num_read = 0

    @property
    def rows(self):
        self.num_read += 1
        return self._message.rows

    def __getattr__(self, name):
        return getattr(self._message, name)


def test_the_bytes_of_a_message_are_read_once():
    sent = distribution(0)
    message = Counting(WireFormat(SIZE).encode(sent))
    received = WireFormat(SIZE).decode(message)
    assert message.num_read == 1
    assert dataclasses.replace(received, p_NN=None) == dataclasses.replace(sent, p_NN=None)
    assert received.p_NN.tobytes() == sent.p_NN.tobytes()
