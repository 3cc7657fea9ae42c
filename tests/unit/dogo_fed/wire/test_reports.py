"""What a report may say: what a peer of this run can say, and nothing else."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogo_fed.contracts import PeerResult, RoundReport, StepReport
from dogo_fed.errors import Refused
from dogo_fed.plan import Plan
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.format import WireFormat
from dogo_fed.wire.reports import ReportRules
from tests.support.distributions import ADA

PLAN = Plan(total_steps=25, steps_per_round=10)
RULES = ReportRules(plan=PLAN, num_peers=3, message_bytes=1000)
STEP = StepReport(ADA, 2, 12, 2.5, 0.5, 2, 0.1, 0.2, 0.3, 1000, 0)
ROUND = RoundReport(ADA, 3, 25, 0.75, 1.5)
RESULT = PeerResult(ADA, "cnn(width=4)", "simclr", 9, 0.5, math.nan, 0.1, 2.0, 0.2, "d19e57", 25)
SENDER = pb.Sender(peer=ADA, incarnation="ada-1")


def read(steps=(), rounds=(), result=None):
    (request,) = codec.encode_reports(SENDER, steps, rounds, result)
    return RULES.read(pb.ReportRequest.FromString(request.SerializeToString()), ADA)


def test_what_a_peer_reports_is_read_as_it_was():
    untrained = RoundReport(ADA, 0, 0, 0.1, 0.0)
    last = dataclasses.replace(STEP, step=24, round=3, num_teachers=0, ssl_loss=-1.0)
    found = read([STEP, last], [untrained, ROUND], RESULT)
    assert found.steps == (STEP, last) and found.rounds == (untrained, ROUND)
    assert repr(found.result) == repr(RESULT)


def test_the_health_of_features_arrives_as_it_was():
    health = {"feature_std": 0.5, "rankme": 12.5, "alignment": 0.25, "uniformity": -1.5}
    unlabelled = dataclasses.replace(ROUND, knn_top1=math.nan, **health)
    result = dataclasses.replace(RESULT, **health, rankme_untrained=3.0)
    found = read([], [unlabelled], result)
    assert found.rounds == (unlabelled,) and repr(found.result) == repr(result)


@pytest.mark.parametrize("name", ["feature_std", "rankme", "alignment", "uniformity"])
def test_a_health_that_no_features_have_is_refused(name):
    with pytest.raises(Refused, match=f"{name}=inf"):
        read([], [dataclasses.replace(ROUND, **{name: math.inf})])
    with pytest.raises(Refused, match=f"{name}=-1e"):
        read([], [], dataclasses.replace(RESULT, **{name: -1e308}))


def test_a_peer_that_had_to_ask_often_for_an_answer_may_say_so():
    """Each time it has sent its distribution. Another peer's evaluation may take hours."""
    often = dataclasses.replace(STEP, bytes_up=60 * 1000)
    assert read([often]).steps == (often,)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"step": 25, "round": 3}, "step=25; in this run it is 0 to 24"),
        ({"step": 2**28}, f"step={2**28}"),
        ({"step": 2**64 - 1}, f"step={2**64 - 1}"),
        ({"round": 1}, "step 12 in round 1; it belongs to round 2"),
        ({"ssl_loss": math.inf}, "ssl_loss=inf"),
        ({"ssl_loss": -1e308}, "ssl_loss=-1e"),
        ({"mutual_kl": 1e308}, "mutual_kl=1e"),
        ({"num_teachers": 3}, "num_teachers=3; in this run it is 0 to 2"),
        ({"compute_s": 1e308}, "compute_s=1e"),
        ({"wait_s": 1e9}, "wait_s=1e"),
        ({"exchange_s": 1e9}, "exchange_s=1e"),
        ({"bytes_up": 1_000_001}, "bytes_up=1000001"),
        ({"bytes_down": 1001}, "bytes_down=1001"),
        ({"bytes_down": 2**64 - 1}, "bytes_down="),
    ],
)
def test_a_step_that_no_peer_of_this_run_could_do_is_refused_by_name(changes, said):
    with pytest.raises(Refused) as caught:
        read([STEP, dataclasses.replace(STEP, **changes)])
    assert said in str(caught.value) and "'ada'" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"round": 4}, "round=4; in this run it is 0 to 3"),
        ({"step": 26}, "round 3 at step 26; in this run that is 25 to 25"),
        ({"round": 1, "step": 9}, "round 1 at step 9; in this run that is 10 to 25"),
        ({"knn_top1": 1.01}, "knn_top1=1.01; an accuracy is 0 to 1"),
        ({"knn_top1": -math.inf}, "knn_top1=-inf"),
        ({"seconds": 1e308}, "seconds=1e"),
        ({"seconds": -1.0}, "seconds=-1; a duration is 0 to"),
    ],
)
def test_a_round_that_this_run_does_not_have_is_refused_by_name(changes, said):
    with pytest.raises(Refused) as caught:
        read(rounds=[dataclasses.replace(ROUND, **changes)])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parameters": 2**64 - 1}, "parameters="),
        ({"linear_top1": 7.0}, "linear_top1=7"),
        ({"knn_top1_untrained": -0.1}, "knn_top1_untrained=-0.1"),
        ({"ssl_loss": math.inf}, "ssl_loss=inf"),
        ({"state_digest": "not hex"}, "state_digest that is not hexadecimal"),
        ({"state_digest": "a" * 129}, "state_digest"),
        ({"steps_trained": 26}, "steps_trained=26; in this run it is 0 to 25"),
    ],
)
def test_a_result_that_nobody_can_reach_is_refused_by_name(changes, said):
    with pytest.raises(Refused) as caught:
        read(result=dataclasses.replace(RESULT, **changes))
    assert said in str(caught.value)


def test_an_evaluation_that_was_left_off_may_be_made_up_for_later():
    late = dataclasses.replace(ROUND, round=1, step=15)
    assert read(rounds=[late]).rounds == (late,)


def test_names_in_a_result_are_short_and_printable():
    named = dataclasses.replace(RESULT, backbone="\x1b[31m" + "x" * 10_000)
    found = read(result=named).result
    assert found is not None and found.backbone.startswith("\\x1b[31mxxx")
    assert len(found.backbone) == 200


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (pb.ReportRequest(steps=[pb.StepReport()] * 513), "513 steps in one message; 512"),
        (pb.ReportRequest(rounds=[pb.RoundReport()] * 17), "17 rounds in one message; 16"),
    ],
)
def test_a_message_with_too_many_reports_is_refused_unread(request_, said):
    with pytest.raises(Refused, match=said):
        RULES.read(request_, ADA)


@given(st.integers(0, 2000), st.integers(0, 40), st.booleans())
def test_however_many_reports_there_are_all_are_sent_once_in_messages_of_allowed_size(
    num_steps, num_rounds, has_result
):
    steps = [dataclasses.replace(STEP, step=number) for number in range(num_steps)]
    rounds = [dataclasses.replace(ROUND, round=number) for number in range(num_rounds)]
    requests = codec.encode_reports(SENDER, steps, rounds, RESULT if has_result else None)
    assert [one.step for request in requests for one in request.steps] == list(range(num_steps))
    assert [one.round for request in requests for one in request.rounds] == list(range(num_rounds))
    assert [request.HasField("result") for request in requests].count(True) == has_result
    for request in requests:
        assert request.sender == SENDER
        assert len(request.steps) <= codec.MOST_STEPS and len(request.rounds) <= codec.MOST_ROUNDS
        assert request.ByteSize() < WireFormat(1).limit_bytes
