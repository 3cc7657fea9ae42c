"""The coordinator's state machine, with the clock in the test's hand."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dogo_fed.contracts import PeerId
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.coordination.state import Membership
from dogo_fed.errors import Refused, SchemaMismatch, StaleTicket
from tests.support.distributions import (
    ADA,
    AGREEMENT,
    BOB,
    CAT,
    SIZE,
    Meeting,
    both_ways,
    distribution,
    every,
    seed_of,
    settings,
    ticket,
)

ALL = (ADA, BOB, CAT)


@pytest.fixture
def meeting():
    """All three have joined at 0 s; deadline 10 s, join deadline 100 s."""
    return Meeting().join_all()


def run_step(meeting, step, peers=ALL, now_s=0.0):
    for peer in peers:
        meeting.offer(peer, step, now_s)


# ---- joining ----


def refusal(agreement):
    with pytest.raises(SchemaMismatch) as caught:
        Meeting().coordinator.join(ADA, "ada-1", agreement, 0.0)
    return str(caught.value)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("protocol_version", "protocol_version"),
        ("source_digest", "source_digest"),
        ("data_fingerprint", "data_fingerprint"),
        ("config.batch_size", "batch_size"),
        ("config.seed", "seed"),
        ("config.deadline_s", "deadline_s"),
        ("config.peers", "peers"),
        ("configuration_hash", "configuration_hash"),
    ],
)
def test_a_refusal_names_what_differs_with_both_values(key, shown):
    message = refusal({**AGREEMENT, key: "else"})
    assert f"{shown} is else at peer ada and {AGREEMENT[key]} at the coordinator" in message
    for other in {"protocol_version", "source_digest", "data_fingerprint", "seed"} - {shown}:
        assert f"{other} is" not in message


def test_several_differences_are_named_at_once_without_the_hash_that_sums_them_up():
    theirs = {"config.seed": "7", "config.batch_size": "9", "configuration_hash": "zzz"}
    message = refusal({**AGREEMENT, **theirs})
    assert "seed is 7 at peer ada and 0 at the coordinator" in message
    assert f"batch_size is 9 at peer ada and {SIZE} at the coordinator" in message
    assert "zzz" not in message


def test_what_one_side_lacks_is_called_missing():
    without = {key: value for key, value in AGREEMENT.items() if key != "source_digest"}
    assert "source_digest is missing at peer ada and 5c0ffee" in refusal(without)
    extra = {**AGREEMENT, "config.wings": "2"}
    assert "wings is 2 at peer ada and missing at the coordinator" in refusal(extra)


def test_a_flood_of_differences_is_summed_up_and_long_values_are_cut():
    flood = {f"config.extra{number}": "x" * 5000 for number in range(50)}
    message = refusal({**AGREEMENT, **flood})
    assert "and 45 more differ" in message
    assert len(message) < 1000


def test_a_refused_peer_is_not_in_and_may_come_back_with_the_right_settings():
    meeting = Meeting()
    with pytest.raises(SchemaMismatch):
        meeting.coordinator.join(ADA, "ada-1", {**AGREEMENT, "config.seed": "7"}, 0.0)
    assert meeting.coordinator.membership(ADA) is Membership.EXPECTED
    with pytest.raises(StaleTicket, match="has not joined"):
        meeting.offer(ADA, 0)
    assert meeting.join(ADA) == 0
    assert meeting.coordinator.membership(ADA) is Membership.PRESENT


def test_a_stranger_is_refused_by_name():
    with pytest.raises(Refused, match=r"no peer 'mallory' in this run; .*'ada', 'bob', 'cat'"):
        Meeting().join(PeerId("mallory"))


def test_a_process_without_a_name_of_its_own_is_not_let_in():
    meeting = Meeting()
    with pytest.raises(Refused, match="incarnation"):
        meeting.coordinator.join(ADA, "", AGREEMENT, 0.0)


def test_joining_twice_changes_nothing(meeting):
    run_step(meeting, 0)
    assert meeting.join(ADA, 3.0) == 1
    assert meeting.events == []


def test_a_resumed_run_goes_on_at_its_first_step():
    meeting = Meeting(settings(first_step=40))
    assert meeting.join(ADA) == 40
    assert meeting.coordinator.next_open_step == 40


# ---- a step ----


def test_a_step_closes_when_the_last_one_has_contributed(meeting):
    coordinator = meeting.coordinator
    given = [meeting.offer(ADA, 0, 1.0), meeting.offer(BOB, 0, 2.0)]
    assert coordinator.answer(ADA, 0) is None and coordinator.next_open_step == 0
    given.append(meeting.offer(CAT, 0, 5.0))
    assert coordinator.next_open_step == 1
    signal = coordinator.answer(BOB, 0)
    expected_NN = (given[0].p_NN + given[2].p_NN) * np.float32(0.5)
    assert signal.mean_NN.tobytes() == expected_NN.tobytes()
    assert signal.teachers == (ADA, CAT)
    assert (signal.next_step, signal.stop, signal.waited_s) == (1, False, 3.0)
    assert meeting.events == []


def test_the_order_of_arrival_changes_no_bit_of_any_answer():
    found = set()
    for order in itertools.permutations(ALL):
        meeting = Meeting().join_all()
        run_step(meeting, 0, order)
        signals = [meeting.coordinator.answer(peer, 0) for peer in ALL]
        found.add(tuple((s.mean_NN.tobytes(), s.negative_entropy, s.teachers) for s in signals))
    assert len(found) == 1


def test_a_repeated_offer_changes_nothing(meeting):
    run_step(meeting, 0)
    before = meeting.coordinator.answer(BOB, 0)
    meeting.offer(ADA, 0, 8.0)
    after = meeting.coordinator.answer(BOB, 0)
    assert np.array_equal(before.mean_NN, after.mean_NN)
    assert before.waited_s == after.waited_s and before.teachers == after.teachers
    assert meeting.coordinator.next_open_step == 1 and meeting.events == []


@pytest.mark.parametrize("is_closed", [False, True])
def test_another_value_for_the_same_step_is_stale(meeting, is_closed):
    meeting.offer(ADA, 0)
    if is_closed:
        run_step(meeting, 0, (BOB, CAT))
    with pytest.raises(StaleTicket, match=r"'ada' has already published another .* step 0"):
        meeting.offer(ADA, 0, seed=99)
    run_step(meeting, 0, (BOB, CAT))
    assert meeting.coordinator.answer(BOB, 0).teachers == (ADA, CAT)


def offered(meeting, given_ticket, given=None):
    meeting.coordinator.offer(ADA, "ada-1", given_ticket, given or distribution(0), 0.0)


@pytest.mark.parametrize("step", [1, 2, 999_999])
def test_a_future_step_is_stale_and_the_open_one_is_named(meeting, step):
    with pytest.raises(StaleTicket, match=f"offers step {step}, but step 0 is open"):
        offered(meeting, ticket(step))


@pytest.mark.parametrize("step", [1_000_000, 2**64 - 1])
def test_a_step_beyond_the_run_is_stale_and_its_images_are_not_looked_for(step):
    """A digest far away costs a permutation of the whole data set."""
    asked = []
    given = dataclasses.replace(settings(), batch_digest=lambda step: asked.append(step) or "")
    with pytest.raises(StaleTicket, match=f"offers step {step}, but the run ends after 1000000"):
        offered(Meeting(given).join_all(), ticket(step))
    assert asked == []


def test_another_run_is_told_apart(meeting):
    with pytest.raises(SchemaMismatch, match="speaks of run 'run-2', this is run 'run-1'"):
        offered(meeting, ticket(0, run_id="run-2"))


def test_other_images_are_told_apart_and_the_message_says_what_to_check(meeting):
    with pytest.raises(
        SchemaMismatch,
        match=r"other images at step 0.*'cats'.*'images-of-step-0'.*seed, data set and batch size",
    ):
        offered(meeting, ticket(0, digest="cats"))


def test_a_refused_offer_leaves_the_step_as_it_was(meeting):
    for wrong in (ticket(0, run_id="run-2"), ticket(0, digest="cats"), ticket(1)):
        with pytest.raises(Refused):
            offered(meeting, wrong)
    run_step(meeting, 0, (BOB, CAT))
    assert meeting.coordinator.next_open_step == 0
    assert meeting.coordinator.next_deadline_s() == 10.0
    meeting.offer(ADA, 0, 1.0)
    assert meeting.coordinator.answer(BOB, 0).teachers == (ADA, CAT)


def test_who_has_not_joined_may_not_offer():
    meeting = Meeting()
    with pytest.raises(StaleTicket, match="'ada' has not joined the run yet"):
        meeting.offer(ADA, 0)


# ---- deadlines ----


def test_the_silent_peer_is_lost_exactly_at_the_deadline_and_the_others_are_answered(meeting):
    coordinator = meeting.coordinator
    run_step(meeting, 0, (ADA,), 5.0)
    run_step(meeting, 0, (BOB,), 9.0)
    assert coordinator.next_deadline_s() == 15.0
    coordinator.tick(np.nextafter(15.0, 0.0))
    assert coordinator.answer(ADA, 0) is None and meeting.events == []
    coordinator.tick(15.0)
    signal = coordinator.answer(ADA, 0)
    assert signal.teachers == (BOB,) and signal.waited_s == 10.0
    assert coordinator.membership(CAT) is Membership.LOST
    assert meeting.told() == [("peer_lost", "cat", 0, 15.0)]
    assert meeting.events[0].message == "peer cat missed the deadline of 10 s at step 0"


def test_times_in_events_count_from_the_coordinators_start():
    meeting = Meeting(now_s=1000.0).join_all(now_s=1001.0)
    run_step(meeting, 0, (ADA, BOB), 1002.0)
    meeting.coordinator.tick(1012.0)
    assert meeting.told() == [("peer_lost", "cat", 0, 12.0)]


def test_the_time_of_an_evaluation_is_not_the_time_of_a_step(meeting):
    coordinator = meeting.coordinator
    run_step(meeting, 0, (ADA, BOB), 5.0)
    for now_s in (14.0, 23.0, 32.0):
        assert coordinator.note_evaluation(CAT, now_s)
        coordinator.tick(now_s)
    assert coordinator.next_deadline_s() == 42.0
    coordinator.tick(41.9)
    assert coordinator.answer(ADA, 0) is None and meeting.events == []
    coordinator.tick(42.0)
    assert meeting.told() == [("peer_lost", "cat", 0, 42.0)]


def test_a_coordinator_that_goes_on_blames_nobody_for_the_time_before(meeting):
    coordinator = meeting.coordinator
    run_step(meeting, 0, (ADA, BOB), 5.0)
    for now_s in (14.0, 23.0, 32.0):
        assert coordinator.note_evaluation(CAT, now_s)
    state, events = coordinator.snapshot(33.0), []
    again = Coordinator.restored(settings(), state, 1000.0, events.append)
    again.tick(1000.0)
    assert events == [] and again.next_deadline_s() == 1010.0
    again.tick(1010.0)
    assert [event.kind for event in events] == ["peer_lost"]


def test_an_evaluation_may_not_take_for_ever():
    meeting = Meeting(settings(deadline_s=10.0, evaluation_deadline_s=30.0)).join_all()
    coordinator = meeting.coordinator
    run_step(meeting, 0, (ADA, BOB), 0.0)
    assert [coordinator.note_evaluation(CAT, now_s) for now_s in (5.0, 35.0, 35.1)] == [
        True,
        True,
        False,
    ]
    assert coordinator.next_deadline_s() == 45.0


@pytest.mark.parametrize("by", ["a step", "an offer", "a new start"])
def test_the_next_evaluation_has_its_own_time(by):
    given = settings((ADA,), evaluation_deadline_s=30.0, steps_per_round=1)
    meeting = Meeting(given).join_all(ADA)
    coordinator = meeting.coordinator
    assert coordinator.note_evaluation(ADA, 0.0) and not coordinator.note_evaluation(ADA, 31.0)
    if by == "a step":
        coordinator.note_step(ADA)
    elif by == "an offer":
        meeting.offer(ADA, 0, 31.0)
    else:
        meeting.join(ADA, 31.0, "ada-2")
    assert coordinator.note_evaluation(ADA, 32.0)


@pytest.mark.parametrize("every_steps", [1, 3])
def test_in_the_middle_of_a_round_nothing_is_evaluated_and_nobody_is_waited_for(every_steps):
    """Else a peer could stop the others for hours at every step."""
    given = settings((ADA,), every_steps=every_steps, steps_per_round=8, total_steps=16)
    meeting = Meeting(given).join_all(ADA)
    coordinator = meeting.coordinator
    steps = [step for step in range(16) if step % every_steps == 0]
    granted = {-1: coordinator.note_evaluation(ADA, 0.0)}
    for step in steps:
        meeting.offer(ADA, step, 1.0)
        granted[step] = coordinator.note_evaluation(ADA, 1.0)
    allowed = [step for step, is_granted in granted.items() if is_granted]
    assert allowed == ([-1, 7, 15] if every_steps == 1 else [-1, 6, 15])


def test_a_time_in_which_the_coordinator_did_not_run_counts_for_no_deadline():
    meeting = Meeting().join_all(ADA, BOB)
    coordinator = meeting.coordinator
    run_step(meeting, 0, (ADA,), 95.0)
    coordinator.excuse(60.0, 156.0)
    coordinator.tick(156.0)
    assert meeting.events == []
    coordinator.tick(159.9)
    assert meeting.events == [] and coordinator.next_deadline_s() == 160.0
    coordinator.tick(160.0)
    assert meeting.told() == [("peer_lost", "cat", 0, 160.0)]
    coordinator.tick(166.0)
    assert [event.peer for event in meeting.events] == ["cat", "bob"]


def test_several_silent_peers_are_lost_at_once(meeting):
    meeting.offer(ADA, 0, 5.0)
    meeting.coordinator.tick(15.0)
    signal = meeting.coordinator.answer(ADA, 0)
    assert signal.mean_NN is None and signal.teachers == () and signal.next_step == 1
    assert [event.peer for event in meeting.events] == ["bob", "cat"]


def test_who_never_joins_is_lost_at_the_join_deadline_whether_or_not_anybody_waits():
    meeting = Meeting().join_all(ADA)
    coordinator = meeting.coordinator
    assert coordinator.next_deadline_s() == 100.0
    coordinator.tick(99.9)
    assert meeting.events == []
    coordinator.tick(100.0)
    assert meeting.told() == [("peer_lost", "bob", 0, 100.0), ("peer_lost", "cat", 0, 100.0)]
    assert "has not joined within 100 s" in meeting.events[0].message
    meeting.offer(ADA, 0, 101.0)
    assert coordinator.answer(ADA, 0).teachers == ()


def test_the_step_waits_for_who_may_still_join():
    meeting = Meeting().join_all(ADA, BOB)
    run_step(meeting, 0, (ADA, BOB), 1.0)
    meeting.coordinator.tick(99.0)
    assert meeting.coordinator.answer(ADA, 0) is None
    meeting.coordinator.tick(100.0)
    assert meeting.coordinator.answer(ADA, 0).teachers == (BOB,)


def test_who_joins_late_has_the_full_deadline_for_its_first_step():
    meeting = Meeting().join_all(ADA, BOB)
    coordinator = meeting.coordinator
    run_step(meeting, 0, (ADA, BOB), 1.0)
    coordinator.tick(80.0)
    meeting.join(CAT, 80.0)
    assert coordinator.next_deadline_s() == 90.0
    coordinator.tick(np.nextafter(90.0, 0.0))
    assert coordinator.membership(CAT) is Membership.PRESENT
    meeting.offer(CAT, 0, 89.0)
    assert coordinator.answer(ADA, 0).teachers == (BOB, CAT)
    # From its second step on, the deadline counts for it as for everybody.
    run_step(meeting, 1, (ADA, BOB), 90.0)
    assert coordinator.next_deadline_s() == 100.0


def test_late_joiners_can_not_draw_a_wait_beyond_both_deadlines():
    """The service holds an exchange back for deadline_s + join_deadline_s, then it breaks off."""
    meeting = Meeting(settings(deadline_s=10.0, join_deadline_s=2.0)).join_all(ADA, BOB)
    coordinator = meeting.coordinator
    coordinator.tick(2.0)  # cat is lost before it has ever joined
    meeting.offer(ADA, 0, 3.0)
    meeting.join(CAT, 12.0)
    coordinator.tick(13.0)
    assert coordinator.membership(BOB) is Membership.LOST
    assert coordinator.next_deadline_s() is None or coordinator.next_deadline_s() <= 15.0
    coordinator.tick(15.0)
    assert coordinator.answer(ADA, 0) is not None


def test_nothing_is_due_where_nobody_is_waited_for(meeting):
    coordinator = meeting.coordinator
    assert coordinator.next_deadline_s() is None
    meeting.offer(ADA, 0, 3.0)
    assert coordinator.next_deadline_s() == 13.0
    run_step(meeting, 0, (BOB, CAT), 4.0)
    assert coordinator.next_deadline_s() is None


def test_who_was_lost_is_not_waited_for_and_goes_on_when_heard_of_again(meeting):
    coordinator = meeting.coordinator
    run_step(meeting, 0, (ADA, BOB))
    coordinator.tick(10.0)
    run_step(meeting, 1, (ADA, BOB), 11.0)
    assert coordinator.next_open_step == 2
    run_step(meeting, 2, (CAT,), 12.0)
    assert coordinator.membership(CAT) is Membership.PRESENT
    assert meeting.told()[1:] == [("peer_rejoined", "cat", 2, 12.0)]
    run_step(meeting, 2, (ADA, BOB), 13.0)
    assert coordinator.answer(ADA, 2).teachers == (BOB, CAT)
    run_step(meeting, 3, (ADA, BOB), 14.0)
    assert coordinator.answer(ADA, 3) is None, "it is waited for again"


def test_who_joins_after_it_was_given_up_is_announced():
    meeting = Meeting().join_all(ADA, BOB)
    meeting.coordinator.tick(100.0)
    meeting.join(CAT, 130.0)
    assert meeting.coordinator.membership(CAT) is Membership.PRESENT
    assert [event.kind for event in meeting.events if event.peer == "cat"] == [
        "peer_lost",
        "peer_rejoined",
    ]


def test_a_late_contribution_gets_the_closed_mean_and_the_open_step(meeting):
    coordinator = meeting.coordinator
    given = [meeting.offer(ADA, 0), meeting.offer(BOB, 0)]
    coordinator.tick(10.0)
    run_step(meeting, 1, (ADA, BOB), 11.0)
    before = coordinator.answer(ADA, 0)
    meeting.offer(CAT, 0, 12.0)
    signal = coordinator.answer(CAT, 0)
    expected_NN = (given[0].p_NN + given[1].p_NN) * np.float32(0.5)
    assert signal.mean_NN.tobytes() == expected_NN.tobytes()
    assert signal.teachers == (ADA, BOB)
    assert (signal.next_step, signal.waited_s) == (2, 0.0)
    assert coordinator.answer(ADA, 0).teachers == before.teachers == (BOB,)
    assert meeting.told()[1:] == [("peer_rejoined", "cat", 2, 12.0)]
    assert "came late to step 0 and goes on with step 2" in meeting.events[-1].message


def test_a_step_closed_long_ago_gives_no_mean_but_says_where_to_go_on(meeting):
    run_step(meeting, 0, (ADA, BOB))
    meeting.coordinator.tick(10.0)
    for step in range(1, 6):
        run_step(meeting, step, (ADA, BOB), 11.0)
    meeting.offer(CAT, 0, 12.0)
    signal = meeting.coordinator.answer(CAT, 0)
    assert signal.mean_NN is None and signal.teachers == () and signal.next_step == 6


def test_the_coordinator_keeps_no_more_than_the_last_matrices(meeting):
    import gc
    import weakref

    given = []
    for step in range(8):
        for peer in ALL:
            given.append(weakref.ref(meeting.offer(peer, step).p_NN))
    gc.collect()
    alive = [index // len(ALL) for index, matrix in enumerate(given) if matrix() is not None]
    assert set(alive) <= {6, 7}


# ---- processes that come back ----


def test_a_new_process_supersedes_the_old_one(meeting):
    coordinator = meeting.coordinator
    run_step(meeting, 0)
    assert meeting.join(ADA, 5.0, "ada-2") == 1
    assert meeting.told() == [("peer_rejoined", "ada", 1, 5.0)]
    old = (
        lambda: meeting.offer(ADA, 1, 6.0),
        lambda: coordinator.leave(ADA, "ada-1", 6.0),
        lambda: coordinator.check_sender(ADA, "ada-1"),
    )
    for call in old:
        with pytest.raises(StaleTicket, match="another process has joined as peer 'ada'"):
            call()
    assert coordinator.membership(ADA) is Membership.PRESENT
    meeting.offer(ADA, 1, 6.0, incarnation="ada-2")
    coordinator.check_sender(ADA, "ada-2")


def test_a_new_process_goes_on_with_the_open_step(meeting):
    run_step(meeting, 0)
    meeting.coordinator.lose(ADA, "died", 1.0)
    for step in (1, 2):
        run_step(meeting, step, (BOB, CAT), 2.0)
    assert meeting.join(ADA, 3.0, "ada-2") == 3
    run_step(meeting, 3, (BOB, CAT), 4.0)
    assert meeting.coordinator.answer(BOB, 3) is None
    meeting.offer(ADA, 3, 5.0, incarnation="ada-2")
    assert meeting.coordinator.answer(BOB, 3).teachers == (ADA, CAT)


def test_a_new_process_may_publish_its_own_value_for_the_step_its_dead_one_left_open(meeting):
    """It goes on from a checkpoint, so its numbers need not be those of the process that died."""
    coordinator = meeting.coordinator
    meeting.offer(ADA, 0, 1.0)
    coordinator.lose(ADA, "died", 2.0)
    assert meeting.join(ADA, 3.0, "ada-2") == 0
    mine = meeting.offer(ADA, 0, 4.0, seed=99, incarnation="ada-2")
    other = meeting.offer(CAT, 0, 5.0)
    meeting.offer(BOB, 0, 6.0)
    expected_NN = (mine.p_NN + other.p_NN) * np.float32(0.5)
    assert coordinator.answer(BOB, 0).mean_NN.tobytes() == expected_NN.tobytes()


def test_losing_a_peer_closes_the_step_that_waited_for_it_only_once(meeting):
    coordinator = meeting.coordinator
    run_step(meeting, 0, (ADA, BOB), 1.0)
    coordinator.lose(CAT, "died of SIGKILL", 2.0)
    assert coordinator.answer(ADA, 0).teachers == (BOB,)
    coordinator.lose(CAT, "died of SIGKILL", 3.0)
    assert meeting.told() == [("peer_lost", "cat", 0, 2.0)]
    assert meeting.events[0].message == "peer cat died of SIGKILL"


def test_what_a_lost_peer_gave_before_still_counts(meeting):
    meeting.offer(CAT, 0, 1.0)
    meeting.coordinator.lose(CAT, "died", 2.0)
    run_step(meeting, 0, (ADA, BOB), 3.0)
    assert meeting.coordinator.answer(ADA, 0).teachers == (BOB, CAT)


# ---- leaving and stopping ----


def test_who_has_left_is_not_waited_for_and_is_not_lost(meeting):
    coordinator = meeting.coordinator
    run_step(meeting, 0, (ADA, BOB), 1.0)
    coordinator.leave(CAT, "cat-1", 2.0)
    assert coordinator.answer(ADA, 0).teachers == (BOB,)
    coordinator.leave(CAT, "cat-1", 3.0)
    coordinator.lose(CAT, "process ended", 4.0)
    assert coordinator.membership(CAT) is Membership.DONE
    assert meeting.events == []


@pytest.mark.parametrize("step", [0, 1])
def test_who_has_left_does_not_come_back_by_a_delayed_message(meeting, step):
    """Else the others would wait a whole deadline for somebody who has gone home."""
    run_step(meeting, 0, (ADA, BOB))
    meeting.coordinator.leave(CAT, "cat-1", 2.0)
    with pytest.raises(StaleTicket, match="'cat' has left"):
        meeting.offer(CAT, step, 3.0)
    assert meeting.coordinator.membership(CAT) is Membership.DONE


def test_a_stop_ends_all_peers_of_the_step_that_closes_next(meeting):
    coordinator = meeting.coordinator
    run_step(meeting, 0)
    meeting.offer(ADA, 1, 1.0)
    coordinator.stop("stopped by the user", 2.0)
    coordinator.stop("stopped by the user", 3.0)
    assert coordinator.stop_requested
    run_step(meeting, 1, (BOB, CAT), 4.0)
    assert all(coordinator.answer(peer, 1).stop for peer in ALL)
    assert not any(coordinator.answer(peer, 0).stop for peer in ALL), "closed before"
    assert meeting.told() == [("stopped", "", 1, 2.0)]


def test_a_stop_after_the_close_does_not_reach_back(meeting):
    run_step(meeting, 0)
    meeting.coordinator.stop("stopped", 1.0)
    assert [meeting.coordinator.answer(peer, 0).stop for peer in ALL] == [False] * 3


def test_the_kept_answer_of_a_step_does_not_change_while_others_go_on(meeting):
    coordinator = meeting.coordinator
    run_step(meeting, 0)
    before = coordinator.answer(ADA, 0)
    run_step(meeting, 1)
    coordinator.stop("stopped", 2.0)
    after = coordinator.answer(ADA, 0)
    assert before.mean_NN.tobytes() == after.mean_NN.tobytes()
    assert dataclasses.replace(before, mean_NN=None) == dataclasses.replace(after, mean_NN=None)


def test_an_event_that_can_not_be_written_does_not_keep_the_others_waiting():
    def disk_full(event):
        raise OSError("no space left")

    coordinator = Coordinator(settings(), 0.0, disk_full)
    for peer in ALL:
        coordinator.join(peer, f"{peer}-1", AGREEMENT, 0.0)
    for peer in (ADA, BOB):
        coordinator.offer(peer, f"{peer}-1", ticket(0), distribution(seed_of(peer, 0)), 1.0)
    try:
        coordinator.tick(11.0)
    except OSError:
        coordinator.tick(11.0)
    assert coordinator.answer(ADA, 0) is not None


# ---- both view directions ----


def test_two_directions_are_averaged_each_by_itself():
    meeting = Meeting(make=both_ways).join_all()
    given = [meeting.offer(peer, 0) for peer in ALL]
    signal = meeting.coordinator.answer(BOB, 0)
    for got, sent in (
        (signal.mean_NN, [one.p_NN for one in given]),
        (signal.reverse.p_NN, [one.reverse.p_NN for one in given]),
    ):
        assert got.tobytes() == ((sent[0] + sent[2]) * np.float32(0.5)).tobytes()


# ---- every k-th step ----


@pytest.fixture
def rare():
    """All three have joined at 0 s; they exchange at the steps 0, 3, 6, ..."""
    return Meeting(settings(every_steps=3)).join_all()


def test_only_steps_that_exchange_are_waited_for(rare):
    run_step(rare, 0)
    assert rare.coordinator.answer(ADA, 0).next_step == 1
    assert (rare.coordinator.next_step, rare.coordinator.next_open_step) == (1, 3)
    assert rare.coordinator.next_deadline_s() is None, "nobody waits between two exchanges"
    run_step(rare, 3, now_s=500.0)
    assert rare.coordinator.answer(ADA, 3).teachers == (BOB, CAT)
    assert rare.coordinator.next_open_step == 6
    assert rare.events == []


@pytest.mark.parametrize("step", [1, 2, 4, 5])
def test_a_step_that_does_not_exchange_has_no_ticket(rare, step):
    run_step(rare, 0)
    with pytest.raises(SchemaMismatch, match=rf"offers step {step}, .*exchange.every_steps"):
        rare.offer(ADA, step)


@pytest.mark.parametrize(("first_step", "open_step"), [(0, 0), (1, 3), (2, 3), (3, 3), (4, 6)])
def test_a_run_that_goes_on_between_two_exchanges_opens_the_next_one(first_step, open_step):
    meeting = Meeting(settings(every_steps=3, first_step=first_step))
    assert meeting.join(ADA) == first_step
    meeting.join_all(BOB, CAT)
    assert meeting.coordinator.next_open_step == open_step
    run_step(meeting, open_step)
    assert meeting.coordinator.answer(ADA, open_step).teachers == (BOB, CAT)


def test_a_new_process_goes_on_after_the_last_exchange_and_is_waited_for(rare):
    run_step(rare, 0)
    rare.coordinator.lose(ADA, "died", 1.0)
    run_step(rare, 3, (BOB, CAT), 2.0)
    assert rare.join(ADA, 3.0, "ada-2") == 4
    run_step(rare, 6, (BOB, CAT), 4.0)
    assert rare.coordinator.answer(BOB, 6) is None
    rare.offer(ADA, 6, 5.0, incarnation="ada-2")
    assert rare.coordinator.answer(BOB, 6).teachers == (ADA, CAT)


def test_who_comes_late_goes_on_after_the_last_exchange(rare):
    run_step(rare, 0, (ADA, BOB))
    rare.coordinator.tick(10.0)
    run_step(rare, 3, (ADA, BOB), 11.0)
    rare.offer(CAT, 0, 12.0)
    late = rare.coordinator.answer(CAT, 0)
    assert late.teachers == (ADA, BOB) and late.next_step == 4
    assert "came late to step 0 and goes on with step 4" in rare.events[-1].message
    run_step(rare, 6, (ADA, BOB), 13.0)
    assert rare.coordinator.answer(ADA, 6) is None, "it is waited for again"


def test_the_last_two_exchanges_are_kept_however_far_apart(rare):
    for step in (0, 3, 6):
        run_step(rare, step)
    teachers = [rare.coordinator.answer(ADA, step).teachers for step in (0, 3, 6)]
    assert teachers == [(), (BOB, CAT), (BOB, CAT)]


def test_a_stop_between_two_exchanges_ends_the_run_before_the_next(rare):
    run_step(rare, 0)
    rare.offer(ADA, 3)
    assert not rare.coordinator.is_halted
    rare.coordinator.stop("stopped by the user", 1.0)
    assert rare.coordinator.is_halted
    for peer in (BOB, ADA):
        with pytest.raises(StaleTicket, match="the run ends before step 3"):
            rare.offer(peer, 3)
    rare.coordinator.leave(BOB, "bob-1", 2.0)
    rare.coordinator.lose(CAT, "died", 3.0)
    assert rare.coordinator.answer(ADA, 3) is None, "it does not close with those who are left"
    assert rare.coordinator.next_deadline_s() is None, "nobody waits"
    assert rare.told()[0] == ("stopped", "", 3, 1.0)


def test_a_stop_before_an_exchange_that_is_next_is_told_there(rare):
    rare.coordinator.stop("stopped by the user", 1.0)
    assert not rare.coordinator.is_halted
    run_step(rare, 0)
    signals = [rare.coordinator.answer(peer, 0) for peer in ALL]
    assert [(one.stop, one.next_step) for one in signals] == [(True, 1)] * 3


def test_events_between_two_exchanges_are_of_the_step_that_comes_next(rare):
    run_step(rare, 0)
    rare.coordinator.lose(ADA, "died", 1.0)
    rare.offer(BOB, 3, 2.0)
    rare.coordinator.lose(CAT, "died", 3.0)
    assert [event.step for event in rare.events] == [1, 3]


# ---- a teaching graph ----


def test_each_learner_hears_its_own_teachers():
    graph = {ADA: {BOB: 3.0, CAT: 1.0}, BOB: {ADA: 2.0}}
    meeting = Meeting(settings(graph=graph)).join_all()
    given = {peer: meeting.offer(peer, 0) for peer in ALL}
    signals = {peer: meeting.coordinator.answer(peer, 0) for peer in ALL}
    np.testing.assert_allclose(
        signals[ADA].mean_NN, 0.75 * given[BOB].p_NN + 0.25 * given[CAT].p_NN, rtol=1e-6
    )
    assert signals[ADA].teachers == (BOB, CAT)
    assert signals[BOB].mean_NN is given[ADA].p_NN and signals[BOB].teachers == (ADA,)
    assert signals[CAT].mean_NN is None and signals[CAT].teachers == ()
    assert [one.next_step for one in signals.values()] == [1, 1, 1]


def test_a_step_waits_for_peers_that_nobody_learns_from():
    meeting = Meeting(settings(graph={ADA: {BOB: 1.0}})).join_all()
    run_step(meeting, 0, (ADA, BOB))
    assert meeting.coordinator.answer(ADA, 0) is None
    meeting.offer(CAT, 0)
    assert meeting.coordinator.answer(ADA, 0).teachers == (BOB,)


def test_where_a_teacher_is_lost_the_others_count_whole_and_without_any_one_learns_alone():
    meeting = Meeting(settings(graph={ADA: {BOB: 1.0, CAT: 9.0}, BOB: {CAT: 1.0}})).join_all()
    meeting.coordinator.lose(CAT, "died", 0.0)
    given = meeting.offer(BOB, 0)
    meeting.offer(ADA, 0)
    assert meeting.coordinator.answer(ADA, 0).mean_NN is given.p_NN
    assert meeting.coordinator.answer(BOB, 0).mean_NN is None


# ---- anything in any order ----


GRAPH = {ADA: {BOB: 3.0, CAT: 1.0}, BOB: {CAT: 0.5, ADA: 0.0}}


class AnythingInAnyOrder(RuleBasedStateMachine):
    """Peers join, offer, repeat, come late, die, leave; time passes as a host lets it pass."""

    DEADLINE_S = 10.0

    def __init__(self):
        super().__init__()
        self.now_s = 0.0
        self.highest_step = 0
        self.starts = dict.fromkeys(ALL, 0)
        self.has_left = dict.fromkeys(ALL, False)
        # Step -> peer -> when it offered; the open step forgets what a superseded process said.
        self.offered_at_s = {}
        self.superseded = set()
        self.heard = set()
        self.answers = {}

    @initialize(
        join_deadline_s=st.sampled_from([4.0, 30.0]),
        every_steps=st.sampled_from([1, 1, 3]),
        first_step=st.sampled_from([0, 0, 4]),
        graph=st.sampled_from([None, None, GRAPH]),
    )
    def begin(self, join_deadline_s, every_steps, first_step, graph):
        self.join_deadline_s = join_deadline_s
        self.every_steps, self.graph = every_steps, graph
        # As many steps before the first one that exchanges: nothing has ever been said of them.
        self.first_open = every(every_steps)(first_step)
        self.next_step = first_step
        self.meeting = Meeting(
            settings(
                deadline_s=self.DEADLINE_S,
                join_deadline_s=join_deadline_s,
                every_steps=every_steps,
                first_step=first_step,
                graph=graph,
            )
        )
        self.coordinator = self.meeting.coordinator

    def incarnation(self, peer):
        return f"{peer}-{self.starts[peer]}"

    def is_in(self, peer):
        return self.starts[peer] > 0 and not self.has_left[peer]

    @rule(peer=st.sampled_from(ALL))
    def join(self, peer):
        self.starts[peer] += 1
        self.has_left[peer] = False
        open_step = self.coordinator.next_open_step
        next_step = self.meeting.join(peer, self.now_s, self.incarnation(peer))
        assert next_step == self.coordinator.next_step <= open_step
        assert every(self.every_steps)(next_step) == open_step
        assert self.coordinator.membership(peer) is Membership.PRESENT
        self.heard.discard((peer, open_step))
        if self.offered_at_s.get(open_step, {}).pop(peer, None) is not None:
            self.superseded.add((peer, open_step))

    @rule(peer=st.sampled_from(ALL), behind=st.sampled_from([0, 0, 0, 0, 1, 2, 3, 4]))
    def offer(self, peer, behind):
        step = self.coordinator.next_open_step - behind * self.every_steps
        if not self.is_in(peer) or step < self.first_open:
            return
        if self.coordinator.is_halted and behind == 0:
            with pytest.raises(StaleTicket, match="the run ends before"):
                self.meeting.offer(peer, step, self.now_s, incarnation=self.incarnation(peer))
            return
        self.meeting.offer(peer, step, self.now_s, incarnation=self.incarnation(peer))
        assert self.coordinator.membership(peer) is Membership.PRESENT or behind
        self.heard.add((peer, step))
        if behind == 0:
            self.offered_at_s.setdefault(step, {}).setdefault(peer, self.now_s)
        else:
            assert self.coordinator.answer(peer, step) is not None, "a closed step answers at once"

    @rule(peer=st.sampled_from(ALL))
    def die(self, peer):
        self.coordinator.lose(peer, "died", self.now_s)
        assert self.coordinator.membership(peer) in (Membership.LOST, Membership.DONE)

    @rule(peer=st.sampled_from(ALL))
    def leave(self, peer):
        if self.is_in(peer):
            self.coordinator.leave(peer, self.incarnation(peer), self.now_s)
            self.has_left[peer] = True

    @precondition(lambda self: not self.coordinator.stop_requested)
    @rule(really=st.sampled_from([False] * 9 + [True]))
    def stop(self, really):
        if really:
            self.coordinator.stop("stopped", self.now_s)
            if self.coordinator.is_halted:
                self.offered_at_s.pop(self.coordinator.next_open_step, None)

    @rule(seconds=st.sampled_from([0.5, 3.0, 9.5, 10.0, 40.0]))
    def wait(self, seconds):
        until_s = self.now_s + seconds
        while True:
            due_s = self.coordinator.next_deadline_s()
            if due_s is None or due_s > until_s:
                break
            self.quiet_until(due_s)
            before = len(self.meeting.events)
            self.now_s = max(self.now_s, due_s)
            self.coordinator.tick(self.now_s)
            assert len(self.meeting.events) > before, "what was due has happened"
        self.quiet_until(until_s)
        self.now_s = until_s
        self.coordinator.tick(self.now_s)

    def quiet_until(self, due_s):
        """Nothing happens before the time that was named."""
        just_before_s = max(self.now_s, float(np.nextafter(due_s, 0.0)))
        if just_before_s < due_s:
            before = (len(self.meeting.events), self.coordinator.next_open_step)
            self.coordinator.tick(just_before_s)
            assert before == (len(self.meeting.events), self.coordinator.next_open_step)

    @invariant()
    def steps_only_go_forward(self):
        assert self.coordinator.next_open_step >= self.highest_step
        assert self.coordinator.next_open_step % self.every_steps == 0
        self.highest_step = self.coordinator.next_open_step
        assert self.coordinator.next_step >= self.next_step
        self.next_step = self.coordinator.next_step

    @invariant()
    def nobody_waits_beyond_the_deadline(self):
        for peer, at_s in self.offered_at_s.get(self.coordinator.next_open_step, {}).items():
            bound_s = max(at_s, self.join_deadline_s) + self.DEADLINE_S
            assert self.now_s < bound_s, f"{peer} has waited since {at_s}"

    @invariant()
    def a_step_that_nobody_is_missing_from_is_closed(self):
        offered = self.offered_at_s.get(self.coordinator.next_open_step, {})
        if offered:
            assert any(
                self.coordinator.membership(peer) in (Membership.EXPECTED, Membership.PRESENT)
                for peer in ALL
                if peer not in offered
            )

    @invariant()
    def answers_are_right_and_final(self):
        open_step = self.coordinator.next_open_step
        k = self.every_steps
        for step in range(max(self.first_open, open_step - 5 * k), open_step + 1, k):
            for peer in ALL:
                signal = self.coordinator.answer(peer, step)
                assert (signal is None) == (step == open_step)
                if signal is not None and (peer, step) in self.heard:
                    self.check(peer, step, signal, open_step)

    def check(self, peer, step, signal, open_step):
        offered = self.offered_at_s.get(step, {})
        assert step < signal.next_step <= open_step
        if step < open_step - 2 * self.every_steps:
            assert signal.teachers == (), "the last two steps are kept"
            return
        weights = self.weights_of(peer)
        others = {name for name in offered if name in weights}
        perhaps = {name for name in ALL if (name, step) in self.superseded and name in weights}
        assert others <= set(signal.teachers) <= others | perhaps
        assert list(signal.teachers) == sorted(signal.teachers)
        assert 0.0 <= signal.waited_s <= self.DEADLINE_S + self.join_deadline_s
        given = [distribution(seed_of(name, step)).p_NN for name in signal.teachers]
        if not given:
            assert signal.mean_NN is None
        elif self.graph is not None:
            shares = np.array([weights[name] for name in signal.teachers])
            mean_NN = np.average(given, axis=0, weights=shares)
            np.testing.assert_allclose(signal.mean_NN, mean_NN, rtol=1e-6)
        else:
            total_NN = sum(given[1:], start=given[0])
            scale = np.float32(1.0 / len(signal.teachers))
            assert signal.mean_NN.tobytes() == (total_NN * scale).tobytes()
        first = self.answers.setdefault((peer, step), signal)
        assert (first.teachers, first.stop, first.waited_s) == (
            signal.teachers,
            signal.stop,
            signal.waited_s,
        )
        assert first.negative_entropy == signal.negative_entropy
        if peer in offered:
            assert signal.next_step == step + 1

    def weights_of(self, peer):
        """Returns the weights of those who may teach the peer."""
        weights = dict.fromkeys(ALL, 1.0) if self.graph is None else self.graph.get(peer, {})
        return {name: weight for name, weight in weights.items() if weight > 0 and name != peer}

    @invariant()
    def events_tell_what_happened(self):
        for event in self.meeting.events:
            assert event.kind in ("peer_lost", "peer_rejoined", "stopped")
            assert 0.0 <= event.at_s <= self.now_s and event.message
        times = [event.at_s for event in self.meeting.events]
        assert times == sorted(times)


AnythingInAnyOrder.TestCase.settings = hypothesis_settings(max_examples=60, stateful_step_count=40)
TestAnythingInAnyOrder = AnythingInAnyOrder.TestCase
