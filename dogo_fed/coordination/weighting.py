"""Teachers that do not count alike: each row of the mean is weighted by what the teachers' rows say.

An image may be clear to one teacher and not to another. With w_ki the weight of teacher k for image
i, which add up to 1 over the teachers, a learner gets sum_k w_ki Q_ki, and the mean over i of
sum_k w_ki (sum_j Q_kij log Q_kij). So its mutual KL is the weighted mean of the divergences, as it
is with equal weights (`objectives.mutual`).

The teachers are gone through one after the other, so that a few matrices are made at a time, however
many teachers there are.
"""

# N = images in the step's batch, K = teachers

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dogo_fed.contracts import FloatMatrix, SimilarityDistribution, Weighting

Wide: TypeAlias = npt.NDArray[np.float64]
"""What is computed with: probabilities, their logarithms, weights."""


def weighted_by_row(
    given: Sequence[SimilarityDistribution], weights: Sequence[float], weighting: Weighting
) -> SimilarityDistribution:
    """Returns the mean of the teachers' distributions, each row with weights of its own.

    Args:
        given: two or more, in the order of the peers' names.
        weights: of the teachers, relative to each other; multiplied by those of the rows.
        weighting: what the weights of a row come from.
    """
    matrices = [distribution.p_NN for distribution in given]
    negative_entropy_KN = np.stack([_negative_entropies(q_NN) for q_NN in _wide(matrices)])
    scores_KN = _scores(matrices, negative_entropy_KN, weighting)
    log_w_KN = np.log(np.asarray(weights, dtype=np.float64))[:, None] + scores_KN
    w_KN = np.exp(log_w_KN - log_w_KN.max(axis=0))
    w_KN /= w_KN.sum(axis=0)
    weighted = (w_N[:, None] * q_NN for w_N, q_NN in zip(w_KN, _wide(matrices), strict=True))
    reverses = [distribution.reverse for distribution in given if distribution.reverse is not None]
    return SimilarityDistribution(
        p_NN=_sum(weighted).astype(np.float32),
        negative_entropy=float((w_KN * negative_entropy_KN).sum(axis=0).mean()),
        reverse=weighted_by_row(reverses, weights, weighting) if reverses else None,
    )


def _scores(
    matrices: Sequence[FloatMatrix], negative_entropy_KN: Wide, weighting: Weighting
) -> Wide:
    """Returns the logarithms of the rows' weights, K x N, up to a constant for each row."""
    if weighting is Weighting.CERTAIN:
        return negative_entropy_KN
    if weighting is Weighting.AGREEING:
        mean_NN = _sum(_wide(matrices)) / len(matrices)
        log_mean_NN = np.log(np.maximum(mean_NN, np.finfo(np.float64).tiny))
        cross_KN: Wide = np.stack([(q_NN * log_mean_NN).sum(axis=1) for q_NN in _wide(matrices)])
        return cross_KN - negative_entropy_KN  # minus KL(theirs || mean)
    return np.zeros_like(negative_entropy_KN)


def _negative_entropies(q_NN: Wide) -> Wide:
    """Returns sum_j q log q of every row, in nats."""
    logs_NN = np.log(np.where(q_NN > 0, q_NN, 1.0))
    total_N: Wide = (q_NN * logs_NN).sum(axis=1)
    return total_N


def _wide(matrices: Sequence[FloatMatrix]) -> Iterator[Wide]:
    """Yields the matrices in float64, one at a time."""
    return (p_NN.astype(np.float64, order="C") for p_NN in matrices)


def _sum(terms: Iterable[Wide]) -> Wide:
    """Returns the sum of arrays of one's own, in their order; the first one is written over."""
    total: Wide = functools.reduce(operator.iadd, terms)
    return total
