"""Where peers go on: no step is lost or done twice that need not be, and nothing is unlinked."""

from __future__ import annotations

from pathlib import Path

import pytest

from dogo_fed.contracts import PeerId
from dogo_fed.errors import CheckpointError
from dogo_fed.storage.going_on import lost_at_the_end, starting_points

ADA, BOB, CAT = PeerId("ada"), PeerId("bob"), PeerId("cat")
WAYS_OUT = "type this"


class Store:
    """The checkpoints of a peer, of which some can't be read."""

    def __init__(self, steps, broken=()):
        self.folder = Path("there")
        self._steps, self._broken = steps, broken

    def steps(self):
        return sorted(self._steps)

    def problem_with(self, step):
        return f"checkpoint {step} is damaged" if step in self._broken else None


def every(k):
    return lambda step: -(-step // k) * k


def found(stores, k=1, has_trained=None, **lost_at):
    stores = {
        peer: Store(*one) if isinstance(one, tuple) else Store(one) for peer, one in stores.items()
    }
    trained = set(stores) if has_trained is None else has_trained
    return starting_points(stores, None if k is None else every(k), trained, WAYS_OUT, lost_at)


def kinds(points):
    return [(event.kind, event.peer) for event in points.events]


@pytest.mark.parametrize(
    ("ada", "bob", "step"),
    [
        ([10, 20], [10, 20], 20),
        ([10, 20], [20, 30], 20),
        ([5, 6], [4, 5], 5),
        ([0], [0], 0),
        ([0, 10], [0], 0),
        (([10, 20], [20]), [10, 20], 10),
    ],
)
def test_peers_that_exchange_go_on_from_the_newest_step_that_all_have(ada, bob, step):
    points = found({ADA: ada, BOB: bob})
    assert points.checkpoints == {ADA: step, BOB: step} and points.first_step == step
    assert "peer_late" not in [kind for kind, _ in kinds(points)]


def test_a_checkpoint_that_can_not_be_read_is_passed_over_and_that_is_said():
    points = found({ADA: ([10, 20], [20]), BOB: [10, 20]})
    assert kinds(points) == [("checkpoint_passed_over", ADA)]
    assert (
        "peer ada: checkpoint 20 is damaged; the one before it is taken" in points.events[0].message
    )


@pytest.mark.parametrize(
    ("ada", "bob", "goes_on"),
    [
        ([95, 97], [96, 99], (97, 99)),
        ([97, 100], [98, 101], (100, 98)),
        ([100], [100, 101], (100, 100)),
    ],
)
def test_between_two_exchanges_each_goes_on_from_its_own(ada, bob, goes_on):
    points = found({ADA: ada, BOB: bob}, k=100)
    assert tuple(points.checkpoints.values()) == goes_on
    assert points.first_step == min(goes_on)


def test_without_an_exchange_each_peer_goes_on_from_its_own_newest():
    points = found({ADA: [10, 40], BOB: [1000, 1010], CAT: ([3, 5], [5])}, k=None)
    assert points.checkpoints == {ADA: 40, BOB: 1010, CAT: 3}
    assert kinds(points) == [("checkpoint_passed_over", CAT)]


@pytest.mark.parametrize("lost", [[0, 10], [5, 10], list(range(11))])
def test_a_peer_that_was_lost_joins_late_and_the_others_lose_nothing(lost):
    points = found({ADA: [40, 50], BOB: [40, 50], CAT: lost})
    assert points.checkpoints == {ADA: 50, BOB: 50, CAT: 10} and points.first_step == 50
    assert kinds(points) == [("peer_late", CAT)]
    assert "the run goes on at step 50, and its newest checkpoint is of step 10" in (
        points.events[0].message
    )


@pytest.mark.parametrize(
    ("ada", "bob"),
    [
        ([10, 20, 30], ([10, 20], [20])),
        (([10, 20, 30], [30]), ([10, 20], [20])),
        (([10, 20], [20]), ([10, 20], [20])),
    ],
)
def test_a_peer_whose_newest_is_broken_was_in_step_and_nobody_misses_a_step(ada, bob):
    """Bob was killed before his checkpoint of step 30, and that of step 20 can't be read."""
    points = found({ADA: ada, BOB: bob})
    assert points.checkpoints == {ADA: 10, BOB: 10} and points.first_step == 10
    assert {kind for kind, _ in kinds(points)} == {"checkpoint_passed_over"}


def test_where_no_state_can_be_read_by_all_whoever_is_behind_joins_late():
    points = found({ADA: [20, 30], BOB: ([10, 20], [20])})
    assert points.checkpoints == {ADA: 30, BOB: 10} and points.first_step == 30
    assert kinds(points) == [("checkpoint_passed_over", BOB), ("peer_late", BOB)]


def test_that_many_checkpoints_are_kept_does_not_send_the_others_back():
    points = found({ADA: range(0, 51, 10), BOB: [0, 10]}, bob=14)
    assert points.checkpoints == {ADA: 50, BOB: 10} and points.first_step == 50


@pytest.mark.parametrize("lost_at", [{}, {"bob": 150}, {"ada": 150, "bob": 150}])
def test_who_had_no_room_for_later_checkpoints_was_in_step_and_nobody_misses_a_step(lost_at):
    """The disk was full, and had room again for the last checkpoint of the smaller peer alone."""
    points = found({ADA: [30, 40, 150], BOB: [20, 30, 40]}, **lost_at)
    assert points.checkpoints == {ADA: 40, BOB: 40} and points.events == ()
    assert found({ADA: [30, 40, 150], BOB: [20, 30, 40]}, bob=149).checkpoints == {
        ADA: 150,
        BOB: 40,
    }


def test_who_was_lost_between_two_exchanges_has_missed_none():
    """An exchange was at step 100, the next is at 200. The events of a loss say 101."""
    both = found({ADA: [100, 150], BOB: [100, 140]}, k=100, ada=101, bob=101)
    assert both.checkpoints == {ADA: 150, BOB: 140} and both.events == ()
    one = found({ADA: [140, 150], BOB: [130, 140]}, k=100, bob=101)
    assert one.checkpoints == {ADA: 150, BOB: 140} and one.events == ()
    gone = found({ADA: [190, 250], BOB: [130, 190]}, k=100, bob=101)
    assert gone.checkpoints == {ADA: 250, BOB: 190} and kinds(gone) == [("peer_late", BOB)]


def test_where_all_were_lost_at_different_steps_the_one_that_got_furthest_goes_on():
    points = found({ADA: [10, 20], BOB: [20, 30]}, ada=22, bob=31)
    assert points.checkpoints == {ADA: 20, BOB: 30} and kinds(points) == [("peer_late", ADA)]
    assert found({ADA: [10, 20], BOB: [10, 20]}, ada=15, bob=15).first_step == 20


def test_a_late_peer_does_not_send_the_others_back_until_it_has_saved_itself():
    """It was lost at step 21, and the run went on at 40 and was killed again."""
    stores = {ADA: [20, 30, 40], BOB: [10, 20]}
    assert found(stores, bob=21).checkpoints == {ADA: 40, BOB: 20}
    saved = found({ADA: [40, 50, 60], BOB: [20, 50]}, bob=21)
    assert saved.checkpoints == {ADA: 50, BOB: 50} and saved.events == ()


def test_a_checkpoint_of_a_time_that_was_given_up_keeps_nobody_from_going_on():
    """All went back from 120 to 100, and Bob never came. His 120 is of the time before."""
    points = found({ADA: [105, 110, 115], BOB: [100, 120]}, bob=100)
    assert points.checkpoints == {ADA: 115, BOB: 100} and kinds(points) == [("peer_late", BOB)]


def test_who_was_lost_at_the_end_is_told_by_the_events():
    def event(kind, peer=None, step=7):
        return {"type": "event", "kind": kind, "peer": peer, "step": step}

    lost, back = event("peer_lost", "bob"), event("peer_rejoined", "bob")
    assert lost_at_the_end([]) == {}
    assert lost_at_the_end([lost]) == {"bob": 7}
    assert lost_at_the_end([lost, back]) == {}
    assert lost_at_the_end([lost, back, event("peer_lost", "bob", 9)]) == {"bob": 9}
    assert lost_at_the_end([lost, event("resumed", None, 5), event("peer_lost", "ada")]) == {
        "ada": 7
    }
    late = event("peer_late", "bob", 40)
    assert lost_at_the_end([lost, event("resumed", None, 40), late]) == {"bob": 7}
    assert lost_at_the_end([event("resumed", None, 40), late]) == {"bob": 40}
    assert lost_at_the_end([lost, event("resumed", None, 40), late, back]) == {}


def test_a_peer_that_never_began_joins_late_from_the_beginning():
    points = found({ADA: [40, 50], BOB: []}, has_trained={ADA})
    assert points.checkpoints == {ADA: 50, BOB: None} and points.first_step == 50
    assert kinds(points) == [("peer_late", BOB)]


def test_a_run_that_was_killed_before_anybody_trained_begins_again():
    assert found({ADA: [0], BOB: []}, has_trained=()).checkpoints == {ADA: 0, BOB: None}
    assert found({ADA: [], BOB: []}, has_trained=()).first_step == 0


@pytest.mark.parametrize("k", [1, 3, None])
@pytest.mark.parametrize("of_bob", [[], ([10, 20], [10, 20])])
def test_missing_checkpoints_are_an_error_that_says_whose_where_and_what_to_type(k, of_bob):
    with pytest.raises(CheckpointError) as caught:
        found({ADA: [10, 20], BOB: of_bob}, k=k)
    message = str(caught.value)
    assert "peer bob has no checkpoint" in message and "in there" in message
    assert "ada has 10, 20" in message and message.endswith(WAYS_OUT)


def test_what_the_others_have_is_listed_one_after_the_other():
    with pytest.raises(CheckpointError, match=r"\(ada has 10; cat has 10, 20\)"):
        found({ADA: [10], BOB: [], CAT: [10, 20]})


def test_where_no_peer_has_what_it_trained_it_is_an_error_too():
    with pytest.raises(CheckpointError, match=r"peer ada has no checkpoint.* and peer bob has no"):
        found({ADA: [], BOB: []})


def test_checkpoints_of_no_common_state_are_an_error():
    with pytest.raises(CheckpointError, match=r"ada: 20; bob: 19, 21"):
        found({ADA: [20], BOB: [19, 21]})
