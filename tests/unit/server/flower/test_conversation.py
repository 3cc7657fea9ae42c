"""One peer's line of messages, with the clock in the test's hand and replies that get lost."""

from __future__ import annotations

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dogo_fed.assignment import Assignment
from dogo_fed.contracts import Ending, Outcome
from dogo_fed.wire import dogo_pb2 as pb
from server.flower.conversation import Conversation, Patience
from tests.support.distributions import ADA, RUN_ID

PATIENCE = Patience(
    answer_s=60.0, unreachable_s=200.0, placement_s=100.0, hold_s=10.0, poll_s=0.5, silent_s=150.0
)
PAUSE_S = 1.0
"""After a message that was missed, at least."""


def assignment(number=0):
    return Assignment(
        peer=ADA,
        run_id=RUN_ID,
        run_dir="",
        address="",
        credential="c",
        checkpoint_step=None,
        config={},
        number=number,
    )


class Talk:
    """A line and the clock of its caller."""

    def __init__(self, patience=PATIENCE, number=0):
        self.now_s = 1000.0
        self.until_step, self.stop = 4, False
        self.line = Conversation(ADA, RUN_ID, patience)
        self.line.assign(assignment(number))

    def next(self):
        """The next message, as the fleet asks for it: an overdue one is given up before."""
        why = self.line.overdue(self.now_s)
        if why is not None:
            self.miss(why)
        return self.line.next_message(self.until_step, self.stop, self.now_s)

    def after(self, seconds):
        self.now_s += seconds
        return self.next()

    def reply(self, state=pb.RUNNING, **fields):
        return self.line.receive(
            pb.HostReply(**{"state": state, "where": "here", **fields}), self.now_s
        )

    def miss(self, why="lost"):
        return self.line.missed(why, self.now_s)

    def known(self):
        """The peer has been started and all that it may do has been said."""
        assert self.next().kind == "train.start"
        self.reply()
        return self


@pytest.fixture
def talk():
    return Talk()


def offer(step):
    return pb.ExchangeRequest(ticket=pb.Ticket(step=step))


# ---- one message at a time ----


def test_the_first_message_brings_the_assignment_and_what_the_peer_may_do(talk):
    first = talk.next()
    assert first.kind == "train.start"
    assert Assignment.from_json(first.request.assignment) == assignment()
    assert (first.request.run_id, first.request.peer, first.request.start) == (RUN_ID, ADA, 0)
    assert first.request.until_step == 4 and not first.request.stop


def test_nothing_is_said_while_a_message_is_under_way(talk):
    assert talk.next() is not None
    talk.until_step, talk.stop = 9, True
    talk.line.bring_join(pb.JoinReply())
    assert talk.after(PATIENCE.answer_s - 0.1) is None
    assert talk.after(0.2) is not None


def test_who_asks_for_the_next_message_must_have_given_up_the_one_before(talk):
    """So whoever drives the line tells people of it, in one place."""
    assert talk.next() is not None
    talk.now_s += 10 * PATIENCE.answer_s
    assert talk.line.next_message(9, True, talk.now_s) is None
    assert talk.line.overdue(talk.now_s) == "no answer within 60 s"
    assert talk.next() is not None


@pytest.mark.parametrize("how", ["time", "error"])
def test_a_lost_assignment_is_sent_again(talk, how):
    first = talk.next()
    if how == "error":
        talk.miss()
        assert talk.after(PAUSE_S / 2) is None
    again = talk.after(PATIENCE.answer_s)
    assert again.request.assignment == first.request.assignment != ""


@pytest.mark.parametrize("how", ["time", "error"])
def test_all_that_a_lost_message_brought_is_brought_again(talk, how):
    talk.known()
    talk.line.bring_join(pb.JoinReply(next_step=3))
    talk.line.bring_answer(2, pb.ExchangeReply(next_step=3, teachers=["bob"]))
    talk.until_step, talk.stop = 9, True
    first = talk.after(PATIENCE.poll_s)
    if how == "error":
        talk.miss()
    again = talk.after(PATIENCE.answer_s)
    assert again == first
    request = again.request
    assert request.join == pb.JoinReply(next_step=3)
    assert request.answer_step == 2 and request.answer.teachers == ["bob"]
    assert request.until_step == 9 and request.stop
    talk.reply()
    quiet = talk.after(PATIENCE.poll_s)
    assert quiet.kind == "query.status"
    assert not quiet.request.HasField("join") and not quiet.request.HasField("answer")


def test_an_answer_is_said_until_a_message_with_it_was_answered(talk):
    """A reply to a message that was sent before the answer was there does not count."""
    talk.known()
    assert talk.after(PATIENCE.poll_s).kind == "query.status"
    talk.line.bring_answer(0, pb.ExchangeReply(next_step=1))
    talk.line.bring_join(pb.JoinReply(next_step=7))
    talk.reply()
    carried = talk.next()
    assert carried.kind == "train.step"
    assert carried.request.HasField("answer") and carried.request.HasField("join")


def test_more_steps_are_granted_at_once_and_again_until_a_reply(talk):
    talk.known()
    assert talk.next() is None
    talk.until_step = 8
    assert talk.next().request.until_step == 8
    talk.miss()
    assert talk.after(PAUSE_S).request.until_step == 8
    talk.reply()
    assert talk.next() is None


def test_a_stop_is_said_at_once_even_to_a_peer_whose_step_is_open(talk):
    talk.known()
    talk.after(PATIENCE.poll_s)
    talk.reply(offer=offer(0))
    assert talk.line.open_offer.ticket.step == 0
    assert talk.after(100.0) is None, "there is nothing to say before its step closes"
    talk.stop = True
    assert talk.next().request.stop
    talk.reply(offer=offer(0))
    assert talk.after(100.0) is None


def test_a_peer_that_waits_for_an_answer_is_told_now_and_then_that_the_run_goes_on(talk):
    """Another peer may evaluate for hours; who hears nothing for too long gives up."""
    talk.known()
    talk.after(PATIENCE.poll_s)
    talk.reply(offer=offer(0))
    for _ in range(3):
        assert talk.after(PATIENCE.silent_s - 0.1) is None
        assert talk.after(0.2).kind == "query.status"
        talk.reply(offer=offer(0))
    assert talk.line.open_offer.ticket.step == 0


def test_an_offer_is_open_until_it_is_answered(talk):
    talk.known()
    talk.after(PATIENCE.poll_s)
    talk.reply(offer=offer(0))
    talk.line.bring_answer(0, pb.ExchangeReply(next_step=1))
    assert talk.line.open_offer is None
    assert talk.next().kind == "train.step"
    talk.reply(offer=offer(1))
    assert talk.line.open_offer.ticket.step == 1


# ---- how often ----


@pytest.mark.parametrize("seconds", [0.0, 0.1, 0.49])
def test_nobody_is_asked_faster_than_the_patience_says(talk, seconds):
    talk.known()
    assert talk.after(seconds) is None
    asked = talk.after(PATIENCE.poll_s - seconds)
    assert asked.kind == "query.status" and asked.request.hold_s == PATIENCE.hold_s


def test_an_error_is_not_answered_by_a_storm_of_messages(talk):
    talk.known()
    sent = 0
    for _ in range(1000):
        talk.now_s += 0.01
        if talk.next() is not None:
            sent += 1
            talk.miss()
    assert sent <= 11


def test_who_is_not_there_yet_is_not_asked_in_a_storm(talk):
    sent = 0
    for _ in range(1000):
        talk.now_s += 0.01
        if talk.next() is not None:
            sent += 1
            talk.reply(pb.AWAY)
    assert sent <= 11


# ---- who is not there ----


@pytest.mark.parametrize(
    ("state", "allowed_s", "outcome"),
    [
        (pb.NO_ROOM, PATIENCE.placement_s, Outcome.UNFIT),
        (pb.UNKNOWN, PATIENCE.unreachable_s, Outcome.FAILED),
        (pb.AWAY, PATIENCE.unreachable_s, Outcome.FAILED),
        (pb.HOST_STATE_UNSPECIFIED, PATIENCE.unreachable_s, Outcome.FAILED),
    ],
)
def test_a_start_waits_for_a_process_but_not_for_ever(talk, state, allowed_s, outcome):
    began_s = talk.now_s
    while talk.line.ending is None:
        if talk.after(PAUSE_S) is not None:
            talk.reply(state, message="the reason")
        assert talk.now_s < began_s + allowed_s + 10
    assert talk.now_s > began_s + allowed_s
    assert talk.line.ending.outcome is outcome
    assert "the reason" in talk.line.ending.message
    assert talk.after(100.0) is None


def test_the_time_of_a_slow_start_is_not_counted_as_want_of_room(talk):
    for _ in range(150):
        talk.after(PAUSE_S)
        talk.reply(pb.AWAY, message="still starting")
    assert talk.line.ending is None
    for _ in range(2):
        talk.after(PAUSE_S)
        talk.reply(pb.NO_ROOM, message="no GPU is free")
    assert talk.line.ending is None


def test_a_process_that_appears_in_time_is_just_started(talk):
    for _ in range(80):
        assert talk.after(PAUSE_S).kind == "train.start"
        talk.reply(pb.UNKNOWN)
    talk.after(PAUSE_S)
    talk.reply()
    assert talk.line.ending is None and talk.line.where == "here"


def test_who_was_known_and_is_unknown_has_died(talk):
    talk.known()
    talk.after(PATIENCE.poll_s)
    talk.reply(pb.UNKNOWN, message="a new process")
    assert talk.line.ending == "is gone: a new process"
    assert talk.after(1000.0) is None


@pytest.mark.parametrize("how", ["error", "silence", "away"])
def test_who_is_unreachable_for_too_long_has_ended(talk, how):
    talk.known()
    began_s = talk.now_s
    while talk.line.ending is None:
        if talk.after(PAUSE_S) is not None:
            if how == "error":
                talk.miss("node offline")
            elif how == "away":
                talk.reply(pb.AWAY, message="socket gone")
        longest_s = PATIENCE.unreachable_s + 2 * PATIENCE.answer_s + 10
        assert talk.now_s < began_s + longest_s
    assert talk.now_s > began_s + PATIENCE.unreachable_s
    assert talk.line.ending.outcome is Outcome.FAILED
    assert "was not there for 200 s" in talk.line.ending.message


def test_who_is_heard_of_again_in_time_goes_on(talk):
    talk.known()
    for _ in range(20):
        absent_since_s = talk.now_s
        while talk.now_s < absent_since_s + PATIENCE.unreachable_s - 5:
            if talk.after(PAUSE_S) is not None:
                talk.miss()
        talk.after(PAUSE_S)
        talk.reply()
    assert talk.line.ending is None


def test_the_first_miss_is_news_and_the_next_are_not(talk):
    talk.known()
    told = []
    for _ in range(3):
        talk.after(PAUSE_S)
        told.append(talk.miss())
    talk.after(PAUSE_S)
    talk.reply()
    talk.after(PAUSE_S)
    told.append(talk.miss())
    assert told == [True, False, False, True]


def test_a_late_reply_is_dropped_and_does_no_harm(talk):
    talk.known()
    talk.after(PATIENCE.poll_s)
    talk.miss()
    assert not talk.reply(pb.UNKNOWN)
    assert talk.line.ending is None


@pytest.mark.parametrize("outcome", Outcome)
def test_an_ending_carries_its_outcome(talk, outcome):
    talk.known()
    talk.after(PATIENCE.poll_s)
    assert talk.reply(pb.ENDED, outcome=outcome.value, message="why")
    assert talk.line.ending == Ending(outcome, "why")
    assert talk.after(1000.0) is None


def test_what_a_site_says_is_one_line_of_bounded_length(talk):
    talk.known()
    talk.after(PATIENCE.poll_s)
    rude = "\x1b[2Jgone\ndogo-fed: all is well" + 10**6 * "!"
    talk.reply(pb.ENDED, outcome=Outcome.FAILED.value, message=rude, where=rude)
    for text in (talk.line.ending.message, talk.line.where):
        assert text.isprintable() and len(text) <= 2000 and "gone" in text


def test_an_outcome_that_nobody_knows_is_a_failure(talk):
    talk.known()
    talk.after(PATIENCE.poll_s)
    talk.reply(pb.ENDED, outcome=77, message="who knows")
    assert talk.line.ending is not None
    assert talk.line.ending.outcome is not Outcome.FINISHED
    assert talk.after(1000.0) is None


# ---- the end, and the next start ----


def test_the_old_start_is_closed_before_the_new_one_is_assigned(talk):
    talk.known()
    talk.line.close()
    talk.line.assign(assignment(1))
    closing = talk.after(PATIENCE.poll_s)
    assert closing.kind == "query.stop"
    assert (closing.request.start, closing.request.close) == (0, True)
    talk.reply(pb.ENDED)
    assert talk.line.ending is None, "this was the old one's"
    starting = talk.after(PATIENCE.poll_s)
    assert (starting.kind, starting.request.start) == ("train.start", 1)


def test_what_the_old_start_still_says_is_not_taken_for_the_new_ones(talk):
    talk.known()
    assert talk.after(PATIENCE.poll_s) is not None
    talk.line.close()
    talk.line.assign(assignment(1))
    old = pb.HostReply(
        state=pb.ENDED,
        next_step=9,
        offer=offer(8),
        reports=[pb.ReportRequest()] * 3,
    )
    assert not talk.line.receive(old, talk.now_s)
    assert talk.line.ending is None and talk.line.open_offer is None and talk.line.next_step == 0
    talk.after(PATIENCE.poll_s)
    talk.reply(pb.UNKNOWN)
    starting = talk.after(PATIENCE.poll_s)
    assert starting.kind == "train.start"
    assert starting.request.reports_received == 0
    assert not starting.request.HasField("answer") and not starting.request.HasField("join")


def test_answers_of_the_old_start_are_not_brought_to_the_new_one(talk):
    talk.known()
    talk.line.bring_join(pb.JoinReply(next_step=3))
    talk.line.bring_answer(2, pb.ExchangeReply(next_step=3))
    talk.line.close()
    talk.line.assign(assignment(1))
    talk.after(PATIENCE.poll_s)
    talk.reply(pb.ENDED)
    starting = talk.after(PATIENCE.poll_s)
    assert not starting.request.HasField("answer") and not starting.request.HasField("join")


def test_a_closed_line_says_nothing_more(talk):
    talk.known()
    talk.line.close()
    talk.line.close()
    assert not talk.line.is_closed
    assert talk.after(PATIENCE.poll_s).kind == "query.stop"
    talk.reply(pb.ENDED)
    assert talk.line.is_closed
    assert talk.after(1000.0) is None


def test_who_was_never_assigned_has_nothing_to_close():
    line = Conversation(ADA, RUN_ID, PATIENCE)
    line.close()
    assert line.is_closed
    assert line.next_message(4, True, 0.0) is None


@pytest.mark.parametrize("how", ["error", "silence"])
def test_a_close_is_tried_more_than_once_but_not_for_ever(talk, how):
    talk.known()
    talk.line.close()
    tries = 0
    for _ in range(1000):
        message = talk.after(PAUSE_S)
        if message is not None:
            assert message.request.close
            tries += 1
            if how == "error":
                talk.miss()
    assert talk.line.is_closed
    assert 2 <= tries <= 5


def test_a_close_after_a_lost_message_still_has_all_its_tries(talk):
    talk.known()
    talk.after(PATIENCE.poll_s)
    talk.line.close()
    talk.miss()
    tries = 0
    for _ in range(100):
        if talk.after(PAUSE_S) is not None:
            tries += 1
            talk.miss()
    assert talk.line.is_closed
    assert tries == 3, "the message before was no try to close"


# ---- reports ----


def report(number):
    return pb.ReportRequest(steps=[pb.StepReport(step=number)])


def numbers(reports):
    return [one.steps[0].step for one in reports]


def test_reports_are_new_once(talk):
    line = talk.line
    told = pb.HostReply(reports=[report(0), report(1)], first_report=0)
    assert numbers(line.new_reports(told)) == [0, 1]
    assert numbers(line.new_reports(told)) == []
    more = pb.HostReply(reports=[report(n) for n in range(1, 4)], first_report=1)
    assert numbers(line.new_reports(more)) == [2, 3]
    assert numbers(line.new_reports(pb.HostReply(first_report=4))) == []
    old = pb.HostReply(reports=[report(0)], first_report=0)
    assert numbers(line.new_reports(old)) == []


def test_what_is_not_welcome_yet_comes_again(talk):
    line = talk.line
    told = pb.HostReply(reports=[report(n) for n in range(4)], first_report=0)
    assert numbers(line.new_reports(told, lambda one: one.steps[0].step < 3)) == [0, 1, 2]
    again = pb.HostReply(reports=[report(3), report(4)], first_report=3)
    assert numbers(line.new_reports(again)) == [3, 4]


def test_one_reply_brings_so_many_reports_but_the_last_one_all(talk):
    reports = [report(n) for n in range(300)]
    told = pb.HostReply(state=pb.RUNNING, reports=reports, first_report=0)
    assert numbers(talk.line.new_reports(told)) == list(range(256))
    last = pb.HostReply(state=pb.ENDED, reports=reports, first_report=0)
    assert numbers(talk.line.new_reports(last, lambda _: False)) == list(range(256, 300))


@pytest.mark.parametrize("first", [1, 2**32, 2**64 - 1])
def test_a_reply_that_begins_behind_what_was_confirmed_brings_nothing(first, talk):
    talk.next()
    reply = pb.HostReply(state=pb.RUNNING, reports=[report(0)], first_report=first)
    assert talk.line.receive(reply, talk.now_s)
    assert numbers(talk.line.new_reports(reply)) == []
    assert talk.after(PATIENCE.poll_s).request.reports_received == 0


def test_the_host_is_told_how_many_reports_have_come(talk):
    talk.next()
    reply = pb.HostReply(state=pb.RUNNING, reports=[report(0), report(1)])
    assert talk.line.receive(reply, talk.now_s)
    assert numbers(talk.line.new_reports(reply)) == [0, 1]
    assert talk.after(PATIENCE.poll_s).request.reports_received == 2


# ---- any history ----


class ModelHost:
    """A peer's host as it should be, in a few lines: joins, does its steps, reports each, leaves."""

    def __init__(self, total_steps):
        self.total_steps = total_steps
        self.start = None
        self.forget()

    def forget(self):
        """As a new process."""
        self.has_joined = self.has_left = False
        self.step, self.until_step = 0, 0
        self.answered = []
        self.reports, self.num_received = [], 0

    def handle(self, request):
        if request.assignment and self.start is None:
            self.start = request.start
        if self.start != request.start:
            return pb.HostReply(state=pb.UNKNOWN, message="a new process", where="model")
        if request.close:
            return pb.HostReply(state=pb.ENDED, outcome=Outcome.CUT_OFF.value, where="model")
        self.until_step = max(self.until_step, request.until_step)
        assert request.reports_received <= self.num_received + len(self.reports)
        while self.num_received < request.reports_received:
            self.reports.pop(0)
            self.num_received += 1
        if request.HasField("join") and not self.has_joined:
            self.has_joined, self.step = True, request.join.next_step
        if request.HasField("answer") and self.offers and request.answer_step == self.step:
            assert request.answer.teachers == [f"teacher-of-{self.step}"]
            self.answered.append(self.step)
            self.reports.append(report(self.step))
            self.step = request.answer.next_step
        return self.tell()

    @property
    def offers(self):
        return self.has_joined and self.step < min(self.until_step, self.total_steps)

    def tell(self):
        reply = pb.HostReply(state=pb.RUNNING, where="model", next_step=self.step)
        reply.reports.extend(self.reports)
        reply.first_report = self.num_received
        if not self.has_joined:
            reply.join.run_id = RUN_ID
        elif self.step >= self.total_steps:
            reply.state = pb.ENDED
            reply.leave.sender.peer = ADA
        elif self.offers:
            reply.offer.ticket.step = self.step
        else:
            reply.state = pb.WAITING
        return reply


class Coordination:
    """What drives a line, as the fleet does: rounds, answers, reports; every message may get lost."""

    TOTAL, PER_ROUND = 7, 3

    def __init__(self, chances):
        self.talk = Talk(dataclasses.replace(PATIENCE, unreachable_s=1e6, placement_s=1e6))
        self.line, self.host = self.talk.line, ModelHost(self.TOTAL)
        self.chances = chances
        self.joins, self.offers, self.reported, self.leaves = 0, [], [], 0
        self.under_way = []
        self.round = 1
        self.close_step_at_s = None

    def run(self, longest_s=20_000.0):
        give_up_s = self.talk.now_s + longest_s
        while self.line.ending is None:
            self.turn()
            self.talk.now_s += self.chances.choice([0.01, 0.3, 2.0])
            assert self.talk.now_s < give_up_s, "it goes on and on"

    def turn(self):
        self.answer()
        if self.line.next_step >= self.round * self.PER_ROUND:
            self.round += 1
        self.talk.until_step = min(self.round * self.PER_ROUND, self.TOTAL)
        message = self.talk.next()
        if message is None:
            return
        fate = self.chances.choice(["well"] * 4 + ["request", "reply", "error", "silent", "twice"])
        if fate in ("request", "error"):
            return self.lose(fate)
        reply = self.host.handle(message.request)
        if fate == "twice":
            reply = self.host.handle(message.request)
        if fate in ("reply", "silent"):
            return self.lose(fate)
        if self.line.receive(reply, self.talk.now_s):
            self.look_at(reply)

    def lose(self, fate):
        if fate in ("error", "reply"):
            self.talk.miss("made up")

    def look_at(self, reply):
        if reply.HasField("join"):
            self.joins += 1
            self.line.bring_join(pb.JoinReply(next_step=0))
        self.reported += numbers(self.line.new_reports(reply))
        if reply.HasField("offer"):
            self.offers.append(reply.offer.ticket.step)
        if reply.HasField("leave"):
            self.leaves += 1

    def answer(self):
        offered = self.line.open_offer
        if offered is None or self.chances.random() < 0.5:
            return
        step = offered.ticket.step
        self.line.bring_answer(
            step, pb.ExchangeReply(next_step=step + 1, teachers=[f"teacher-of-{step}"])
        )


@given(seed=st.integers(0, 2**32))
@settings(max_examples=150)
def test_whatever_gets_lost_every_step_is_answered_once_and_in_order(seed):
    run = Coordination(random.Random(seed))
    run.run()
    every_step = list(range(run.TOTAL))
    assert run.line.ending == Ending(Outcome.FINISHED)
    assert run.host.answered == every_step
    assert run.reported == every_step
    assert sorted(set(run.offers)) == every_step and run.offers == sorted(run.offers)
    assert run.joins >= 1 and run.leaves == 1
    run.line.close()
    for _ in range(10):
        run.talk.now_s += PATIENCE.answer_s + 1
        if run.talk.next() is not None:
            run.talk.reply(pb.ENDED)
    assert run.line.is_closed


@given(seed=st.integers(0, 2**32), dies_after=st.integers(1, 40))
@settings(max_examples=100)
def test_whenever_the_process_dies_its_successor_goes_through(seed, dies_after):
    run = Coordination(random.Random(seed))
    for _ in range(dies_after):
        if run.line.ending is None:
            run.turn()
            run.talk.now_s += 0.6
    run.host = ModelHost(run.TOTAL)
    was_known = run.line._is_known and run.line.ending is None
    run.run()
    if not was_known:
        assert run.line.ending == Ending(Outcome.FINISHED)
        return
    assert run.line.ending == "is gone: a new process"
    run.line.close()
    run.line.assign(assignment(1))
    run.round, run.reported, run.offers = 1, [], []
    run.run()
    assert run.line.ending == Ending(Outcome.FINISHED)
    assert run.host.start == 1
    assert run.host.answered == run.reported == list(range(run.TOTAL))


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50)
def test_nothing_is_ever_sent_while_a_message_is_under_way(seed):
    chances = random.Random(seed)
    talk = Talk()
    sent_at_s = None
    for _ in range(300):
        talk.now_s += chances.choice([0.0, 0.3, 1.0, 20.0])
        talk.until_step += chances.choice([0, 0, 1])
        talk.stop |= chances.random() < 0.01
        message = talk.next()
        if message is not None:
            assert sent_at_s is None or talk.now_s - sent_at_s >= PATIENCE.answer_s
            sent_at_s = talk.now_s
        elif sent_at_s is not None and chances.random() < 0.5:
            sent_at_s = None
            chances.choice([talk.miss, talk.reply])()
