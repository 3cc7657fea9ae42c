"""Teachers that do not count alike: each row of the mean is weighted by what the teachers' rows say.

An image may be clear to one teacher and not to another. With w_ki the weight of teacher k for image
i, which add up to 1 over the teachers, a learner gets sum_k w_ki Q_ki, and the mean over i of
sum_k w_ki (sum_j Q_kij log Q_kij). So its mutual KL is the weighted mean of the divergences, as it
is with equal weights (`objectives.mutual`).
"""

# N = images in the step's batch, K = teachers

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from dogo_fed.contracts import SimilarityDistribution, Weighting


def weighted_by_row(
    given: Sequence[SimilarityDistribution], weights: Sequence[float], weighting: Weighting
) -> SimilarityDistribution:
    """Returns the mean of the teachers' distributions, each row with weights of its own.

    Args:
        given: two or more, in the order of the peers' names.
        weights: of the teachers, relative to each other; multiplied by those of the rows.
        weighting: what the weights of a row come from.
    """
    q_KNN = np.stack([one.p_NN for one in given]).astype(np.float64)
    log_w_KN = np.log(np.asarray(weights, dtype=np.float64))[:, None] + _scores(q_KNN, weighting)
    w_KN = np.exp(log_w_KN - log_w_KN.max(axis=0))
    w_KN /= w_KN.sum(axis=0)
    reverses = [one.reverse for one in given if one.reverse is not None]
    return SimilarityDistribution(
        p_NN=(w_KN[:, :, None] * q_KNN).sum(axis=0).astype(np.float32),
        negative_entropy=float((w_KN * _negative_entropies(q_KNN)).sum(axis=0).mean()),
        reverse=weighted_by_row(reverses, weights, weighting) if reverses else None,
    )


def _scores(q_KNN: npt.NDArray[np.float64], weighting: Weighting) -> npt.NDArray[np.float64]:
    """Returns the logarithms of the rows' weights, K x N, up to a constant for each row."""
    negative_entropy_KN = _negative_entropies(q_KNN)
    if weighting is Weighting.CERTAIN:
        return negative_entropy_KN
    if weighting is Weighting.AGREEING:
        log_mean_NN = np.log(np.maximum(q_KNN.mean(axis=0), np.finfo(np.float64).tiny))
        cross_KN: npt.NDArray[np.float64] = (q_KNN * log_mean_NN).sum(axis=2)
        return cross_KN - negative_entropy_KN  # minus KL(theirs || mean)
    return np.zeros_like(negative_entropy_KN)


def _negative_entropies(q_KNN: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns sum_j q log q of every row, K x N, in nats."""
    logs_KNN = np.log(np.where(q_KNN > 0, q_KNN, 1.0))
    total_KN: npt.NDArray[np.float64] = (q_KNN * logs_KNN).sum(axis=2)
    return total_KN
