"""The coordinator's service over real connections: sizes, losses, returns, reports, life cycle."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest

from clients.peer import grpc_link
from clients.peer.ahead_link import AheadLink
from clients.peer.grpc_link import GrpcLink, translate
from clients.peer.report_sink import ReportSink
from dogo_fed.contracts import (
    Event,
    EventKind,
    PeerResult,
    RoundReport,
    SimilarityDistribution,
    StepReport,
)
from dogo_fed.coordination import standstill
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.coordination.state import Membership
from dogo_fed.errors import (
    ConfigError,
    CoordinatorLost,
    ExchangeError,
    ExchangeTimeout,
    Refused,
    SchemaMismatch,
    StaleTicket,
)
from dogo_fed.ledger import Ledger, Part, is_sampled
from dogo_fed.wire import dogo_pb2 as pb
from dogo_fed.wire.dogo_pb2_grpc import (
    CoordinationServicer,
    add_CoordinationServicer_to_server,
)
from server.coordinator.calls import CoordinatorCalls
from server.coordinator.service import CoordinatorService, ServiceSettings
from tests.support.distributions import (
    ADA,
    AGREEMENT,
    BOB,
    RUN_ID,
    SIZE,
    WIRE,
    Clock,
    KeepingSink,
    both_ways,
    distribution,
    joined,
    settings,
    swap,
    ticket,
)

# ---- sizes ----


def test_the_largest_batch_travels_in_full_precision(make_site):
    size = 2048
    site = make_site(size=size)
    ends = joined(site, ADA, BOB)
    generator = np.random.default_rng(0)
    sent = []
    for _ in ends:
        p_NN = generator.random((size, size), dtype=np.float32)
        p_NN /= p_NN.sum(axis=1, keepdims=True)
        sent.append(SimilarityDistribution(p_NN, -math.log(size) + 0.3))
    for end, mine in zip(ends, sent, strict=True):
        end.publish(ticket(0), mine)
    for end, other in zip(ends, reversed(sent), strict=True):
        signal = end.collect(ticket(0))
        assert np.array_equal(signal.mean_NN, other.p_NN)
        assert signal.negative_entropy == other.negative_entropy
        for number in (end.last_traffic.bytes_up, end.last_traffic.bytes_down):
            assert 4 * size**2 < number < 4 * size**2 + 1000


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_encoding_and_decoding_are_in_the_ledger_of_a_step(make_site, looks_ahead):
    step = next(filter(is_sampled, itertools.count()))
    ends = joined(make_site(first_step=step, real_clock=True), ADA, BOB)
    ledger, (mine, other) = Ledger(), ends
    mine = AheadLink(mine) if looks_ahead else mine
    with ledger.step(step):
        mine.publish(ticket(step), distribution(0))
    other.publish(ticket(step), distribution(1))
    with ledger.step(step):
        assert mine.collect(ticket(step)).teachers == (BOB,)
    found = ledger.mean_ms()
    assert (found["beside"] > 0) == looks_ahead
    assert (found["encode"] > 0) == (found["decode"] > 0) == (not looks_ahead)
    spans = [(one.part, one.is_beside) for one in ledger.spans]
    assert spans == [(Part.ENCODE, looks_ahead), (Part.DECODE, looks_ahead)]


def test_two_view_directions_travel_where_they_are_agreed_and_are_too_much_where_not(make_site):
    size = 400  # the second matrix is larger than what the limit leaves for names
    ends = joined(make_site(size=size, is_symmetric=True), ADA, BOB)
    for seed, end in enumerate(ends):
        end.publish(ticket(0), both_ways(seed, size))
    for seed, end in enumerate(ends):
        signal, sent = end.collect(ticket(0)), both_ways(1 - seed, size)
        assert np.array_equal(signal.mean_NN, sent.p_NN)
        assert np.array_equal(signal.reverse.p_NN, sent.reverse.p_NN)
        for number in (end.last_traffic.bytes_up, end.last_traffic.bytes_down):
            assert 2 * 4 * size**2 < number < 2 * 4 * size**2 + 1000
    (end, _) = joined(make_site(size=size), ADA, BOB)
    end.publish(ticket(0), both_ways(0, size))
    with pytest.raises(ExchangeError, match="larger than the batch size allows"):
        end.collect(ticket(0))


@pytest.mark.parametrize("client_size", [SIZE, 200])
def test_a_message_beyond_the_limit_is_refused_at_either_end(site, client_size):
    """200 x 200 is beyond the service's limit; a client of the right size does not even send it."""
    (end, _) = joined(site, ADA, BOB, size=client_size)
    end.publish(ticket(0), distribution(0, 200))
    with pytest.raises(ExchangeError, match=r"larger than the batch size allows.*both sides\?"):
        end.collect(ticket(0))
    assert site.service.call(lambda calls: calls.coordinator.next_deadline_s()) is None, (
        "no step was opened"
    )
    assert swap(joined(site, ADA, BOB), 0)[0].teachers == (BOB,)


# ---- joining ----


def test_a_peer_of_another_run_is_turned_away(site):
    client = GrpcLink(ADA, "run-2", site.client(ADA)._connection)
    with pytest.raises(SchemaMismatch, match="'ada' wants run 'run-2', this is run 'run-1'"):
        client.join(AGREEMENT)
    client.close()


def test_what_differs_is_told_to_the_peer(site):
    with pytest.raises(SchemaMismatch, match="seed is 7 at peer ada and 0 at the coordinator"):
        site.client(ADA).join({**AGREEMENT, "config.seed": "7"})


# ---- the coordinator goes and comes ----


def test_a_coordinator_that_was_never_there_is_lost_within_the_time_allowed(site):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
        started_s = time.monotonic()
        with pytest.raises(CoordinatorLost, match=f"{nobody} can't be reached"):
            site.client(ADA, reconnect_s=0.5, address=nobody).join(AGREEMENT)
        assert time.monotonic() - started_s < 3.0


@pytest.mark.parametrize("when", ["between two calls", "while an exchange is held back"])
def test_a_coordinator_that_is_gone_is_lost_within_the_time_allowed(site, when):
    (end, _) = joined(site, ADA, BOB, reconnect_s=0.5)
    if when == "while an exchange is held back":
        end.publish(ticket(0), distribution(0))
        wait_for_offer(site)
    site.service.stop()
    started_s = time.monotonic()
    with pytest.raises(CoordinatorLost):
        if when == "between two calls":
            end.publish(ticket(0), distribution(0))
        end.collect(ticket(0))
    assert time.monotonic() - started_s < 4.0
    end.close()
    end.close()


def wait_for_offer(site):
    """Waits until the step is open: one deadline is due then."""
    give_up_at_s = time.monotonic() + 10
    while site.service.call(lambda calls: calls.coordinator._open) is None:
        assert time.monotonic() < give_up_at_s


@pytest.mark.parametrize("when", ["between two calls", "while an exchange is held back"])
def test_a_coordinator_that_comes_back_in_time_is_found_and_answers_as_before(site, when):
    ends = joined(site, ADA, BOB, reconnect_s=15.0)
    swap(ends, 0)
    if when == "while an exchange is held back":
        ends[0].publish(ticket(1), distribution(10))
        wait_for_offer(site)
    site.service.stop()
    if when == "between two calls":
        ends[0].publish(ticket(1), distribution(10))
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ends[0].collect, ticket(1))
        # Starts again only after the client has noticed, so that it really has to try again.
        site.start(port=site.port)
        ends[1].publish(ticket(1), distribution(11))
        assert ends[1].collect(ticket(1)).teachers == (ADA,)
        signal = waiting.result(timeout=20)
    assert signal.mean_NN.tobytes() == distribution(11).p_NN.tobytes()
    again = swap_one(ends[0], 1, 10)
    assert again.mean_NN.tobytes() == signal.mean_NN.tobytes()
    assert site.sink.events() == [], "nobody was lost"


def swap_one(end, step, seed):
    end.publish(ticket(step), distribution(seed))
    return end.collect(ticket(step))


def test_a_return_late_in_the_time_allowed_is_found_too(site):
    """gRPC by itself tries an address ever more rarely, up to two minutes apart."""
    (end,) = joined(site, ADA, reconnect_s=3.0)
    site.service.stop()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(end.report, [], [], None)
        # gRPC's own clock can't be passed; this is the one real wait.
        assert not threading.Event().wait(1.8)
        site.start(port=site.port)
        assert waiting.result(timeout=20) is False


# ---- a coordinator that does not answer ----


class Frozen(CoordinationServicer):
    """Takes calls and never answers them."""

    def __init__(self):
        self.thawed = threading.Event()

    def hang(self, request, context):
        self.thawed.wait(30)
        context.abort(grpc.StatusCode.INTERNAL, "frozen")

    Join = Exchange = Report = Leave = hang


@pytest.fixture
def frozen_address():
    servicer = Frozen()
    server = grpc.server(ThreadPoolExecutor(4))
    add_CoordinationServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    servicer.thawed.set()
    server.stop(None).wait(10)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(grpc_link, "_ANSWER_MARGIN_S", -4.7)  # of 5 s to answer in
    monkeypatch.setattr(grpc_link, "_SMALL_CALL_TIMEOUT_S", 0.3)


def test_a_coordinator_that_stays_frozen_is_a_timeout_for_every_call(
    site, frozen_address, impatient
):
    client = site.client(ADA, address=frozen_address)
    calls = (
        lambda: client.join(AGREEMENT),
        lambda: swap_one(client, 0, 0),
        lambda: client.report([], [], None),
    )
    for call in calls:
        started_s = time.monotonic()
        with pytest.raises(ExchangeTimeout, match="did not answer in time; is it overloaded"):
            call()
        assert time.monotonic() - started_s < 3.0


@pytest.mark.parametrize("what", ["join", "exchange", "report"])
def test_a_coordinator_that_thaws_in_time_answers_as_if_nothing_had_been(
    site, impatient, monkeypatch, what
):
    """All calls may be repeated, and the coordinator has kept what it knew."""
    ada, bob = (site.client(name, reconnect_s=10.0) for name in (ADA, BOB))
    bob.join(AGREEMENT)
    thawing = threading.Timer(1.0, lambda: None)

    def freeze():
        site.service.call(lambda calls: thawing.start() or thawing.join())

    if what != "join":
        ada.join(AGREEMENT)
    freezing = threading.Thread(target=freeze)
    freezing.start()
    time.sleep(0.1)
    if what == "join":
        assert ada.join(AGREEMENT) == 0
    elif what == "report":
        ada.report([step_report(0)], [], None)
        assert site.sink.records == [step_report(0)]
    else:
        with ThreadPoolExecutor(2) as both:
            taught = list(both.map(swap_one, (ada, bob), (0, 0), (0, 1)))
        assert [signal.teachers for signal in taught] == [(BOB,), (ADA,)]
    freezing.join()


def test_a_coordinator_that_was_frozen_past_a_deadline_loses_nobody(make_site, monkeypatch):
    monkeypatch.setattr(standstill, "_LONGEST_PAUSE_S", 2.0)
    site = make_site(deadline_s=2.5, real_clock=True)
    ada, bob = joined(site, ADA, BOB)
    ada.publish(ticket(0), distribution(0))
    deadline_s = time.monotonic() + 10.0
    while site.service.call(lambda calls: calls.coordinator.next_deadline_s()) is None:
        assert time.monotonic() < deadline_s, "the first distribution has not arrived"
    freezing = threading.Thread(target=lambda: site.service.call(lambda calls: time.sleep(3.5)))
    freezing.start()
    freezing.join()
    time.sleep(0.2)  # the deadlines have been looked at by now
    bob.publish(ticket(0), distribution(1))
    assert ada.collect(ticket(0)).teachers == (BOB,)
    assert site.sink.events("peer_lost") == []


# ---- evaluations ----


def test_a_peer_that_evaluates_is_waited_for_and_the_others_ask_again(make_site):
    """Neither the deadline of a step nor the longest time that an answer is held back counts."""
    site = make_site(deadline_s=1.0, answer_within_s=0.4, real_clock=True)
    ada, bob = joined(site, ADA, BOB)
    ada.publish(ticket(0), distribution(0))
    until_s = time.monotonic() + 2.5
    while time.monotonic() < until_s:
        bob.report([], [], None, is_evaluating=True)
        time.sleep(0.1)
    bob.publish(ticket(0), distribution(1))
    assert ada.collect(ticket(0)).teachers == (BOB,)
    one = pb.ExchangeRequest.ByteSize(
        WIRE.encode_published(ada._sender, ticket(0), distribution(0))
    )
    assert ada.last_traffic.bytes_up >= 2 * one and ada.last_traffic.bytes_up % one == 0
    assert site.sink.events("peer_lost") == []


def test_a_peer_that_stops_to_evaluate_has_the_deadline_of_a_step(make_site):
    site = make_site(deadline_s=0.5, answer_within_s=10.0, real_clock=True)
    ada, bob = joined(site, ADA, BOB)
    bob.report([], [], None, is_evaluating=True)
    ada.publish(ticket(0), distribution(0))
    assert ada.collect(ticket(0)).teachers == ()
    assert [event.peer for event in site.sink.events("peer_lost")] == [BOB]


def test_a_sign_of_life_reaches_the_sink(site):
    (end,) = joined(site, ADA)
    end.report([], [], None, is_evaluating=True)
    assert site.sink.signs_of_life == 1 and site.sink.records == []


def test_leaving_a_frozen_coordinator_takes_seconds_not_forever(site, frozen_address, caplog):
    client = site.client(ADA, address=frozen_address)
    started_s = time.monotonic()
    with caplog.at_level(logging.WARNING, "clients"):
        client.close()
    assert time.monotonic() - started_s < 8.0
    assert "could not say goodbye" in caplog.text


# ---- errors of gRPC ----


class FakeRpcError(grpc.RpcError):
    def __init__(self, code, details):
        super().__init__()
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


@pytest.mark.parametrize("details", ["the reason", "", None])
@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_status_of_grpc_becomes_a_sentence(code, details):
    error = translate(FakeRpcError(code, details), "10.0.0.1:5000")
    assert isinstance(error, ExchangeError)
    message = str(error)
    assert "10.0.0.1:5000" in message and "None" not in message
    assert len(message.split()) >= 4
    known = {
        grpc.StatusCode.UNAVAILABLE: CoordinatorLost,
        grpc.StatusCode.DEADLINE_EXCEEDED: ExchangeTimeout,
        grpc.StatusCode.UNAUTHENTICATED: Refused,
    }
    assert type(error) is known.get(code, ExchangeError)
    if code not in (*known, grpc.StatusCode.RESOURCE_EXHAUSTED):
        assert code.name in message and (details or "no details") in message


def test_the_cause_is_chained(site):
    with pytest.raises(Refused) as caught:
        site.client(ADA, credential="guess").join(AGREEMENT)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


# ---- reports ----


def step_report(step, peer=ADA):
    return StepReport(peer, 1, step, 2.5, 0.5, 1, 0.1, 0.2, 0.3, 100, 200)


ROUND = RoundReport(ADA, 1, 500_000, 0.75, 1.5)
RESULT = PeerResult(ADA, "cnn", "simclr", 9, 0.5, 0.6, 0.1, 2.0, 0.2, "d19e57", 20)


def test_reports_arrive_complete_and_in_order(site):
    (end,) = joined(site, ADA)
    end.report([step_report(step) for step in range(3)], [ROUND], RESULT)
    assert site.sink.records == [*(step_report(step) for step in range(3)), ROUND, RESULT]


def test_a_repeated_report_is_counted_once(site):
    (end,) = joined(site, ADA)
    for _ in range(2):
        end.report([step_report(0), step_report(1)], [], None)
    end.report([step_report(1), step_report(2)], [], None)
    assert [record.step for record in site.sink.records] == [0, 1, 2]


def test_a_repeated_report_of_a_round_or_a_result_is_counted_once(site):
    """A reply may be lost on its way; the client then sends the report again."""
    (end,) = joined(site, ADA)
    for _ in range(2):
        end.report([], [ROUND], RESULT)
    end.report([], [dataclasses.replace(ROUND, round=2, step=1_000_000)], None)
    rounds = [record.round for record in site.sink.records if isinstance(record, RoundReport)]
    results = [record for record in site.sink.records if isinstance(record, PeerResult)]
    assert rounds == [1, 2]
    assert results == [RESULT]


def test_a_new_process_reports_its_steps_anew(site):
    joined(site, ADA)[0].report([step_report(5)], [], None)
    joined(site, ADA)[0].report([step_report(3), step_report(4)], [], None)
    steps = [record.step for record in site.sink.records if isinstance(record, StepReport)]
    assert steps == [5, 3, 4]


def test_a_superseded_process_reports_nothing(site):
    old, new = site.client(ADA), site.client(ADA)
    old.join(AGREEMENT)
    new.join(AGREEMENT)
    with pytest.raises(StaleTicket):
        old.report([step_report(0)], [], None)
    assert not any(isinstance(record, StepReport) for record in site.sink.records)


def test_a_reply_to_a_report_tells_of_a_stop(site):
    (end,) = joined(site, ADA)
    assert end.report([], [], None) is False
    site.service.call(lambda calls: calls.coordinator.stop("enough", 0.0))
    assert end.report([], [], None) is True


class FakeClient:
    """Notes what it is asked to deliver."""

    def __init__(self):
        self.sent = []
        self.stop = False
        self.error = None

    def report(self, steps, rounds, result, *, is_evaluating=False, is_brief=False):
        if self.error is not None:
            raise self.error
        self.sent.append((list(steps), list(rounds), result))
        self.flags = (is_evaluating, is_brief)
        return self.stop


def test_step_reports_travel_together_about_once_a_second():
    client, clock = FakeClient(), Clock(100.0)
    sink = ReportSink(client, clock)
    for step in range(14):
        sink.emit(step_report(step))
        assert sink._is_settled(None)  # a thread delivers them
        clock.now_s += 0.25
    assert [len(steps) for steps, _, _ in client.sent] == [5, 4, 4]
    sink.close()
    sink.close()
    assert [report.step for steps, _, _ in client.sent for report in steps] == list(range(14))


@pytest.mark.parametrize("record", [ROUND, RESULT])
def test_what_people_wait_for_travels_at_once_and_takes_the_steps_along(record):
    client = FakeClient()
    sink = ReportSink(client, Clock(100.0))
    sink.emit(step_report(0))
    sink.emit(record)
    rounds, result = ([ROUND], None) if record is ROUND else ([], RESULT)
    assert client.sent == [([step_report(0)], rounds, result)]
    sink.close()
    assert len(client.sent) == 1, "nothing is left to deliver"


def test_events_of_a_peer_stay_with_it():
    client = FakeClient()
    sink = ReportSink(client, Clock(100.0))
    sink.emit(Event(EventKind.PEER_STARTED, "a peer started"))
    sink.close()
    assert client.sent == []


def test_reports_that_could_not_be_delivered_are_kept():
    client, clock = FakeClient(), Clock(100.0)
    sink = ReportSink(client, clock)
    client.error = CoordinatorLost("gone")
    sink.emit(step_report(0))
    with pytest.raises(CoordinatorLost):
        sink.emit(ROUND)
    assert sink.undelivered() == [step_report(0), ROUND]
    client.error = None
    sink.close()
    assert client.sent == [([step_report(0)], [ROUND], None)] and sink.undelivered() == []


def test_a_flush_asks_once_and_a_coordinator_that_is_gone_costs_nothing():
    """A checkpoint waits for it: saving comes first."""
    client = FakeClient()
    sink = ReportSink(client, Clock(100.0))
    sink.emit(step_report(0))
    client.error = CoordinatorLost("gone")
    sink.flush()
    assert sink.undelivered() == [step_report(0)]
    client.error = None
    sink.flush()
    assert client.sent == [([step_report(0)], [], None)] and client.flags == (False, True)
    assert sink.undelivered() == []


def test_a_sign_of_life_asks_once_and_takes_the_steps_along():
    client = FakeClient()
    sink = ReportSink(client, Clock(100.0))
    client.error = CoordinatorLost("gone")
    sink.alive()
    client.error = None
    sink.emit(step_report(0))
    sink.alive()
    assert client.sent == [([step_report(0)], [], None)] and client.flags == (True, True)


def test_a_stop_once_heard_stays_heard():
    client = FakeClient()
    sink = ReportSink(client, Clock(100.0))
    sink.emit(ROUND)
    assert not sink.stop_requested()
    client.stop = True
    sink.emit(ROUND)
    client.stop = False
    sink.emit(ROUND)
    assert sink.stop_requested()


# ---- the service itself ----


def test_other_threads_ask_through_call_and_wake_those_who_wait(site):
    ends = joined(site, ADA, BOB)
    ends[0].publish(ticket(0), distribution(0))
    wait_for_offer(site)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ends[0].collect, ticket(0))
        site.service.call(lambda calls: calls.coordinator.lose(BOB, "died", 1.0))
        assert waiting.result(timeout=5).teachers == ()
    assert site.service.call(lambda calls: calls.coordinator.next_open_step) == 1


def test_an_error_inside_call_comes_back_to_the_caller(site):
    with pytest.raises(Refused, match="no peer 'mallory'"):
        site.service.call(lambda calls: calls.coordinator.membership("mallory"))
    assert site.client(ADA).join(AGREEMENT) == 0


def test_the_state_machine_is_touched_by_one_thread_only(make_site, monkeypatch):
    seen = set()

    def noting(plain):
        def note(*args, **kwargs):
            seen.add(threading.current_thread().name)
            return plain(*args, **kwargs)

        return note

    for name in ("join", "offer", "answer", "tick", "leave", "check_sender", "lose"):
        monkeypatch.setattr(Coordinator, name, noting(getattr(Coordinator, name)))
    site = make_site()
    ends = joined(site, ADA, BOB)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda end: swap_one(end, 0, 1), ends))
    ends[0].report([step_report(0)], [], None)
    site.service.call(lambda calls: calls.coordinator.lose(BOB, "died", 1.0))
    ends[0].close()
    assert seen == {"coordinator"}


def test_time_passes_without_calls(make_site):
    """The service itself looks at the clock, at the deadlines that the state machine names."""
    site = make_site()
    (end, _) = joined(site, ADA, BOB)
    end.publish(ticket(0), distribution(0))
    wait_for_offer(site)
    site.clock.now_s = 10.0
    assert end.collect(ticket(0)).teachers == ()
    assert [event.peer for event in site.sink.events("peer_lost")] == ["bob"]


def test_a_sink_that_fails_once_does_not_stop_the_clock():
    """Else every later deadline would pass unseen, and peers would wait for the lost."""

    class FailingOnce(KeepingSink):
        def emit(self, record):
            if not self.records:
                self.records.append(record)
                raise OSError("no space left")
            super().emit(record)

    clock, sink = Clock(), FailingOnce()
    coordinator = Coordinator(
        settings((ADA, BOB), deadline_s=10.0, join_deadline_s=100.0), 0.0, sink.emit
    )
    service = CoordinatorService(
        CoordinatorCalls(coordinator, RUN_ID, WIRE, sink, clock),
        ServiceSettings(address="127.0.0.1", port=0, secret="s", answer_within_s=4.0),
        clock,
    )
    service.start()
    try:
        service.call(lambda calls: calls.coordinator.join(ADA, "ada-1", AGREEMENT, 0.0))
        service.call(lambda calls: calls.coordinator.join(BOB, "bob-1", AGREEMENT, 0.0))
        service.call(
            lambda calls: calls.coordinator.offer(ADA, "ada-1", ticket(0), distribution(0), 0.0)
        )
        clock.now_s = 10.0
        give_up_at_s = time.monotonic() + 4.0
        while service.call(lambda calls: calls.coordinator.membership(BOB)) is not Membership.LOST:
            assert time.monotonic() < give_up_at_s
        for _ in range(2):  # whether or not the first step was closed, bob now waits for ada
            service.call(
                lambda calls: calls.coordinator.offer(
                    BOB, "bob-1", ticket(calls.next_open_step), distribution(1), 10.0
                )
            )
        clock.now_s = 20.0
        while service.call(lambda calls: calls.coordinator.membership(ADA)) is not Membership.LOST:
            assert time.monotonic() < give_up_at_s, "nobody looks at the clock any more"
    finally:
        service.stop()


def test_stopping_twice_is_stopping_once(site):
    site.service.stop()
    started_s = time.monotonic()
    site.service.stop()
    assert time.monotonic() - started_s < 1.0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", site.port), timeout=2)


def test_stopping_what_never_started_does_nothing(site):
    fresh = CoordinatorService(site.service._calls, site.service._settings)
    fresh.stop()


def test_a_stop_does_not_wait_for_exchanges_that_are_held_back(site):
    (end, _) = joined(site, ADA, BOB, reconnect_s=0.1)
    end.publish(ticket(0), distribution(0))
    wait_for_offer(site)
    started_s = time.monotonic()
    site.service.stop()
    assert time.monotonic() - started_s < 5.0
    with pytest.raises(ExchangeError):
        end.collect(ticket(0))


@pytest.mark.parametrize("address", ["127.0.0.1", "203.0.113.7"])
def test_where_it_can_not_listen_it_says_so_quickly(site, address):
    """The port is taken by another service, or the address is none of this machine's."""
    fresh = CoordinatorService(
        site.service._calls,
        dataclasses.replace(site.service._settings, address=address, port=site.port),
    )
    started_s = time.monotonic()
    with pytest.raises(
        ConfigError, match=rf"can't listen on {address}:{site.port}; choose another"
    ):
        fresh.start()
    assert time.monotonic() - started_s < 5.0
    fresh.stop()
    assert site.client(ADA).join(AGREEMENT) == 0, "the service that was there first goes on"


def test_an_unexpected_error_in_a_call_fails_that_call_only(site, monkeypatch, caplog):
    (end, other) = joined(site, ADA, BOB)
    monkeypatch.setattr(site.sink, "emit", None)
    with pytest.raises(ExchangeError, match="UNKNOWN"):
        end.report([step_report(0)], [], None)
    monkeypatch.undo()
    assert swap([end, other], 0)[0].teachers == (BOB,)


def test_an_empty_exchange_request_names_its_rule(site):
    client = site.client(ADA)
    client.join(AGREEMENT)
    with pytest.raises(ExchangeError, match="speaks of run ''"):
        client._call(client._stub.Exchange, pb.ExchangeRequest(sender=client._sender), 5.0)
