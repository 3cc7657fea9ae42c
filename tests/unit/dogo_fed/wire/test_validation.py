"""What makes a matrix a similarity distribution; the message names the rule that is broken."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dogo_fed.contracts import SimilarityDistribution
from dogo_fed.errors import MalformedDistribution
from dogo_fed.wire.validation import ENTROPY_TOLERANCE, check_distribution
from tests.support.distributions import SIZE, both_ways, distribution

GOOD = distribution(0)
ROW_SUM_TOLERANCE = 1e-3


def with_entry(value, row=2, column=3):
    p_NN = GOOD.p_NN.copy()
    p_NN[row, column] = value
    return dataclasses.replace(GOOD, p_NN=p_NN)


def refusal(broken):
    with pytest.raises(MalformedDistribution) as caught:
        check_distribution(broken, ROW_SUM_TOLERANCE)
    return str(caught.value)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_every_softmax_passes(seed, size):
    check_distribution(distribution(seed, size), ROW_SUM_TOLERANCE)


@pytest.mark.parametrize("logit", [0.0, 1e4])
def test_the_extremes_pass(logit):
    """Uniform rows have the lowest entropy value, one-hot rows the highest."""
    size = 2048
    p_NN = np.full((size, size), 1 / size, np.float32) if logit == 0 else np.eye(size, dtype="f4")
    entropy = -math.log(size) if logit == 0 else 0.0
    check_distribution(SimilarityDistribution(p_NN, entropy), ROW_SUM_TOLERANCE)


def test_one_image_passes():
    check_distribution(SimilarityDistribution(np.ones((1, 1), np.float32), 0.0), ROW_SUM_TOLERANCE)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-30, -0.5])
@pytest.mark.parametrize("row", [0, SIZE - 1])
def test_an_entry_that_is_negative_or_not_finite_is_refused_with_its_row(value, row):
    assert refusal(with_entry(value, row)) == (
        f"row {row} has entries that are negative or not finite"
    )


def test_infinities_that_cancel_are_seen():
    p_NN = GOOD.p_NN.copy()
    p_NN[4, 0], p_NN[4, 1] = math.inf, -math.inf
    assert "row 4 has entries" in refusal(dataclasses.replace(GOOD, p_NN=p_NN))


def test_a_sum_beyond_float32_is_a_wrong_sum_of_that_row_and_no_warning():
    p_NN = GOOD.p_NN.copy()
    p_NN[3] = np.finfo(np.float32).max
    assert "row 3 sums to" in refusal(dataclasses.replace(GOOD, p_NN=p_NN))


@pytest.mark.parametrize("off", [-2, 2])
def test_a_row_that_does_not_sum_to_1_is_refused_with_row_and_sum(off):
    p_NN = GOOD.p_NN.copy()
    p_NN[3] *= 1 + off * ROW_SUM_TOLERANCE
    message = refusal(dataclasses.replace(GOOD, p_NN=p_NN))
    assert f"row 3 sums to {1 + off * ROW_SUM_TOLERANCE:.6g}" in message and "0.001" in message


def test_rounding_of_a_row_sum_is_forgiven():
    p_NN = GOOD.p_NN * np.float32(1 + 0.9 * ROW_SUM_TOLERANCE)
    check_distribution(dataclasses.replace(GOOD, p_NN=p_NN), ROW_SUM_TOLERANCE)


@pytest.mark.parametrize(
    "entropy",
    [-math.log(SIZE) - 2 * ENTROPY_TOLERANCE, 2 * ENTROPY_TOLERANCE, math.nan, math.inf, -math.inf],
)
def test_an_impossible_entropy_is_refused_with_its_range(entropy):
    message = refusal(dataclasses.replace(GOOD, negative_entropy=entropy))
    assert f"negative entropy is {entropy:.6g}" in message
    assert f"for {SIZE} images it must be between {-math.log(SIZE):.6g} and 0" in message


@pytest.mark.parametrize(
    ("p_NN", "said"),
    [
        (GOOD.p_NN.astype(np.float64), "float64"),
        (GOOD.p_NN.astype(">f4"), ">f4"),
        (GOOD.p_NN[:4], r"(4, 6)"),
        (GOOD.p_NN[0], r"(6,)"),
        (GOOD.p_NN[None], r"(1, 6, 6)"),
    ],
)
def test_only_square_float32_matrices_pass(p_NN, said):
    message = refusal(SimilarityDistribution(p_NN, GOOD.negative_entropy))
    assert "square float32 matrix" in message and said in message


def test_a_distribution_with_its_reverse_passes():
    check_distribution(both_ways(0), ROW_SUM_TOLERANCE)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (with_entry(math.nan), "in the reverse direction, row 2 has entries"),
        (with_entry(0.9), "in the reverse direction, row 2 sums to"),
        (dataclasses.replace(GOOD, negative_entropy=1.0), "in the reverse direction, the negative"),
        (dataclasses.replace(GOOD, p_NN=GOOD.p_NN.astype(float)), "in the reverse direction, a"),
        (distribution(0, SIZE + 1), "one matrix of the same size"),
        (both_ways(1), "without a reverse"),
    ],
)
def test_a_broken_reverse_is_refused_as_such(broken, said):
    assert said in refusal(dataclasses.replace(GOOD, reverse=broken))


def test_the_empty_matrix_is_refused():
    empty = SimilarityDistribution(np.empty((0, 0), np.float32), 0.0)
    assert refusal(empty) == "a distribution must not be empty"
