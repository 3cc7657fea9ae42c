"""Every encoding: it has a row, a code of its own, and gives back distributions within its tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogo_fed.config import Encoding
from dogo_fed.exchange.in_process import InProcessExchange
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.encodings import ENCODINGS
from dogo_fed.wire.format import WireFormat
from dogo_fed.wire.validation import check_distribution
from tests.support.distributions import (
    ADA,
    AGREEMENT,
    BOB,
    CAT,
    SIZE,
    Meeting,
    both_ways,
    distribution,
    ticket,
)

ALL = pytest.mark.parametrize("encoding", Encoding)


def test_every_member_of_the_enum_has_an_encoding_and_every_code_of_the_wire_one_member():
    assert set(ENCODINGS) == set(Encoding)
    codes = [one.code for one in ENCODINGS.values()]
    assert sorted(codes) == sorted(set(pb.DType.values()) - {pb.DTYPE_UNSPECIFIED})


@ALL
@given(seed=st.integers(0, 2**32 - 1), size=st.integers(1, 20))
def test_what_is_decoded_is_a_distribution_of_the_length_that_was_said(encoding, seed, size):
    matrix, sent = ENCODINGS[encoding], distribution(seed, size)
    rows = matrix.encode(sent.p_NN)
    assert len(rows) == matrix.num_bytes(size)
    p_NN = matrix.decode(rows, size)
    assert p_NN.shape == (size, size) and p_NN.dtype == np.float32
    check_distribution(
        type(sent)(p_NN, sent.negative_entropy), row_sum_tolerance=matrix.row_sum_tolerance
    )
    assert not matrix.is_exact or p_NN.tobytes() == sent.p_NN.tobytes()


@ALL
@pytest.mark.parametrize("make", [distribution, both_ways])
def test_one_process_hands_over_what_a_message_would_deliver(encoding, make):
    sent = make(3)
    wire = WireFormat(len(sent.p_NN), sent.reverse is not None, encoding)
    carried = wire.as_carried(sent)
    received = wire.decode(wire.encode(sent))
    assert carried.p_NN.tobytes() == received.p_NN.tobytes()
    if sent.reverse is not None:
        reverse = wire.decode(wire.encode(sent.reverse))
        assert carried.reverse.p_NN.tobytes() == reverse.p_NN.tobytes()


class Coarse:
    """An encoding that rounds: a byte a number. What a run in one process must not pass over."""

    code = 77
    is_exact = False
    row_sum_tolerance = 0.1

    def num_bytes(self, size):
        return size * size

    def encode(self, p_NN):
        return np.round(p_NN * 255).astype(np.uint8).tobytes()

    def decode(self, rows, size):
        p_NN = np.frombuffer(rows, np.uint8).reshape(size, size).astype(np.float32) / 255
        return p_NN


@pytest.mark.parametrize("make", [distribution, both_ways])
def test_an_encoding_that_rounds_rounds_in_one_process_too_there_and_back(make, monkeypatch):
    monkeypatch.setattr("dogo_fed.wire.format.ENCODINGS", {Encoding.FLOAT32: Coarse()})
    given = {peer: make(number) for number, peer in enumerate((ADA, BOB, CAT))}
    wire = WireFormat(SIZE, make is both_ways)
    meeting = Meeting()
    ends = {
        peer: InProcessExchange(meeting.coordinator, peer, f"{peer}-1", wire, lambda: 0.0)
        for peer in given
    }
    for end in ends.values():
        end.join(AGREEMENT)
    for peer, end in ends.items():
        end.publish(ticket(0), given[peer])
    sent = [wire.decode(wire.encode(given[peer])) for peer in (BOB, CAT)]
    mean = sent[0].p_NN + sent[1].p_NN
    mean *= np.float32(0.5)
    entropy = (given[BOB].negative_entropy + given[CAT].negative_entropy) / 2
    received = wire.decode(wire.encode(type(sent[0])(mean, entropy)))
    signal = ends[ADA].collect(ticket(0))
    assert signal.mean_NN.tobytes() == received.p_NN.tobytes() != mean.tobytes()
    assert (signal.reverse is None) == (make is distribution)
    if signal.reverse is not None:
        steps = signal.reverse.p_NN * 255
        assert np.allclose(steps, np.round(steps), atol=1e-4)


@ALL
@pytest.mark.parametrize("is_symmetric", [False, True])
def test_the_payload_is_what_the_matrices_take(encoding, is_symmetric):
    sent = both_ways(0) if is_symmetric else distribution(0)
    wire = WireFormat(len(sent.p_NN), is_symmetric, encoding)
    request = wire.encode_published(pb.Sender(), ticket(0), sent)
    taken = len(request.distribution.rows) + len(request.reverse.rows)
    assert wire.payload_bytes == taken < wire.limit_bytes
