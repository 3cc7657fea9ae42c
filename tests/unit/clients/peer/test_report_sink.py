"""A peer's reports on their way: steps wait for none of them, and none is lost or out of order."""

from __future__ import annotations

import dataclasses
import threading

import pytest

from clients.peer import report_sink
from clients.peer.report_sink import ReportSink
from dogo_fed.contracts import RoundReport, StepReport
from dogo_fed.errors import CoordinatorLost
from tests.support.distributions import ADA, Clock

ROUND = RoundReport(ADA, 1, 4, 0.5, 1.0)
STEPS = [
    dataclasses.replace(StepReport(ADA, 1, 0, 2.5, 0.5, 2, 0.1, 0.2, 0.3, 1000, 0), step=number)
    for number in range(4)
]


class Far:
    """A coordinator that answers when a test lets it."""

    def __init__(self, answers: int = 100) -> None:
        self.answers = threading.Semaphore(answers)
        self.sent = []
        self.stop = False
        self.error = None

    def report(self, steps, rounds, result, *, is_evaluating=False, is_brief=False):
        assert self.answers.acquire(timeout=20)
        if self.error is not None:
            raise self.error
        self.sent.append((list(steps), list(rounds), result))
        return self.stop


@pytest.fixture
def clock():
    return Clock(100.0)


def emit(sink, clock, *records):
    """Emits records, each of which is due."""
    for record in records:
        clock.now_s += 1.0
        sink.emit(record)


def test_steps_wait_for_no_delivery_and_arrive_in_order_before_what_comes_after_them(clock):
    far = Far(answers=0)
    sink = ReportSink(far, clock)
    emit(sink, clock, *STEPS[:3])
    assert far.sent == [] and sink.undelivered() == STEPS[:3]
    far.answers.release(2)
    emit(sink, clock, ROUND)
    assert far.sent == [(STEPS[:1], [], None), (STEPS[1:3], [ROUND], None)]
    assert sink.undelivered() == []


def test_an_error_is_raised_by_the_next_report_and_nothing_is_lost(clock):
    far = Far()
    sink = ReportSink(far, clock)
    far.error = CoordinatorLost("gone")
    emit(sink, clock, STEPS[0])
    sink.flush()
    assert sink.undelivered() == STEPS[:1], "a checkpoint is not held up, and has it"
    with pytest.raises(CoordinatorLost, match="gone"):
        emit(sink, clock, STEPS[1])
    assert sink.undelivered() == STEPS[:2]
    far.error = None
    sink.close()
    assert far.sent == [(STEPS[:2], [], None)] and sink.undelivered() == []


def test_the_end_waits_for_what_is_under_way_and_tells_its_error(clock):
    far = Far()
    sink = ReportSink(far, clock)
    emit(sink, clock, STEPS[0])
    sink.close()
    assert far.sent == [(STEPS[:1], [], None)]
    assert all(one.name != "reports" for one in threading.enumerate())
    far.error = CoordinatorLost("gone")
    emit(sink, clock, STEPS[1])
    with pytest.raises(CoordinatorLost, match="gone"):
        sink.close()
    assert sink.undelivered() == STEPS[1:2]


def test_a_checkpoint_waits_for_a_delivery_no_longer_than_for_a_call(clock, monkeypatch):
    monkeypatch.setattr(report_sink, "_WAITS_BRIEFLY_S", 0.0)
    far = Far(answers=0)
    sink = ReportSink(far, clock)
    emit(sink, clock, *STEPS[:2])
    sink.flush()
    sink.alive()
    assert far.sent == [] and sink.undelivered() == STEPS[:2]
    far.answers.release(2)
    sink.close()
    assert far.sent == [(STEPS[:1], [], None), (STEPS[1:2], [], None)]


def test_a_peer_that_evaluates_hears_of_a_stop_by_saying_so(clock):
    """Nothing else is sent meanwhile, so without this a stop waits for the end of an evaluation."""
    far = Far()
    sink = ReportSink(far, clock)
    sink.alive()
    assert far.sent == [([], [], None)] and not sink.stop_requested()
    far.stop = True
    sink.alive()
    assert sink.stop_requested()


def test_a_stop_that_a_step_report_hears_is_known(clock):
    far = Far()
    far.stop = True
    sink = ReportSink(far, clock)
    emit(sink, clock, STEPS[0])
    assert sink._is_settled(None) and sink.stop_requested()
