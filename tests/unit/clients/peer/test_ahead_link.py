"""What is published ahead waits for its turn; what went wrong is told by whoever waits for it."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from clients.peer.ahead_link import AheadLink
from dogo_fed.contracts import TeacherSignal, Ticket
from dogo_fed.errors import CoordinatorLost, StaleTicket
from dogo_fed.exchange.base import Traffic
from dogo_fed.ledger import Ledger, Part, is_sampled, part
from tests.support.distributions import distribution

SAMPLED = next(filter(is_sampled, itertools.count()))


def ticket(step):
    return Ticket("run", 1, step, "")


class Far:
    """A coordinator that answers when a test lets it, and takes one step at a time."""

    def __init__(self) -> None:
        self.calls = []
        self.answers = threading.Semaphore(0)
        self.fails_at = {}
        self.last_traffic = Traffic()
        self.is_closed = False

    def publish(self, given, shown):
        assert not self.calls or self.calls[-1][0] == "collect", "one step at a time"
        self.calls.append(("publish", given.step))

    def collect(self, given):
        assert self.answers.acquire(timeout=20)
        self.calls.append(("collect", given.step))
        if given.step in self.fails_at:
            raise self.fails_at[given.step]
        self.last_traffic = Traffic(10 + given.step, 20 + given.step)
        return TeacherSignal(None, 0.0, (), given.step + 1)

    def close(self):
        self.is_closed = True


def test_the_next_step_is_published_before_the_last_is_answered_and_sent_after():
    far = Far()
    link = AheadLink(far)
    link.publish(ticket(0), distribution(0))
    link.publish(ticket(1), distribution(1))
    deadline_s = time.monotonic() + 20
    while not far.calls and time.monotonic() < deadline_s:
        time.sleep(0.001)
    assert far.calls == [("publish", 0)]
    far.answers.release()
    assert link.collect(ticket(0)).next_step == 1
    assert link.last_traffic == Traffic(10, 20), (
        "of the ticket that was collected, not of a later one"
    )
    far.answers.release()
    assert link.collect(ticket(1)).next_step == 2
    assert far.calls == [("publish", 0), ("collect", 0), ("publish", 1), ("collect", 1)]
    link.close()
    assert far.is_closed


def test_an_error_is_raised_where_its_answer_is_waited_for():
    far = Far()
    far.fails_at = {0: StaleTicket("too late"), 2: CoordinatorLost("gone")}
    link = AheadLink(far)
    for step in range(3):
        link.publish(ticket(step), distribution(step))
        far.answers.release()
    with pytest.raises(StaleTicket, match="too late"):
        link.collect(ticket(0))
    assert link.collect(ticket(1)).next_step == 2
    with pytest.raises(CoordinatorLost, match="gone"):
        link.collect(ticket(2))
    link.close()


def test_answers_to_steps_that_were_given_up_are_dropped():
    far = Far()
    link = AheadLink(far)
    for step in (0, 1, 7):
        link.publish(ticket(step), distribution(step))
        far.answers.release()
    assert link.collect(ticket(7)).next_step == 8
    link.close()
    link.close()


class Working(Far):
    """Its messages take time to be written and read."""

    def publish(self, given, shown):
        with part(Part.ENCODE):
            time.sleep(0.002)
        super().publish(given, shown)

    def collect(self, given):
        signal = super().collect(given)
        with part(Part.DECODE):
            time.sleep(0.001)
        return signal


def test_what_its_thread_encodes_and_decodes_is_in_the_peers_ledger():
    far, ledger = Working(), Ledger()
    link = AheadLink(far)
    for step in (SAMPLED, SAMPLED + 1):  # the second is not in the sample
        with ledger.step(step):
            link.publish(ticket(step), distribution(0))
        far.answers.release()
        with ledger.step(step):
            link.collect(ticket(step))
    link.close()
    found = ledger.mean_ms()
    assert ledger.num_steps == 1
    assert 3.0 <= found["beside"] < 1000 and found["encode"] == found["decode"] == 0.0
    assert [(one.part, one.step, one.is_beside) for one in ledger.spans] == [
        (Part.ENCODE, SAMPLED, True),
        (Part.DECODE, SAMPLED, True),
    ]
