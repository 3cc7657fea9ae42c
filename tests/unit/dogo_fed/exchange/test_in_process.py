"""The exchange inside one process: peers take turns, nothing travels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from dogo_fed.coordination.state import Membership
from dogo_fed.errors import ExchangeTimeout, MalformedDistribution, StaleTicket
from dogo_fed.exchange.base import Traffic
from dogo_fed.exchange.in_process import InProcessExchange
from tests.support.distributions import (
    ADA,
    BOB,
    WIRE,
    Clock,
    Meeting,
    distribution,
    settings,
    ticket,
)


@pytest.fixture
def clock():
    return Clock(1.0)


@pytest.fixture
def meeting():
    return Meeting(settings((ADA, BOB))).join_all(ADA, BOB)


@pytest.fixture
def ends(meeting, clock):
    return [
        InProcessExchange(meeting.coordinator, peer, f"{peer}-1", WIRE, clock)
        for peer in (ADA, BOB)
    ]


def test_who_collects_before_the_others_published_is_told_what_to_do(ends):
    ends[0].publish(ticket(0), distribution(0))
    with pytest.raises(ExchangeTimeout, match=r"step 0 is still open.*let all peers publish"):
        ends[0].collect(ticket(0))
    ends[1].publish(ticket(0), distribution(1))
    assert ends[0].collect(ticket(0)).teachers == (BOB,)


def test_the_other_ones_matrix_is_handed_over_without_a_copy(ends):
    given = [distribution(0), distribution(1)]
    for end, mine in zip(ends, given, strict=True):
        end.publish(ticket(0), mine)
    assert ends[0].collect(ticket(0)).mean_NN is given[1].p_NN


def test_what_is_published_is_checked_as_if_it_had_come_over_the_wire(ends, meeting):
    broken = dataclasses.replace(distribution(0), p_NN=distribution(0).p_NN * np.float32(2))
    with pytest.raises(MalformedDistribution, match="row 0 sums to 2"):
        ends[0].publish(ticket(0), broken)
    assert meeting.coordinator.next_deadline_s() is None, "the step was not opened"


def test_times_come_from_the_clock(ends, clock):
    ends[0].publish(ticket(0), distribution(0))
    clock.now_s = 5.5
    ends[1].publish(ticket(0), distribution(1))
    assert ends[0].collect(ticket(0)).waited_s == 4.5


def test_nothing_travels(ends):
    for seed, end in enumerate(ends):
        end.publish(ticket(0), distribution(seed))
    ends[0].collect(ticket(0))
    assert ends[0].last_traffic == Traffic(0, 0)


def test_close_leaves_once(ends, meeting):
    ends[0].close()
    assert meeting.coordinator.membership(ADA) is Membership.DONE
    meeting.join(ADA, 2.0, "ada-2")
    ends[0].close()
    assert meeting.coordinator.membership(ADA) is Membership.PRESENT


def test_an_end_of_a_superseded_process_is_stale(ends, meeting):
    meeting.join(ADA, 2.0, "ada-2")
    with pytest.raises(StaleTicket):
        ends[0].publish(ticket(0), distribution(0))
