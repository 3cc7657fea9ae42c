"""Every encoding: it has a row, a code of its own, and gives back distributions within its tolerance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogo_fed.config import Encoding
from dogo_fed.errors import MalformedDistribution
from dogo_fed.exchange.in_process import InProcessExchange
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.encodings.catalog import ENCODINGS
from dogo_fed.wire.encodings.log8 import DEPTH
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


# ---- how far a decoded number may be from the one that was encoded ----

SHARP = st.floats(0.5, 60.0)


def softmaxed(seed: int, size: int, sharpness: float):
    """Rows as peers show them: softmaxed cosines; the sharper, the smaller their smallest numbers."""
    draws = np.random.default_rng(seed)
    scores_NN = sharpness * draws.uniform(-1, 1, (size, size))
    exact_NN = np.exp(scores_NN - scores_NN.max(axis=1, keepdims=True))
    return (exact_NN / exact_NN.sum(axis=1, keepdims=True)).astype(np.float32)


def carried(encoding: Encoding, p_NN, top_k: int = 16):
    return (
        WireFormat(len(p_NN), encoding=encoding, top_k=top_k)
        .as_carried(distribution(0, len(p_NN)).__class__(p_NN, -0.1))
        .p_NN
    )


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 40), sharpness=SHARP)
def test_float16_keeps_eleven_bits(seed, size, sharpness):
    p_NN = softmaxed(seed, size, sharpness)
    error_NN = np.abs(carried(Encoding.FLOAT16, p_NN).astype(np.float64) - p_NN)
    assert (error_NN <= np.maximum(p_NN * 2.0**-11, 2.0**-25)).all()


@given(seed=st.integers(0, 2**32 - 1), size=st.integers(2, 40), sharpness=SHARP)
def test_log8_keeps_a_logarithm_to_a_level(seed, size, sharpness):
    p_NN = softmaxed(seed, size, sharpness)
    found_NN = carried(Encoding.LOG8, p_NN)
    with np.errstate(divide="ignore"):
        log_NN, found_log_NN = np.log(p_NN.astype(np.float64)), np.log(found_NN.astype(np.float64))
    high_N1 = log_NN.max(axis=1, keepdims=True)
    is_deep_NN = log_NN < high_N1 - DEPTH
    span_N1 = np.minimum(high_N1 - log_NN.min(axis=1, keepdims=True), DEPTH)
    error_NN = np.abs(found_log_NN - log_NN)
    assert (is_deep_NN | (error_NN <= span_N1 / 255 + 1e-5)).all()
    deepest_N1 = p_NN.max(axis=1, keepdims=True) * np.exp(-DEPTH) * 1.2
    assert (~is_deep_NN | (found_NN <= deepest_N1 + 1e-37)).all()


@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(2, 40),
    sharpness=SHARP,
    top_k=st.integers(1, 50),
)
def test_top_k_keeps_the_largest_and_the_sum_of_the_rest(seed, size, sharpness, top_k):
    p_NN = softmaxed(seed, size, sharpness)
    found_NN = carried(Encoding.TOP_K, p_NN, top_k)
    k = min(top_k, size)
    threshold_N1 = -np.sort(-p_NN, axis=1)[:, k - 1 : k]
    is_kept_NN = found_NN == p_NN
    assert (is_kept_NN | (p_NN <= threshold_N1)).all() and (is_kept_NN.sum(axis=1) >= k).all()
    error_NN = np.abs(found_NN.astype(np.float64) - p_NN)
    assert (error_NN <= threshold_N1 + 1e-6).all()
    rest_N = 1.0 - (-np.sort(-p_NN, axis=1)[:, :k]).sum(axis=1, dtype=np.float64)
    assert (error_NN.sum(axis=1) <= 2 * np.maximum(rest_N, 0) + 1e-5).all()


@pytest.mark.parametrize("encoding", [Encoding.FLOAT16, Encoding.LOG8, Encoding.TOP_K])
def test_what_was_carried_once_is_carried_again_nearly_unchanged(encoding):
    """A coordinator that has one contribution passes on what it has received, encoded again."""
    once_NN = carried(encoding, softmaxed(5, 32, 10.0))
    twice_NN = carried(encoding, once_NN)
    assert np.allclose(once_NN, twice_NN, rtol=1e-3, atol=1e-9)


@pytest.mark.parametrize("encoding", [Encoding.FLOAT16, Encoding.LOG8, Encoding.TOP_K])
def test_rows_of_zeros_and_one_are_carried(encoding):
    one_NN = np.eye(24, dtype=np.float32)
    assert np.allclose(carried(encoding, one_NN), one_NN, atol=1e-9)


def test_columns_that_a_stranger_made_up_are_refused():
    wire = WireFormat(4, encoding=Encoding.TOP_K, top_k=2)
    good = wire.encode(distribution(0, 4))
    columns = np.frombuffer(good.rows[:16], "<u2").copy()
    for wrong in (4, columns[1]):
        columns[0] = wrong
        good.rows = columns.tobytes() + good.rows[16:]
        with pytest.raises(MalformedDistribution, match="columns of a row"):
            wire.decode(good)


@ALL
@given(noise=st.binary(min_size=4000, max_size=4000))
def test_noise_is_refused_or_a_distribution(encoding, noise):
    wire = WireFormat(12, encoding=encoding, top_k=5)
    message = wire.encode(distribution(0, 12))
    message.rows = noise[: len(message.rows)]
    try:
        found = wire.decode(message)
    except MalformedDistribution:
        return
    assert np.isfinite(found.p_NN).all() and (found.p_NN >= 0).all()
