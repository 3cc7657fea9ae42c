"""The only encoder and decoder: exact both ways, and unimpressed by whatever arrives."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dogo_fed import errors
from dogo_fed.contracts import (
    PeerId,
    PeerResult,
    RoundReport,
    SimilarityDistribution,
    StepReport,
    TeacherSignal,
    Ticket,
)
from dogo_fed.errors import DogoError, MalformedDistribution, Refused
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat
from tests.support.distributions import (
    ADA,
    AGREEMENT,
    BOB,
    CAT,
    SIZE,
    WIRE,
    both_ways,
    distribution,
    ticket,
)

BOTH = WireFormat(SIZE, is_symmetric=True)
ANY_FLOAT = st.floats(allow_nan=False)
SMALL, LARGE = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
NAME = st.text(max_size=20)


def over_the_wire(message):
    """Returns a message of the same type, from the bytes of this one."""
    return type(message).FromString(message.SerializeToString())


# ---- round trips ----


@given(st.integers(0, 2**32 - 1), st.integers(1, 20))
def test_a_distribution_arrives_bit_for_bit(seed, size):
    sent = distribution(seed, size)
    wire = WireFormat(size)
    received = wire.decode(over_the_wire(wire.encode(sent)))
    assert received.p_NN.tobytes() == sent.p_NN.tobytes()
    assert received.p_NN.dtype == np.float32 and received.p_NN.shape == (size, size)
    assert received.negative_entropy == sent.negative_entropy


@pytest.mark.parametrize("view", [np.asfortranarray, lambda p: p.repeat(2, 1)[:, ::2]])
def test_the_memory_order_does_not_matter(view):
    sent = distribution(1)
    message = WIRE.encode(dataclasses.replace(sent, p_NN=view(sent.p_NN)))
    assert message.rows == sent.p_NN.tobytes()


def test_rows_travel_as_little_endian_float32():
    message = WIRE.encode(SimilarityDistribution(np.ones((1, 1), np.float32), 0.0))
    assert (message.dtype, message.size, message.rows) == (pb.FLOAT32, 1, b"\x00\x00\x80\x3f")


def test_what_was_decoded_can_not_be_changed_by_accident():
    received = WIRE.decode(WIRE.encode(distribution(0)))
    with pytest.raises(ValueError, match="read-only"):
        received.p_NN[0, 0] = 1.0


@given(st.builds(Ticket, run_id=NAME, round=SMALL, step=LARGE, batch_digest=NAME))
def test_a_ticket_arrives_as_it_was(sent):
    assert codec.decode_ticket(over_the_wire(codec.encode_ticket(sent))) == sent


@given(
    st.builds(
        StepReport,
        peer=st.just(ADA),
        round=SMALL,
        step=LARGE,
        ssl_loss=ANY_FLOAT,
        mutual_kl=ANY_FLOAT,
        num_teachers=SMALL,
        compute_s=st.floats(0, 1e9),
        wait_s=st.floats(0, 1e9),
        exchange_s=st.floats(0, 1e9),
        bytes_up=LARGE,
        bytes_down=LARGE,
    )
)
def test_a_step_report_arrives_as_it_was(sent):
    message = over_the_wire(codec.encode_report(sent))
    assert codec.decode_report(StepReport, message, ADA) == sent


@given(
    st.builds(
        RoundReport,
        peer=st.just(ADA),
        round=SMALL,
        step=LARGE,
        knn_top1=ANY_FLOAT,
        seconds=st.floats(0, 1e9),
    )
)
def test_a_round_report_arrives_as_it_was(sent):
    message = over_the_wire(codec.encode_report(sent))
    assert codec.decode_report(RoundReport, message, ADA) == sent


RESULT = PeerResult(
    peer=ADA,
    backbone="resnet18(width=8)",
    objective="simclr",
    parameters=123_456,
    knn_top1=0.1,
    linear_top1=0.2,
    knn_top1_untrained=0.3,
    ssl_loss=4.5,
    mutual_kl=0.6,
    state_digest="d19e57",
    steps_trained=7,
)


def test_a_result_arrives_as_it_was():
    assert (
        codec.decode_report(PeerResult, over_the_wire(codec.encode_report(RESULT)), ADA) == RESULT
    )


def test_a_report_speaks_only_for_its_sender():
    assert codec.decode_report(PeerResult, codec.encode_report(RESULT), BOB).peer == BOB


def test_a_loss_that_is_not_a_number_arrives_as_such_and_times_can_not():
    message = pb.StepReport(ssl_loss=math.nan, compute_s=math.nan, wait_s=-1, exchange_s=math.inf)
    report = codec.decode_report(StepReport, over_the_wire(message), ADA)
    assert math.isnan(report.ssl_loss)
    assert (report.compute_s, report.wait_s, report.exchange_s) == (0.0, 0.0, 0.0)


def signal(**changes):
    given_out = distribution(3)
    made = TeacherSignal(
        mean_NN=given_out.p_NN,
        negative_entropy=given_out.negative_entropy,
        teachers=(BOB, CAT),
        next_step=8,
        stop=True,
        waited_s=1.25,
    )
    return dataclasses.replace(made, **changes)


def test_a_signal_arrives_bit_for_bit():
    sent = signal()
    received = WIRE.decode_signal(over_the_wire(WIRE.encode_signal(sent)))
    assert received.mean_NN.tobytes() == sent.mean_NN.tobytes()
    assert dataclasses.replace(received, mean_NN=None) == dataclasses.replace(sent, mean_NN=None)


def test_a_signal_of_both_directions_arrives_bit_for_bit():
    sent = signal(reverse=distribution(4))
    received = BOTH.decode_signal(over_the_wire(WIRE.encode_signal(sent)))
    assert received.mean_NN.tobytes() == sent.mean_NN.tobytes()
    assert received.reverse.p_NN.tobytes() == sent.reverse.p_NN.tobytes()
    assert received.reverse.negative_entropy == sent.reverse.negative_entropy
    assert received.negative_entropy == sent.negative_entropy != sent.reverse.negative_entropy


@pytest.mark.parametrize("is_symmetric", [False, True])
def test_a_signal_without_teachers_arrives_without_a_mean(is_symmetric):
    sent = signal(mean_NN=None, negative_entropy=0.0, teachers=())
    message = over_the_wire(WIRE.encode_signal(sent))
    assert not message.HasField("mean") and not message.HasField("reverse_mean")
    assert WireFormat(SIZE, is_symmetric).decode_signal(message) == sent


@pytest.mark.parametrize("make", [distribution, both_ways])
def test_what_is_published_arrives_with_as_many_directions_as_it_had(make):
    sent = make(7)
    request = over_the_wire(WIRE.encode_published(SENDER, ticket(3), sent))
    assert request.HasField("reverse") == (sent.reverse is not None)
    received = WireFormat(SIZE, sent.reverse is not None).decode_published(request)
    assert received.p_NN.tobytes() == sent.p_NN.tobytes()
    if sent.reverse is None:
        assert received.reverse is None
    else:
        assert received.reverse.p_NN.tobytes() == sent.reverse.p_NN.tobytes()
        assert received.reverse.negative_entropy == sent.reverse.negative_entropy


@pytest.mark.parametrize("error_type", codec.REFUSALS)
@pytest.mark.parametrize("reply_type", [pb.JoinReply, pb.ExchangeReply, pb.ReportReply])
def test_a_refusal_arrives_as_the_error_it_was(error_type, reply_type):
    sent = reply_type(refusal=codec.encode_refusal(error_type("seed is 1 here, 2 there")))
    with pytest.raises(error_type) as caught:
        codec.raise_refusal(over_the_wire(sent))
    assert type(caught.value) is error_type
    assert str(caught.value) == "seed is 1 here, 2 there"


def test_every_kind_of_refusal_has_a_code_and_every_code_a_kind():
    refused = {Refused, *Refused.__subclasses__(), MalformedDistribution}
    assert set(codec.REFUSALS) == refused
    codes = {codec.encode_refusal(error("no")).code for error in codec.REFUSALS}
    assert codes == set(pb.Code.values()) - {pb.CODE_UNSPECIFIED}


def test_a_code_from_the_future_is_still_a_refusal():
    with pytest.raises(Refused, match="new reasons"):
        codec.raise_refusal(pb.JoinReply(refusal=pb.Refusal(code=77, message="new reasons")))


def test_a_reply_without_refusal_raises_nothing():
    for reply in (pb.JoinReply(), pb.ExchangeReply(), pb.ReportReply(), pb.LeaveReply()):
        codec.raise_refusal(reply)


# ---- malformed ----

GOOD = WIRE.encode(distribution(0))


def rows_with(value):
    p_NN = distribution(0).p_NN.copy()
    p_NN[2, 1] = value
    return p_NN.tobytes()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dtype": pb.DTYPE_UNSPECIFIED}, "dtype code 0; this run exchanges float32"),
        ({"dtype": 9}, "dtype code 9"),
        ({"size": SIZE + 1}, f"over {SIZE + 1} images; the batch size is {SIZE}"),
        ({"size": 0}, f"over 0 images; the batch size is {SIZE}"),
        ({"size": 2**32 - 1}, f"over {2**32 - 1} images"),
        ({"rows": GOOD.rows[:-1]}, f"has {4 * SIZE**2 - 1} bytes instead of {4 * SIZE**2}"),
        ({"rows": GOOD.rows + b"\0"}, f"has {4 * SIZE**2 + 1} bytes instead of"),
        ({"rows": b""}, "has 0 bytes instead of"),
        ({"rows": rows_with(math.nan)}, "row 2 has entries that are negative or not finite"),
        ({"rows": rows_with(math.inf)}, "row 2 has entries that are negative or not finite"),
        ({"rows": rows_with(-0.25)}, "row 2 has entries that are negative or not finite"),
        ({"rows": rows_with(0.9)}, "row 2 sums to"),
        ({"rows": bytes(4 * SIZE**2)}, "row 0 sums to 0"),
        ({"negative_entropy": 0.5}, "negative entropy is 0.5"),
        ({"negative_entropy": -9.0}, "negative entropy is -9"),
        ({"negative_entropy": math.nan}, "negative entropy is nan"),
    ],
)
def test_every_malformed_distribution_is_refused_by_name(changes, said):
    message = pb.Distribution()
    message.CopyFrom(GOOD)
    for key, value in changes.items():
        setattr(message, key, value)
    with pytest.raises(MalformedDistribution) as caught:
        WIRE.decode(over_the_wire(message))
    assert said in str(caught.value)


def test_the_empty_message_is_no_distribution():
    with pytest.raises(MalformedDistribution, match="dtype code 0"):
        WIRE.decode(pb.Distribution())


def test_a_mean_without_teachers_is_refused():
    message = WIRE.encode_signal(signal())
    del message.teachers[:]
    with pytest.raises(MalformedDistribution, match="names 0 teachers but has a mean"):
        WIRE.decode_signal(message)


def test_teachers_without_a_mean_are_refused():
    message = WIRE.encode_signal(signal())
    message.ClearField("mean")
    with pytest.raises(MalformedDistribution, match="names 2 teachers but has no mean"):
        WIRE.decode_signal(message)


def test_the_mean_in_a_signal_is_checked_like_any_distribution():
    message = WIRE.encode_signal(signal())
    message.mean.rows = rows_with(math.nan)
    with pytest.raises(MalformedDistribution, match="row 2"):
        WIRE.decode_signal(message)


@pytest.mark.parametrize(
    ("reverse", "is_symmetric", "said"),
    [
        (
            None,
            True,
            "has no mean of the reverse direction; this run exchanges both view directions",
        ),
        (distribution(4), False, "has a mean of the reverse direction; this run exchanges one"),
    ],
)
def test_another_number_of_directions_than_agreed_is_refused(reverse, is_symmetric, said):
    message = over_the_wire(WIRE.encode_signal(signal(reverse=reverse)))
    with pytest.raises(MalformedDistribution, match=said):
        WireFormat(SIZE, is_symmetric).decode_signal(message)


def test_a_reverse_mean_without_teachers_is_refused():
    message = WIRE.encode_signal(signal(mean_NN=None, teachers=(), reverse=distribution(4)))
    with pytest.raises(MalformedDistribution, match="has a mean of the reverse direction"):
        BOTH.decode_signal(message)


def test_the_reverse_is_checked_like_the_first_direction_on_both_ways():
    request = WIRE.encode_published(SENDER, ticket(0), both_ways(0))
    request.reverse.rows = rows_with(math.nan)
    with pytest.raises(MalformedDistribution, match="in the reverse direction, row 2"):
        BOTH.decode_published(request)
    request.reverse.CopyFrom(WIRE.encode(distribution(0, SIZE + 1)))
    with pytest.raises(MalformedDistribution, match=f"in the reverse direction.*{SIZE + 1} images"):
        BOTH.decode_published(request)
    reply = WIRE.encode_signal(signal(reverse=distribution(4)))
    reply.reverse_mean.negative_entropy = 3.0
    with pytest.raises(MalformedDistribution, match="in the reverse direction, the negative"):
        BOTH.decode_signal(reply)


def test_an_empty_reverse_is_no_distribution_and_not_none():
    request = WIRE.encode_published(SENDER, ticket(0), distribution(0))
    request.reverse.SetInParent()
    with pytest.raises(MalformedDistribution, match=r"in the reverse direction.*dtype code 0"):
        BOTH.decode_published(over_the_wire(request))


# ---- whatever arrives ----


def decode(message):
    """Runs every decoder that the two sides would run on this message."""
    if isinstance(message, pb.ExchangeRequest):
        codec.decode_ticket(message.ticket)
        WireFormat(SIZE, message.HasField("reverse")).decode_published(message)
    elif isinstance(message, pb.ExchangeReply):
        codec.raise_refusal(message)
        WireFormat(SIZE, message.HasField("reverse_mean")).decode_signal(message)
    elif isinstance(message, pb.ReportRequest):
        for step in message.steps:
            codec.decode_report(StepReport, step, ADA)
        for one in message.rounds:
            codec.decode_report(RoundReport, one, ADA)
        codec.decode_report(PeerResult, message.result, ADA)
    elif isinstance(message, pb.JoinRequest):
        dict(message.agreement)
    elif not isinstance(message, pb.LeaveRequest):
        codec.raise_refusal(message)


SENDER = pb.Sender(peer="ada", incarnation="ada-1")
VALID = (
    pb.JoinRequest(sender=SENDER, run_id="run-1", agreement=AGREEMENT),
    pb.JoinReply(refusal=pb.Refusal(code=pb.REFUSED, message="no"), next_step=3),
    pb.ExchangeRequest(sender=SENDER, ticket=codec.encode_ticket(ticket(3)), distribution=GOOD),
    WIRE.encode_published(SENDER, ticket(3), both_ways(0)),
    WIRE.encode_signal(signal()),
    WIRE.encode_signal(signal(reverse=distribution(4))),
    pb.ReportRequest(
        sender=SENDER,
        steps=[pb.StepReport(step=1, ssl_loss=2.0), pb.StepReport(step=2)],
        rounds=[pb.RoundReport(round=1, knn_top1=0.5)],
        result=codec.encode_report(RESULT),
    ),
    pb.ReportReply(stop=True),
    pb.LeaveRequest(sender=SENDER),
    pb.LeaveReply(refusal=pb.Refusal(code=pb.STALE_TICKET)),
)
BY_TYPE = pytest.mark.parametrize("valid", VALID, ids=lambda message: type(message).__name__)


def parse_and_decode(message_type, data):
    with contextlib.suppress(DogoError, DecodeError):
        decode(message_type.FromString(data))


def test_the_examples_cover_every_message_of_every_call():
    service = pb.DESCRIPTOR.services_by_name["Coordination"]
    spoken = {kind for call in service.methods for kind in (call.input_type, call.output_type)}
    assert {message.DESCRIPTOR for message in VALID} == spoken


@BY_TYPE
@given(data=st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_our_errors(valid, data):
    parse_and_decode(type(valid), data)


@BY_TYPE
@hypothesis_settings(max_examples=200)
@given(data=st.data())
def test_a_mutated_message_raises_nothing_but_our_errors(valid, data):
    content = bytearray(valid.SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content)))
        removed = data.draw(st.integers(0, 4))
        content[position : position + removed] = data.draw(st.binary(max_size=6))
    parse_and_decode(type(valid), bytes(content))


@given(st.binary(min_size=4 * SIZE**2, max_size=4 * SIZE**2), ANY_FLOAT)
def test_random_numbers_are_refused_or_are_a_distribution(rows, entropy):
    message = pb.Distribution(dtype=pb.FLOAT32, size=SIZE, rows=rows, negative_entropy=entropy)
    with pytest.raises(MalformedDistribution):
        WIRE.decode(message)


# ---- sizes ----


def largest_request(size):
    """Returns an exchange with the longest names there may be."""
    p_NN = np.full((size, size), 1 / size, np.float32)
    return pb.ExchangeRequest(
        sender=pb.Sender(peer="p" * 64, incarnation="f" * 32),
        ticket=pb.Ticket(run_id="r" * 255, round=2**32 - 1, step=2**64 - 1, batch_digest="d" * 64),
        distribution=WIRE.encode(SimilarityDistribution(p_NN, -math.log(size))),
    )


@pytest.mark.parametrize("size", [1, 2, 256, 2048])
def test_the_limit_suffices_for_one_matrix_with_all_its_names(size):
    assert largest_request(size).ByteSize() <= WireFormat(size).limit_bytes
    peers = tuple(PeerId(f"{number:064d}") for number in range(256))
    reply = pb.ExchangeReply(
        mean=largest_request(size).distribution, teachers=peers, next_step=2**64 - 1, waited_s=1.0
    )
    assert reply.ByteSize() <= WireFormat(size).limit_bytes


@pytest.mark.parametrize("size", [1, 256, 2048])
def test_with_both_directions_the_limit_suffices_for_two_matrices(size):
    request = largest_request(size)
    request.reverse.CopyFrom(request.distribution)
    assert request.ByteSize() <= WireFormat(size, True).limit_bytes


def test_the_limit_leaves_no_room_for_a_matrix_more_than_agreed():
    for size in (256, 2048):
        assert WireFormat(size).limit_bytes < 2 * 4 * size**2
        assert WireFormat(size, True).limit_bytes < 3 * 4 * size**2


def test_the_error_tree_is_drawn_as_it_is():
    """Whoever catches `ExchangeError` catches all that an exchange may raise."""
    for error in (*codec.REFUSALS, errors.ExchangeTimeout, errors.CoordinatorLost):
        assert issubclass(error, errors.ExchangeError)
