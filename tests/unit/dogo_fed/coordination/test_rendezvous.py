"""One step's meeting point: the mean of the others, in name order, whoever came first."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogo_fed.config.run import MOST_PEERS
from dogo_fed.contracts import PeerId
from dogo_fed.coordination.exact_sum import in_units, mean_of
from dogo_fed.coordination.rendezvous import Rendezvous
from dogo_fed.errors import StaleTicket
from tests.support.distributions import ADA, BOB, CAT, both_ways, distribution

NAMES = [PeerId(name) for name in ("ada", "bob", "cat", "dan", "eve")]


def met(order, closed_at_s=9.0):
    rendezvous = Rendezvous(step=3, opened_at_s=1.0)
    for number, peer in enumerate(order):
        rendezvous.add(peer, distribution(NAMES.index(peer)), 1.0 + number)
    rendezvous.close(closed_at_s, stop=False)
    return rendezvous


def test_two_peers_get_each_others_very_numbers():
    rendezvous = met([BOB, ADA])
    for peer, other in ((ADA, 1), (BOB, 0)):
        signal = rendezvous.signal_for(peer, 4)
        assert np.array_equal(signal.mean_NN, distribution(other).p_NN)
        assert signal.negative_entropy == distribution(other).negative_entropy


def test_the_order_of_arrival_changes_no_bit():
    reference = {peer: met(NAMES).signal_for(peer, 4) for peer in NAMES}
    for order in itertools.islice(itertools.permutations(NAMES), 0, 120, 7):
        for peer in NAMES:
            signal = met(order).signal_for(peer, 4)
            assert signal.mean_NN.tobytes() == reference[peer].mean_NN.tobytes()
            assert signal.negative_entropy == reference[peer].negative_entropy
            assert signal.teachers == tuple(name for name in NAMES if name != peer)


@given(st.integers(2, 5), st.integers(0, 4))
def test_the_mean_is_the_plain_mean_of_the_others(number, index):
    peers = NAMES[:number]
    peer = peers[index % number]
    signal = met(peers).signal_for(peer, 4)
    others = [distribution(NAMES.index(name)) for name in peers if name != peer]
    mean_NN = np.mean([other.p_NN.astype(np.float64) for other in others], axis=0)
    np.testing.assert_allclose(signal.mean_NN, mean_NN, rtol=1e-6)
    mean_entropy = sum(other.negative_entropy for other in others) / len(others)
    assert signal.negative_entropy == pytest.approx(mean_entropy, rel=1e-12)
    assert signal.mean_NN.dtype == np.float32


# ---- a teaching graph ----


def weighted(learner, weights, peers=NAMES):
    return met(peers).signal_for(learner, 4, weights)


@given(
    st.lists(st.floats(1e-3, 1e3), min_size=5, max_size=5),
    st.sets(st.sampled_from(NAMES[1:])),
)
def test_the_mean_of_the_teachers_is_the_loop_written_weighted_mean(numbers, present):
    weights = dict(zip(NAMES[1:], numbers, strict=False))
    signal = weighted(ADA, weights, [ADA, *sorted(present)])
    assert signal.teachers == tuple(sorted(present))
    if not present:
        assert signal.mean_NN is None and signal.negative_entropy == 0.0
        return
    total = sum(weights[name] for name in present)
    size = len(signal.mean_NN)
    for i in range(size):
        for j in range(size):
            expected = sum(
                weights[name] / total * float(distribution(NAMES.index(name)).p_NN[i, j])
                for name in present
            )
            assert signal.mean_NN[i, j] == pytest.approx(expected, rel=1e-5)
    entropies = {name: distribution(NAMES.index(name)).negative_entropy for name in present}
    expected = sum(weights[name] / total * entropies[name] for name in present)
    assert signal.negative_entropy == pytest.approx(expected, rel=1e-9)
    assert signal.mean_NN.dtype == np.float32
    np.testing.assert_allclose(signal.mean_NN.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("weight", [1.0, 0.1, 7.3, 1e-300, 1e300])
@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_equal_weights_give_the_plain_mean_to_the_bit(weight, number):
    peers = NAMES[:number]
    plain = met(peers).signal_for(ADA, 4)
    signal = weighted(ADA, dict.fromkeys(NAMES, weight), peers)
    assert signal.mean_NN.tobytes() == plain.mean_NN.tobytes()
    assert signal.negative_entropy == plain.negative_entropy
    assert signal.teachers == plain.teachers


def test_the_order_of_arrival_changes_no_bit_of_a_weighted_mean():
    weights = {BOB: 0.3, CAT: 0.7, NAMES[3]: 0.11}
    found = {
        weighted(ADA, weights, order).mean_NN.tobytes() for order in itertools.permutations(NAMES)
    }
    assert len(found) == 1


def test_a_teacher_of_weight_zero_and_a_stranger_do_not_teach():
    signal = weighted(ADA, {BOB: 0.0, CAT: 2.0, PeerId("zoe"): 5.0})
    assert signal.teachers == (CAT,)
    assert signal.mean_NN.tobytes() == distribution(2).p_NN.tobytes()


def test_who_has_no_teachers_or_none_that_took_part_learns_from_nobody():
    for signal in (weighted(ADA, {}), weighted(ADA, {BOB: 1.0}, [ADA, CAT])):
        assert signal.mean_NN is None and signal.teachers == () and signal.reverse is None


# ---- both view directions ----


def met_both_ways(peers):
    rendezvous = Rendezvous(step=3, opened_at_s=1.0)
    for peer in peers:
        rendezvous.add(peer, both_ways(NAMES.index(peer)), 1.0)
    rendezvous.close(2.0, stop=False)
    return rendezvous


@pytest.mark.parametrize("weights", [None, {BOB: 3.0, CAT: 1.0}])
def test_each_direction_has_a_mean_of_its_own_with_the_same_weights(weights):
    signal = met_both_ways([ADA, BOB, CAT]).signal_for(ADA, 4, weights)
    forth = met([ADA, BOB, CAT]).signal_for(ADA, 4, weights)
    assert signal.mean_NN.tobytes() == forth.mean_NN.tobytes()
    shares = (0.5, 0.5) if weights is None else (0.75, 0.25)
    reverses = [both_ways(NAMES.index(peer)).reverse for peer in (BOB, CAT)]
    expected_NN = sum(share * one.p_NN for share, one in zip(shares, reverses, strict=True))
    np.testing.assert_allclose(signal.reverse.p_NN, expected_NN, rtol=1e-6)
    assert signal.reverse.negative_entropy == pytest.approx(
        sum(share * one.negative_entropy for share, one in zip(shares, reverses, strict=True))
    )
    assert signal.reverse.reverse is None


def test_another_reverse_is_another_distribution():
    rendezvous = Rendezvous(step=3, opened_at_s=1.0)
    rendezvous.add(ADA, both_ways(0), 1.0)
    rendezvous.add(ADA, both_ways(0), 2.0)
    for other in (
        distribution(0),
        dataclasses.replace(both_ways(0), reverse=distribution(1)),
    ):
        with pytest.raises(StaleTicket, match="already published another"):
            rendezvous.add(ADA, other, 2.0)


def test_averaging_leaves_the_contributions_as_they_were():
    rendezvous = met([ADA, BOB, CAT])
    first = rendezvous.signal_for(ADA, 4).mean_NN.copy()
    for peer in (BOB, CAT, ADA):
        rendezvous.signal_for(peer, 4)
    assert np.array_equal(rendezvous.signal_for(ADA, 4).mean_NN, first)


def test_alone_there_is_no_mean_and_no_teacher():
    signal = met([ADA]).signal_for(ADA, 4)
    assert signal.mean_NN is None
    assert signal.teachers == () and signal.negative_entropy == 0.0


def test_a_latecomer_gets_the_mean_of_all_and_was_not_kept_waiting():
    signal = met([ADA, BOB]).signal_for(CAT, 7)
    expected_NN = (distribution(0).p_NN + distribution(1).p_NN) * np.float32(0.5)
    assert np.array_equal(signal.mean_NN, expected_NN)
    assert signal.waited_s == 0.0 and signal.next_step == 7


def test_the_wait_counts_from_the_peers_own_arrival():
    rendezvous = met([ADA, BOB], closed_at_s=5.0)
    assert rendezvous.signal_for(ADA, 4).waited_s == 4.0
    assert rendezvous.signal_for(BOB, 4).waited_s == 3.0


def test_a_repetition_changes_neither_value_nor_arrival():
    rendezvous = Rendezvous(step=3, opened_at_s=1.0)
    rendezvous.add(ADA, distribution(0), 1.0)
    rendezvous.add(ADA, distribution(0), 4.0)
    rendezvous.add(BOB, distribution(1), 4.0)
    rendezvous.close(5.0, stop=True)
    rendezvous.add(ADA, distribution(0), 6.0)
    assert rendezvous.contributors == (ADA, BOB)
    assert rendezvous.signal_for(ADA, 4).waited_s == 4.0
    assert rendezvous.signal_for(ADA, 4).stop


def test_another_matrix_is_refused_and_the_first_stays():
    rendezvous = Rendezvous(step=3, opened_at_s=1.0)
    rendezvous.add(ADA, distribution(0), 1.0)
    with pytest.raises(StaleTicket, match=r"'ada' has already published another .* step 3"):
        rendezvous.add(ADA, distribution(1), 2.0)
    rendezvous.close(5.0, stop=False)
    assert np.array_equal(rendezvous.signal_for(BOB, 4).mean_NN, distribution(0).p_NN)


def test_the_same_matrix_with_another_entropy_is_another_distribution():
    rendezvous = Rendezvous(step=3, opened_at_s=1.0)
    rendezvous.add(ADA, distribution(0), 1.0)
    other = dataclasses.replace(distribution(0), negative_entropy=-0.5)
    with pytest.raises(StaleTicket, match="already published another"):
        rendezvous.add(ADA, other, 2.0)


def test_an_open_rendezvous_answers_nobody_and_a_closed_one_takes_nobody():
    rendezvous = Rendezvous(step=3, opened_at_s=1.0)
    rendezvous.add(ADA, distribution(0), 1.0)
    with pytest.raises(AssertionError, match="only a closed rendezvous answers"):
        rendezvous.signal_for(ADA, 4)
    rendezvous.close(5.0, stop=False)
    with pytest.raises(AssertionError, match="takes nothing new"):
        rendezvous.add(BOB, distribution(1), 6.0)


# ---- one pass for each contribution ----


def passes(number, learners):
    """Returns how many matrices were turned into units for the answers of `learners`."""
    import dogo_fed.coordination.rendezvous as module

    names = [PeerId(f"peer{index:02d}") for index in range(number)]
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        original = module.in_units
        patch.setattr(module, "in_units", lambda p_NN: seen.append(1) or original(p_NN))
        rendezvous = Rendezvous(step=0, opened_at_s=0.0)
        for index, name in enumerate(names):
            rendezvous.add(name, distribution(index), 0.0)
        rendezvous.close(1.0, stop=False)
        for name in names[:learners]:
            rendezvous.signal_for(name, 1)
    return len(seen)


@pytest.mark.parametrize("number", [3, 8, 40])
def test_the_work_grows_with_the_number_of_peers_and_not_with_its_square(number):
    assert passes(number, number) == 2 * number, "one for each contribution, one for each answer"
    assert passes(2, 2) == 0, "two peers get each other's very numbers"


def test_a_term_is_taken_back_to_the_bit():
    def answer(order, withdrawn=()):
        rendezvous = Rendezvous(step=0, opened_at_s=0.0)
        for peer in order:
            rendezvous.add(peer, both_ways(NAMES.index(peer)), 0.0)
        for peer in withdrawn:
            rendezvous.withdraw(peer)
        rendezvous.close(1.0, stop=False)
        signal = rendezvous.signal_for(NAMES[0], 1)
        return signal.mean_NN.tobytes(), signal.reverse.p_NN.tobytes(), signal.negative_entropy

    plain = answer([NAMES[0], NAMES[2], NAMES[4]])
    assert answer(NAMES, withdrawn=[NAMES[1], NAMES[3]]) == plain
    assert answer([NAMES[2], NAMES[4]]) == plain, "and for one that has not contributed"


def test_very_small_probabilities_and_zeros_are_kept_as_well_as_can_be_told():
    p_NN = np.array([[1.0, 0.0], [2.0**-28, 1e-30]], dtype=np.float32)
    assert np.array_equal(mean_of(in_units(p_NN) * 3, 3)[0], p_NN[0])
    assert mean_of(in_units(p_NN) * 3, 3)[1, 0] == p_NN[1, 0]
    assert abs(float(mean_of(in_units(p_NN), 1)[1, 1]) - 1e-30) <= 2.0**-53
    ones_NN = np.ones((2, 2), dtype=np.float32)
    assert np.array_equal(mean_of(in_units(ones_NN) * MOST_PEERS, MOST_PEERS), ones_NN)
