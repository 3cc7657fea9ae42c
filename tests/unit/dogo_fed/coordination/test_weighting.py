"""Teachers that count by what their rows say: against loops, and what must hold of the mean."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch

from dogo_fed.contracts import SimilarityDistribution, Weighting
from dogo_fed.coordination.rendezvous import Rendezvous
from dogo_fed.coordination.weighting import weighted_by_row
from dogo_fed.objectives.mutual import mutual_kl
from tests.support.distributions import ADA, BOB, CAT, both_ways, distribution

WEIGHTED = pytest.mark.parametrize("weighting", [Weighting.CERTAIN, Weighting.AGREEING])
TEACHERS = [distribution(seed) for seed in range(3)]


def negative_entropy(row):
    return sum(q * math.log(q) for q in row if q > 0)


def weights_by_loops(matrices, given, weighting):
    """Returns the weight of teacher k for image i."""
    number, size = len(matrices), len(matrices[0])
    found = [[0.0] * size for _ in matrices]
    for i in range(size):
        rows = [[float(value) for value in matrix[i]] for matrix in matrices]
        mean = [sum(row[j] for row in rows) / number for j in range(size)]
        for k, row in enumerate(rows):
            score = negative_entropy(row)
            if weighting is Weighting.AGREEING:
                score = -sum(q * math.log(q / m) for q, m in zip(row, mean, strict=True) if q > 0)
            found[k][i] = given[k] * math.exp(score)
        total = sum(found[k][i] for k in range(number))
        for k in range(number):
            found[k][i] /= total
    return found


@WEIGHTED
@pytest.mark.parametrize("given", [(1.0, 1.0, 1.0), (1.0, 3.0, 0.5)])
def test_the_mean_is_that_of_the_loops(weighting, given):
    matrices = [one.p_NN for one in TEACHERS]
    found = weighted_by_row(TEACHERS, given, weighting)
    expected = weights_by_loops(matrices, given, weighting)
    for i in range(len(matrices[0])):
        row = sum(expected[k][i] * matrices[k][i].astype(np.float64) for k in range(3))
        np.testing.assert_allclose(found.p_NN[i], row, rtol=1e-5)
    entropies = [
        sum(expected[k][i] * negative_entropy(matrices[k][i]) for k in range(3))
        for i in range(len(matrices[0]))
    ]
    assert found.negative_entropy == pytest.approx(np.mean(entropies), rel=1e-5)
    assert found.p_NN.dtype == np.float32


@WEIGHTED
def test_the_mutual_kl_is_the_weighted_mean_of_the_divergences(weighting):
    found = weighted_by_row(TEACHERS, (1.0, 1.0, 1.0), weighting)
    mine = torch.tensor(distribution(9).p_NN, dtype=torch.float64).log()
    value = mutual_kl(mine, torch.tensor(found.p_NN, dtype=torch.float64), found.negative_entropy)
    weights = weights_by_loops([one.p_NN for one in TEACHERS], (1.0, 1.0, 1.0), weighting)
    expected = 0.0
    for i in range(len(mine)):
        for k, teacher in enumerate(TEACHERS):
            q = torch.tensor(teacher.p_NN[i], dtype=torch.float64)
            expected += weights[k][i] * float((q * (q.log() - mine[i])).sum()) / len(mine)
    assert value.item() == pytest.approx(expected, rel=1e-4)


def stacked(given, weights, weighting):
    """Returns matrix and negative entropy as computed from the stack of all matrices."""
    q_KNN = np.stack([one.p_NN for one in given]).astype(np.float64)
    entropy_KN = (q_KNN * np.log(np.where(q_KNN > 0, q_KNN, 1.0))).sum(axis=2)
    score_KN = entropy_KN
    if weighting is Weighting.AGREEING:
        log_mean_NN = np.log(np.maximum(q_KNN.mean(axis=0), np.finfo(np.float64).tiny))
        score_KN = (q_KNN * log_mean_NN).sum(axis=2) - entropy_KN
    log_w_KN = np.log(np.asarray(weights, dtype=np.float64))[:, None] + score_KN
    w_KN = np.exp(log_w_KN - log_w_KN.max(axis=0))
    w_KN /= w_KN.sum(axis=0)
    p_NN = (w_KN[:, :, None] * q_KNN).sum(axis=0).astype(np.float32)
    return p_NN, float((w_KN * entropy_KN).sum(axis=0).mean())


@WEIGHTED
@pytest.mark.parametrize(("number", "size"), [(2, 6), (3, 40), (11, 33)])
def test_one_teacher_after_the_other_gives_the_same_bits_as_all_at_once(weighting, number, size):
    given = [distribution(seed, size) for seed in range(number)]
    weights = [1.0 + seed / 3 for seed in range(number)]
    found = weighted_by_row(given, weights, weighting)
    p_NN, entropy = stacked(given, weights, weighting)
    assert found.p_NN.tobytes() == p_NN.tobytes() and found.negative_entropy == entropy


@WEIGHTED
def test_more_teachers_need_no_more_matrices_at_a_time(weighting):
    size, peaks = 128, {}
    for number in (4, 12):
        given = [distribution(seed, size) for seed in range(number)]
        tracemalloc.start()
        weighted_by_row(given, [1.0] * number, weighting)
        peaks[number] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peaks[12] < peaks[4] + 8 * size**2, "a matrix of float64"


def sharpened(one, power):
    p_NN = one.p_NN.astype(np.float64) ** power
    p_NN = (p_NN / p_NN.sum(axis=1, keepdims=True)).astype(np.float32)
    return SimilarityDistribution(p_NN, float(np.mean([negative_entropy(row) for row in p_NN])))


def test_who_is_certain_counts_more_and_who_agrees_counts_more():
    sharp, flat = sharpened(TEACHERS[0], 4.0), sharpened(TEACHERS[1], 0.1)
    found = weighted_by_row([sharp, flat], (1.0, 1.0), Weighting.CERTAIN)
    plain = (sharp.p_NN + flat.p_NN) / 2
    assert abs(found.p_NN - sharp.p_NN).sum() < abs(plain - sharp.p_NN).sum()
    stranger = TEACHERS[2]
    agreed = weighted_by_row([sharp, sharp, stranger], (1.0, 1.0, 1.0), Weighting.AGREEING)
    plain = (2 * sharp.p_NN + stranger.p_NN) / 3
    assert abs(agreed.p_NN - sharp.p_NN).sum() < abs(plain - sharp.p_NN).sum()


@WEIGHTED
def test_equal_teachers_give_their_own_rows_even_with_zeros(weighting):
    p_NN = np.eye(4, dtype=np.float32)
    one = SimilarityDistribution(p_NN, 0.0)
    found = weighted_by_row([one, one], (1.0, 1.0), weighting)
    np.testing.assert_array_equal(found.p_NN, p_NN)
    assert found.negative_entropy == 0.0


@WEIGHTED
def test_a_rendezvous_weighs_both_directions_whoever_comes_first(weighting):
    def signal(order):
        rendezvous = Rendezvous(step=0, opened_at_s=0.0)
        for peer in order:
            rendezvous.add(peer, both_ways([ADA, BOB, CAT].index(peer)), 1.0)
        rendezvous.close(2.0, stop=False)
        return rendezvous.signal_for(ADA, 1, None, weighting)

    first, second = signal([ADA, BOB, CAT]), signal([CAT, BOB, ADA])
    assert first.mean_NN.tobytes() == second.mean_NN.tobytes()
    assert first.reverse.p_NN.tobytes() == second.reverse.p_NN.tobytes()
    expected = weighted_by_row([both_ways(1), both_ways(2)], (1.0, 1.0), weighting)
    np.testing.assert_array_equal(first.mean_NN, expected.p_NN)
    np.testing.assert_array_equal(first.reverse.p_NN, expected.reverse.p_NN)


@WEIGHTED
def test_one_teacher_gives_its_very_numbers(weighting):
    rendezvous = Rendezvous(step=0, opened_at_s=0.0)
    for seed, peer in enumerate((ADA, BOB)):
        rendezvous.add(peer, distribution(seed), 1.0)
    rendezvous.close(2.0, stop=False)
    signal = rendezvous.signal_for(ADA, 1, None, weighting)
    assert signal.mean_NN.tobytes() == distribution(1).p_NN.tobytes()
