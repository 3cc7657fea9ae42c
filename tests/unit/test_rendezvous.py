"""One step's meeting point: the mean of the others, in name order, whoever came first."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogo_fed.contracts import PeerId
from dogo_fed.coordination.rendezvous import Rendezvous
from dogo_fed.errors import StaleTicket
from tests.contract.made import ADA, BOB, CAT, distribution

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
