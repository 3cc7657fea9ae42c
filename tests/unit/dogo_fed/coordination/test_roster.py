"""The roster: name order, who is awaited, and which process speaks for a peer."""

from __future__ import annotations

import pytest

from dogo_fed.contracts import PeerId
from dogo_fed.coordination.roster import Roster
from dogo_fed.coordination.state import Membership
from dogo_fed.errors import Refused, StaleTicket
from tests.support.distributions import ADA, BOB, CAT


@pytest.fixture
def roster():
    return Roster([CAT, ADA, BOB], first_step=4)


def test_everybody_is_expected_at_first_and_listed_by_name(roster):
    assert roster.with_membership(Membership.EXPECTED) == [ADA, BOB, CAT]
    assert roster.awaited(4) == [ADA, BOB, CAT]
    assert roster[BOB].next_step == 4


@pytest.mark.parametrize(
    ("membership", "is_awaited"),
    [
        (Membership.EXPECTED, True),
        (Membership.PRESENT, True),
        (Membership.LOST, False),
        (Membership.DONE, False),
    ],
)
def test_only_who_may_still_come_is_awaited(roster, membership, is_awaited):
    roster[BOB].membership = membership
    assert (BOB in roster.awaited(4)) is is_awaited
    assert roster.with_membership(membership) == (
        [ADA, BOB, CAT] if membership is Membership.EXPECTED else [BOB]
    )


def test_a_peer_that_is_ahead_is_not_awaited(roster):
    roster[BOB].next_step = 6
    assert roster.awaited(5) == [ADA, CAT]
    assert roster.awaited(6) == [ADA, BOB, CAT]


def test_a_stranger_is_told_who_belongs_to_the_run(roster):
    with pytest.raises(Refused, match=r"no peer 'mallory' in this run.*'ada', 'bob', 'cat'"):
        roster[PeerId("mallory")]
    with pytest.raises(Refused, match="no peer 'mallory'"):
        roster.check_incarnation(PeerId("mallory"), "x")


def test_only_the_latest_process_speaks_for_a_peer(roster):
    with pytest.raises(StaleTicket, match="'ada' has not joined the run yet"):
        roster.check_incarnation(ADA, "first")
    roster[ADA].incarnation = "second"
    assert roster.check_incarnation(ADA, "second") is roster[ADA]
    with pytest.raises(StaleTicket, match="another process has joined as peer 'ada'"):
        roster.check_incarnation(ADA, "first")


def test_no_incarnation_is_nobody(roster):
    with pytest.raises(StaleTicket, match="has not joined"):
        roster.check_incarnation(ADA, "")
