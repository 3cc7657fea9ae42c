"""Checks that a matrix is a similarity distribution; applied to everything received, before use."""

# N = images in the step's batch

from __future__ import annotations

import math

import numpy as np

from dogo_fed.contracts import SimilarityDistribution
from dogo_fed.errors import MalformedDistribution

ENTROPY_TOLERANCE = 1e-3
"""How far, in nats, a negative entropy may lie outside [-log N, 0] through rounding."""


def check_distribution(distribution: SimilarityDistribution, row_sum_tolerance: float) -> None:
    """Checks that the matrix is a similarity distribution, and its reverse too where it has one.

    Args:
        distribution: as it was received.
        row_sum_tolerance: how far the sum of a row may be from 1; it depends on the encoding.

    Raises:
        MalformedDistribution: the matrix is not square, not float32 or empty; an entry is negative
            or not finite; a row does not sum to 1 within the tolerance; the negative entropy is
            outside -log N..0; the reverse has another size. The message names the rule and the row.
    """
    _check_one(distribution, row_sum_tolerance)
    reverse = distribution.reverse
    if reverse is None:
        return
    if reverse.reverse is not None or reverse.p_NN.shape != distribution.p_NN.shape:
        raise MalformedDistribution(
            "the reverse of a distribution must be one matrix of the same size, without a reverse"
        )
    try:
        _check_one(reverse, row_sum_tolerance)
    except MalformedDistribution as error:
        raise MalformedDistribution(f"in the reverse direction, {error}") from error


def _check_one(distribution: SimilarityDistribution, row_sum_tolerance: float) -> None:
    p_NN = distribution.p_NN
    if p_NN.dtype != np.float32 or p_NN.ndim != 2 or p_NN.shape[0] != p_NN.shape[1]:
        raise MalformedDistribution(
            "a distribution must be a square float32 matrix, not "
            f"{p_NN.dtype} of shape {p_NN.shape}"
        )
    size = len(p_NN)
    if size == 0:
        raise MalformedDistribution("a distribution must not be empty")
    with np.errstate(invalid="ignore", over="ignore"):
        row_sums_N = p_NN.sum(axis=1)  # pairwise in float32: fast, and exact enough
        smallest = p_NN.min()
    # A NaN or an infinity shows in a sum or in the minimum, so two passes are enough.
    if not smallest >= 0 or not np.isfinite(row_sums_N).all():
        is_bad_N = ~(np.isfinite(p_NN) & (p_NN >= 0)).all(axis=1)
        if is_bad_N.any():  # else a sum has overflowed, and is refused below
            raise MalformedDistribution(
                f"row {int(is_bad_N.argmax())} has entries that are negative or not finite"
            )
    deviation_N = np.abs(row_sums_N - 1.0)
    worst = int(deviation_N.argmax())
    if deviation_N[worst] > row_sum_tolerance:
        raise MalformedDistribution(
            f"row {worst} sums to {row_sums_N[worst]:.6g}; rows must sum to 1 within "
            f"{row_sum_tolerance:g}"
        )
    lowest = -math.log(size) - ENTROPY_TOLERANCE
    if not lowest <= distribution.negative_entropy <= ENTROPY_TOLERANCE:
        raise MalformedDistribution(
            f"the negative entropy is {distribution.negative_entropy:.6g}; for {size} images it "
            f"must be between {-math.log(size):.6g} and 0 nats"
        )
