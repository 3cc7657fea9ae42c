"""A peer of the run that does not play by the rules: the others go on, and little is written."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from dogo_fed.contracts import PeerResult, RoundReport, StepReport
from dogo_fed.errors import Refused, SchemaMismatch
from dogo_fed.wire import dogo_pb2 as pb
from tests.support.distributions import ADA, AGREEMENT, BOB, distribution, joined, swap, ticket

STEP = StepReport(BOB, 1, 1, 2.5, 0.5, 1, 0.1, 0.2, 0.3, 100, 200)
ROUND = RoundReport(BOB, 1, 500_000, 0.75, 1.5)
RESULT = PeerResult(BOB, "cnn", "simclr", 9, 0.5, 0.6, 0.1, 2.0, 0.2, "d19e57", 20)


def assert_goes_on(ends, step=0):
    signals = swap(ends, step)
    assert [one.teachers for one in signals] == [(BOB,), (ADA,)]


def say(client, method, request, timeout_s=20.0):
    return getattr(client._stub, method)(request, timeout=timeout_s, metadata=client._metadata)


@pytest.mark.parametrize(
    "reports",
    [
        ([dataclasses.replace(STEP, step=2**28)], [], None),
        ([dataclasses.replace(STEP, step=2**64 - 1)], [], None),
        ([STEP, dataclasses.replace(STEP, step=2, exchange_s=1e308)], [], None),
        ([dataclasses.replace(STEP, ssl_loss=math.inf)], [], None),
        ([], [dataclasses.replace(ROUND, round=2**32 - 1)], None),
        ([], [], dataclasses.replace(RESULT, steps_trained=2**63)),
    ],
)
def test_a_report_that_no_run_of_this_plan_has_is_refused_and_nothing_of_it_is_taken(site, reports):
    ends = joined(site, ADA, BOB)
    with pytest.raises(Refused, match="peer 'bob' reports"):
        ends[1].report(*reports)
    assert site.sink.records == []
    assert_goes_on(ends)


def test_a_message_with_12500_rounds_is_refused_at_once(site):
    ends = joined(site, ADA, BOB)
    request = pb.ReportRequest(
        sender=ends[1]._sender, rounds=[pb.RoundReport(round=n) for n in range(12_500)]
    )
    assert request.ByteSize() < site.wire.limit_bytes
    started_s = time.monotonic()
    reply = say(ends[1], "Report", request)
    assert "12500 rounds in one message; 16" in reply.refusal.message
    assert time.monotonic() - started_s < 5.0 and site.sink.records == []
    assert_goes_on(ends)


def test_a_peer_that_reports_more_than_the_run_has_is_not_written_any_more(make_site):
    site = make_site(total_steps=20)
    ends = joined(site, ADA, BOB)
    taken = 0
    with pytest.raises(Refused, match="10 times as much as the run has"):
        for _ in range(1000):
            (again,) = [site.client(BOB)]
            again.join(AGREEMENT)
            again.report([dataclasses.replace(STEP, step=step) for step in range(20)], [], None)
            taken += 20
    assert taken <= 10 * (20 + 1 + 2)
    again.join(AGREEMENT)
    assert_goes_on([ends[0], again])


def test_reports_in_a_hurry_are_answered_later_and_hold_nobody_up(make_site):
    site = make_site(real_clock=True)
    ends = joined(site, ADA, BOB)
    steps = [dataclasses.replace(STEP, step=step) for step in range(4096 + 1024)]
    with ThreadPoolExecutor(1) as pool:
        started_s = time.monotonic()
        flood = pool.submit(ends[1].report, steps, [], None)
        ends[0].report([], [], None)
        assert time.monotonic() - started_s < 5.0
        assert flood.result(30) is False
    assert time.monotonic() - started_s > 0.5, "1000 a second, beyond the first 4096"
    assert len(site.sink.records) == len(steps), "late, and complete"


def test_coming_and_going_writes_few_events(site):
    ends = joined(site, ADA, BOB)
    stub, sender = ends[1]._stub, pb.Sender(peer=BOB)
    for number in range(2000):
        sender.incarnation = f"bob-{number}"
        request = pb.JoinRequest(sender=sender, run_id="run-1", agreement=AGREEMENT)
        assert not stub.Join(request, timeout=5, metadata=ends[1]._metadata).HasField("refusal")
    assert 50 < len(site.sink.events("peer_rejoined")) <= 100
    site.clock.now_s += 60.0
    ends[1].join(AGREEMENT)
    assert "events about it before this one are left out" in site.sink.events()[-1].message
    assert_goes_on(ends)


def test_wrong_joins_are_a_few_short_lines_in_the_log(site, caplog):
    ends = joined(site, ADA, BOB)
    wrong = {**AGREEMENT, "config.seed": "\x1b[2J" + "9" * 20_000, "config.x\nforged": "y" * 20_000}
    with caplog.at_level(logging.INFO):
        for _ in range(90):
            with pytest.raises(SchemaMismatch) as caught:
                ends[1].join(wrong)
            assert len(str(caught.value)) < 2500 and "\x1b" not in str(caught.value)
        site.service.stop()
    text = "".join(record.getMessage() for record in caplog.records)
    assert len(caplog.records) <= 5 and len(text) < 10_000
    assert "\x1b" not in text and "\n" not in text
    assert "89 more times" in text


@pytest.mark.parametrize("incarnation", ["x" * 65, "a\nb", "\x1b[2J", "\u202e"])
def test_an_incarnation_is_a_short_name(site, incarnation):
    client = site.client(BOB)
    client._sender.incarnation = incarnation
    with pytest.raises(Refused, match="incarnation that is not printable or longer"):
        client.join(AGREEMENT)


def test_garbage_is_counted_and_leaves_no_traceback(site, caplog):
    ends = joined(site, ADA, BOB)
    call = ends[1]._channel.unary_unary("/dogo.v1.Coordination/Exchange")
    with caplog.at_level(logging.INFO):
        for _ in range(90):
            with pytest.raises(grpc.RpcError) as caught:
                call(b"\xff" * 60_000, timeout=5, metadata=ends[1]._metadata)
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        site.service.stop()
    assert len(caplog.records) == 2 and "89 more times" in caplog.text
    assert not any(record.exc_info for record in caplog.records)
    assert "Traceback" not in caplog.text


def test_a_step_beyond_the_end_of_the_run_makes_nobody_lost(make_site):
    """At the end the others evaluate; a step that opens would wait for them, and lose them."""
    site = make_site(total_steps=1)
    ends = joined(site, ADA, BOB)
    assert_goes_on(ends)
    ends[1].publish(ticket(1), distribution(1))
    with pytest.raises(Refused, match="offers step 1, but the run ends after 1 steps"):
        ends[1].collect(ticket(1))
    site.clock.now_s += 1000.0
    site.service.call(lambda calls: calls.coordinator.tick(site.clock()))
    assert site.sink.events("peer_lost") == []


def test_who_is_refused_for_ever_is_told_to_wait_before_his_matrix_is_read(site, monkeypatch):
    ends = joined(site, ADA, BOB)
    read = []
    decode = type(site.wire).decode_published
    monkeypatch.setattr(
        type(site.wire), "decode_published", lambda *args: read.append(1) or decode(*args)
    )
    request = site.wire.encode_published(ends[1]._sender, ticket(0), distribution(0))
    request.distribution.negative_entropy = 5.0
    for _ in range(100):
        assert say(ends[1], "Exchange", request).refusal.code == pb.MALFORMED
    for _ in range(50):
        with pytest.raises(grpc.RpcError, match="should wait for a while") as caught:
            say(ends[1], "Exchange", request)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert len(read) == 100
    site.clock.now_s += 60.0
    assert_goes_on(ends)


# ---- another's seat ----


@pytest.mark.parametrize("method", ["Join", "Exchange", "Report", "Leave"])
def test_a_peer_speaks_only_for_itself(site, method):
    """With its own credential, in the name of another: nothing changes for the other one."""
    ends = joined(site, ADA, BOB)
    sender = pb.Sender(peer=ADA, incarnation="stolen")
    request = {
        "Join": pb.JoinRequest(sender=sender, run_id="run-1", agreement=AGREEMENT),
        "Exchange": site.wire.encode_published(sender, ticket(0), distribution(7)),
        "Report": pb.ReportRequest(sender=sender, steps=[pb.StepReport(step=1, round=1)]),
        "Leave": pb.LeaveRequest(sender=sender),
    }[method]
    before = site.service.call(lambda calls: calls.coordinator.snapshot(0.0).members)
    for incarnation in ("stolen", ends[0]._sender.incarnation):
        request.sender.incarnation = incarnation
        reply = say(ends[1], method, request)
        assert reply.refusal.message == "peer 'bob' speaks for 'ada', which it is not"
    assert site.service.call(lambda calls: calls.coordinator.snapshot(0.0).members) == before
    assert site.sink.records == []
    assert_goes_on(ends)


def test_calls_that_hang_are_few_per_peer_and_cost_the_others_nothing(site):
    ends = joined(site, ADA, BOB)
    request = site.wire.encode_published(ends[1]._sender, ticket(0), distribution(1))
    calls = [
        ends[1]._stub.Exchange.future(request, timeout=20, metadata=ends[1]._metadata)
        for _ in range(20)
    ]
    give_up_at_s = time.monotonic() + 20
    while sum(call.done() for call in calls) < 12:
        assert time.monotonic() < give_up_at_s
    ends[0].publish(ticket(0), distribution(0))
    assert ends[0].collect(ticket(0)).teachers == (BOB,)
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.UNAVAILABLE) == 12
    held = [call for call in calls if call.code() is grpc.StatusCode.OK]
    assert [tuple(call.result(20).teachers) for call in held] == [("ada",)] * 8


def test_messages_that_are_never_finished_count_as_calls_under_way(site):
    """They are counted before they are read, so they hold no more memory than others."""
    ends, never = joined(site, ADA, BOB), threading.Event()

    def messages():
        never.wait(20)
        yield b""

    begin = ends[1]._channel.stream_unary("/dogo.v1.Coordination/Report").future
    calls = [begin(messages(), timeout=20, metadata=ends[1]._metadata) for _ in range(20)]
    try:
        give_up_at_s = time.monotonic() + 10
        while sum(call.done() for call in calls) < 12:
            assert time.monotonic() < give_up_at_s
        codes = [call.code() for call in calls if call.done()]
        assert codes == [grpc.StatusCode.UNAVAILABLE] * 12
        assert ends[0].report([], [], None) is False
    finally:
        never.set()
    held = [call for call in calls if call.code() is grpc.StatusCode.OK]
    replies = [pb.ReportReply.FromString(call.result(20)) for call in held]
    assert len(replies) == 8 and all(reply.HasField("refusal") for reply in replies)
