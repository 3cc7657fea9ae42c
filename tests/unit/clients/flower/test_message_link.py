"""A peer's link where messages carry what it says: the peer in one thread, its host in the test's."""

from __future__ import annotations

import functools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from clients.flower import message_link
from clients.flower.message_link import MessageLink
from dogo_fed.contracts import RoundReport, StepReport, TeacherSignal
from dogo_fed.errors import (
    CoordinatorLost,
    ExchangeTimeout,
    MalformedDistribution,
    Refused,
    SchemaMismatch,
    StaleTicket,
)
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb
from tests.support.distributions import (
    ADA,
    AGREEMENT,
    BOB,
    RUN_ID,
    SIZE,
    WIRE,
    distribution,
    ticket,
)
from tests.support.fake_flower import comes_true, eventually

pytestmark = pytest.mark.timeout(30)


class Pair:
    """A link, its peer in a thread, and what its host does."""

    def __init__(self, pool):
        self.link = MessageLink(ADA, RUN_ID, WIRE, 5.0)
        self._pool = pool

    def peer(self, action, *arguments):
        return self._pool.submit(action, *arguments)

    def told(self):
        reply = pb.HostReply()
        self.link.tell(reply)
        return reply

    def bring(self, **fields):
        self.link.take(pb.HostRequest(**fields))

    def asked(self):
        """Waits until the peer waits for an answer."""
        eventually(self.link.has_question, "a question")
        return self.told()

    def answer(self, step, **fields):
        self.bring(answer=pb.ExchangeReply(**fields), answer_step=step)


@pytest.fixture
def pair():
    with ThreadPoolExecutor(2) as pool:
        made = Pair(pool)
        yield made
        made.link.cut("the test has ended")


def signal(step, teachers=(BOB,), **fields):
    mean = distribution(step)
    return WIRE.encode_signal(
        TeacherSignal(
            mean_NN=mean.p_NN if teachers else None,
            negative_entropy=mean.negative_entropy,
            teachers=teachers,
            next_step=step + 1,
            **fields,
        )
    )


def published(pair, step):
    """Lets the peer publish and wait; returns what it will collect."""
    pair.link.publish(ticket(step), distribution(100 + step))
    return pair.peer(pair.link.collect, ticket(step))


# ---- joining ----


def test_a_link_that_has_nothing_to_say_says_nothing(pair):
    assert not pair.link.has_question()
    assert pair.told() == pb.HostReply()


def test_a_peer_joins_by_two_messages(pair):
    joining = pair.peer(pair.link.join, AGREEMENT)
    told = pair.asked()
    assert told.join.sender.peer == ADA and told.join.sender.incarnation
    assert told.join.run_id == RUN_ID and dict(told.join.agreement) == AGREEMENT
    assert pair.told() == told, "until it is answered, it is said again"
    pair.bring(join=pb.JoinReply(next_step=7))
    assert joining.result(timeout=5) == 7
    assert not pair.told().HasField("join") and not pair.link.has_question()


def test_two_links_of_a_peer_are_two_processes():
    senders = [MessageLink(ADA, RUN_ID, WIRE, 5.0)._sender for _ in range(2)]
    assert senders[0].incarnation != senders[1].incarnation


@pytest.mark.parametrize("error", [Refused, SchemaMismatch, StaleTicket])
def test_a_refusal_is_raised_as_what_it_is(pair, error):
    refusal = codec.encode_refusal(error("the reason"))
    joining = pair.peer(pair.link.join, AGREEMENT)
    pair.asked()
    pair.bring(join=pb.JoinReply(refusal=refusal))
    with pytest.raises(Refused, match="the reason") as caught:
        joining.result(timeout=5)
    assert type(caught.value) is error
    collecting = published(pair, 0)
    pair.answer(0, refusal=refusal)
    with pytest.raises(Refused, match="the reason") as caught:
        collecting.result(timeout=5)
    assert type(caught.value) is error


# ---- a step ----


def test_what_is_published_is_told_until_it_is_answered(pair):
    collecting = published(pair, 3)
    told = pair.asked()
    assert codec.decode_ticket(told.offer.ticket) == ticket(3)
    given = WIRE.decode(told.offer.distribution)
    assert given.p_NN.tobytes() == distribution(103).p_NN.tobytes()
    assert pair.told() == told
    pair.bring(answer=signal(3, waited_s=1.5), answer_step=3)
    got = collecting.result(timeout=5)
    assert got.mean_NN.tobytes() == distribution(3).p_NN.tobytes()
    assert (got.teachers, got.next_step, got.stop, got.waited_s) == ((BOB,), 4, False, 1.5)
    assert not pair.told().HasField("offer")


def test_bytes_of_both_ways_are_counted(pair):
    collecting = published(pair, 0)
    told = pair.asked()
    answer = signal(0)
    pair.bring(answer=answer, answer_step=0)
    collecting.result(timeout=5)
    traffic = pair.link.last_traffic
    assert (traffic.bytes_up, traffic.bytes_down) == (told.offer.ByteSize(), answer.ByteSize())


def test_an_answer_between_publish_and_collect_is_kept(pair):
    pair.link.publish(ticket(0), distribution(0))
    pair.bring(answer=signal(0), answer_step=0)
    assert pair.peer(pair.link.collect, ticket(0)).result(timeout=5).teachers == (BOB,)


@pytest.mark.parametrize("step", [0, 1, 3, 4])
def test_an_answer_of_another_step_is_dropped(pair, step):
    collecting = published(pair, 2)
    pair.bring(answer=signal(step), answer_step=step)
    assert pair.link.has_question()
    pair.bring(answer=signal(2), answer_step=2)
    assert collecting.result(timeout=5).next_step == 3


def test_a_repeated_answer_is_not_taken_for_the_next_steps(pair):
    first = published(pair, 0)
    for _ in range(3):
        pair.bring(answer=signal(0), answer_step=0)
    first.result(timeout=5)
    pair.bring(answer=signal(0), answer_step=0)
    second = published(pair, 1)
    pair.bring(answer=signal(0), answer_step=0)
    assert pair.link.has_question()
    pair.bring(answer=signal(1, teachers=()), answer_step=1)
    assert second.result(timeout=5).teachers == ()


def test_an_answer_to_a_question_that_was_never_asked_is_dropped(pair):
    pair.bring(answer=signal(0), answer_step=0)
    pair.bring(join=pb.JoinReply(next_step=99))
    joining = pair.peer(pair.link.join, AGREEMENT)
    assert comes_true(pair.link.has_question, within_s=2.0), "its own question is not answered"
    pair.bring(join=pb.JoinReply(next_step=1))
    assert joining.result(timeout=5) == 1
    published(pair, 0)
    assert pair.link.has_question()


@pytest.mark.parametrize(
    "fields",
    [
        {"teachers": ["bob"]},
        {"mean": WIRE.encode(distribution(0, SIZE + 1)), "teachers": ["bob"]},
        {"mean": pb.Distribution(size=SIZE, dtype=pb.FLOAT32, rows=b"xx"), "teachers": ["bob"]},
    ],
)
def test_what_is_no_distribution_is_refused_by_the_peer(pair, fields):
    collecting = published(pair, 0)
    pair.answer(0, next_step=1, **fields)
    with pytest.raises(MalformedDistribution):
        collecting.result(timeout=5)


# ---- reports ----


def step_report(step):
    return StepReport(ADA, 1, step, 1.0, 0.5, 1, 0.1, 0.1, 0.1, 10, 10)


def told_steps(reply):
    return [step.step for report in reply.reports for step in report.steps]


def test_reports_are_told_until_the_other_side_has_them(pair):
    for step in range(4):
        assert not pair.link.report([step_report(step)], [], None)
    assert (told_steps(pair.told()), pair.told().first_report) == ([0, 1, 2, 3], 0)
    pair.bring(reports_received=3)
    assert (told_steps(pair.told()), pair.told().first_report) == ([3], 3)
    pair.bring(reports_received=3)
    pair.bring(reports_received=1)
    assert (told_steps(pair.told()), pair.told().first_report) == ([3], 3)
    pair.link.report([], [RoundReport(ADA, 1, 4, 0.5, 1.0)], None)
    pair.bring(reports_received=5)
    assert (list(pair.told().reports), pair.told().first_report) == ([], 5)


def test_more_reports_than_there_are_can_not_have_been_received(pair):
    """Else the next ones would be taken for known."""
    pair.link.report([step_report(0)], [], None)
    pair.bring(reports_received=2**64 - 1)
    pair.link.report([step_report(1)], [], None)
    assert (told_steps(pair.told()), pair.told().first_report) == ([1], 1)


def test_a_stop_is_told_to_the_peer_with_its_next_report_and_stays(pair):
    pair.bring(stop=True)
    pair.bring(stop=False)
    assert pair.link.report([], [], None)


# ---- the end ----


def test_who_leaves_says_so_until_nobody_asks_any_more(pair):
    pair.link.report([step_report(0)], [], None)
    pair.link.close()
    pair.link.close()
    for _ in range(2):
        told = pair.told()
        assert told.leave.sender.peer == ADA and told_steps(told) == [0]


@pytest.mark.parametrize("waits_for", ["join", "collect"])
def test_a_cut_lets_a_peer_go_that_waits(pair, waits_for):
    join = functools.partial(pair.peer, pair.link.join, AGREEMENT)
    waiting = join() if waits_for == "join" else published(pair, 0)
    pair.asked()
    assert not waiting.done()
    pair.link.cut("the run is closed")
    with pytest.raises(CoordinatorLost, match="will not be answered: the run is closed"):
        waiting.result(timeout=5)


def test_after_a_cut_nobody_waits(pair):
    pair.link.cut("the run is closed")
    with pytest.raises(CoordinatorLost):
        pair.peer(pair.link.join, AGREEMENT).result(timeout=5)
    with pytest.raises(CoordinatorLost):
        published(pair, 0).result(timeout=5)
    pair.link.report([step_report(0)], [], None)
    pair.link.close()


def test_an_answer_that_came_before_the_cut_counts(pair):
    pair.link.publish(ticket(0), distribution(0))
    pair.bring(answer=signal(0), answer_step=0)
    pair.link.cut("the run is closed")
    assert pair.link.collect(ticket(0)).teachers == (BOB,)


@pytest.mark.parametrize("waits_for", ["join", "collect"])
def test_a_peer_that_nobody_asks_gives_up(monkeypatch, waits_for):
    monkeypatch.setattr(message_link, "_ANSWER_MARGIN_S", 0.1)
    link = MessageLink(ADA, RUN_ID, WIRE, 0.1)
    with pytest.raises(ExchangeTimeout, match=r"come for 0\.2 s, .*is the coordinator's app still"):
        if waits_for == "join":
            link.join(AGREEMENT)
        else:
            link.publish(ticket(0), distribution(0))
            link.collect(ticket(0))


def test_a_peer_that_is_asked_now_and_then_goes_on_waiting(monkeypatch):
    """Another peer evaluates: the messages that come show that the coordinator knows."""
    monkeypatch.setattr(message_link, "_ANSWER_MARGIN_S", 0.2)
    link = MessageLink(ADA, RUN_ID, WIRE, 0.2)
    link.publish(ticket(0), distribution(0))
    found = []
    waiting = threading.Thread(target=lambda: found.append(link.collect(ticket(0))))
    waiting.start()
    for _ in range(10):
        time.sleep(0.1)
        link.take(pb.HostRequest())
    link.take(pb.HostRequest(answer=signal(0), answer_step=0))
    waiting.join(5.0)
    assert [one.teachers for one in found] == [(BOB,)]


def test_a_peer_that_evaluates_says_so_once_until_the_other_side_has_it(pair):
    for _ in range(3):
        pair.link.report([], [], None, is_evaluating=True)
    assert [one.evaluating for one in pair.told().reports] == [True]
    pair.bring(reports_received=1)
    assert not pair.told().reports
    pair.link.report([], [], None, is_evaluating=True)
    pair.link.report([step_report(0)], [], None)
    assert [one.evaluating for one in pair.told().reports] == [True, False]


def test_telling_changes_nothing(pair):
    pair.link.report([step_report(0)], [], None)
    pair.link.publish(ticket(0), distribution(0))
    pair.link.close()
    assert pair.told() == pair.told() == pair.told()


def test_taking_the_same_message_again_changes_nothing(pair):
    pair.link.report([step_report(0)], [], None)
    pair.link.report([step_report(1)], [], None)
    pair.link.publish(ticket(0), distribution(0))
    after = []
    for _ in range(3):
        pair.bring(reports_received=1, answer=signal(0), answer_step=0, stop=True)
        after.append(pair.told())
    assert after[0] == after[1] == after[2]
    assert told_steps(after[0]) == [1]
