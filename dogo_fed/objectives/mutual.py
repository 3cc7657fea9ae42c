"""What a peer learns from its teachers: the mean over the teachers of KL(theirs || mine).

For K teachers with distributions Q_k (without a graph) and mine P, the mean of the divergences is

    1/K sum_k KL(Q_k || P) = 1/K sum_k sum(Q_k log Q_k)  -  sum(mean_k(Q_k) log P)

The first term does not depend on P, and the second depends on the Q_k only through their mean. So
the mean distribution gives the exact gradient of the mean KL. One more scalar, the mean negative
entropy, gives its exact value. That is why each peer receives one matrix, however many peers there
are. With a teaching graph, both means are weighted.

Source: Bhat et al. 2021, method figure (loss of peer 1: KL(Q || P)), for two peers; the extension
to more peers is deep mutual learning's (Zhang et al., CVPR 2018, eq. 8), with the mean over the
others.
"""

# N = images in the step's batch

from __future__ import annotations

import enum

import torch


class Reduction(enum.Enum):
    """How the N x N terms of the divergence become one number.

    BATCHMEAN: sum over columns, mean over rows: the KL divergence of a row, in nats. The default.
    MEAN_OVER_ELEMENTS: mean over all N * N terms, so N times smaller. It is the convention of the
        published code, whose weight of 100 at N = 256 is 100/256 in batchmean units.
    """

    BATCHMEAN = "batchmean"
    MEAN_OVER_ELEMENTS = "mean_over_elements"


def mutual_kl(
    log_p_NN: torch.Tensor,
    mean_q_NN: torch.Tensor,
    negative_entropy: float,
) -> torch.Tensor:
    """Returns the mean over the teachers of KL(theirs || mine), mean over rows, in nats.

    Args:
        log_p_NN: log of my distribution; gradients flow here and nowhere else.
        mean_q_NN: mean of the teachers' distributions, same shape; taken as constant.
        negative_entropy: mean over the teachers of their `similarity.negative_entropy`.

    Returns:
        A scalar >= 0, up to rounding.

    Raises:
        ValueError: the shapes differ.
    """
    if log_p_NN.shape != mean_q_NN.shape:
        raise ValueError(
            f"my distribution is {tuple(log_p_NN.shape)} but the others' is "
            f"{tuple(mean_q_NN.shape)}"
        )
    cross_entropy = -(mean_q_NN.detach() * log_p_NN).sum(dim=1).mean()
    return cross_entropy + negative_entropy


def distillation_loss(
    mutual_kl_value: torch.Tensor, weight: float, reduction: Reduction, batch_size: int
) -> torch.Tensor:
    """Returns the weighted term that is added to the peer's own objective.

    Args:
        mutual_kl_value: result of `mutual_kl`, in nats, mean over rows.
        weight: the distill weight, in units of `reduction`.
        reduction: the convention in which the weight is given.
        batch_size: N.
    """
    if reduction is Reduction.MEAN_OVER_ELEMENTS:
        weight = weight / batch_size
    return weight * mutual_kl_value
