"""Cosine similarity of two views of a batch, and its row softmax: what peers teach each other with.

Source: Bhat et al., "Distill on the Go", CVPR Workshops 2021, method figure:
P = softmax(sim(Z', Z'') / tau).
"""

# N = images in the step's batch, D = embedding dimension

from __future__ import annotations

import torch
import torch.nn.functional as F


def unit_rows(z_ND: torch.Tensor) -> torch.Tensor:
    """Returns the embeddings at unit length, in float32 or wider, whatever their precision."""
    with torch.autocast(device_type=z_ND.device.type, enabled=False):
        return F.normalize(z_ND.to(torch.promote_types(z_ND.dtype, torch.float32)), dim=1)


def cosine_similarity(a_ND: torch.Tensor, b_ND: torch.Tensor) -> torch.Tensor:
    """Returns the N x N cosines between every row of `a_ND` and every row of `b_ND`, in -1..1.

    It is one product of normalised matrices, so it needs N x N memory and not N x N x D. It is
    computed in float32 or wider, whatever the precision of the input, and autocast is off.
    """
    return products(unit_rows(a_ND), unit_rows(b_ND))


def products(a_ND: torch.Tensor, b_MD: torch.Tensor) -> torch.Tensor:
    """Returns the N x M scalar products of every row of one with every row of the other.

    Autocast is off, so they are as precise as their inputs.
    """
    with torch.autocast(device_type=a_ND.device.type, enabled=False):
        return a_ND @ b_MD.T


def log_similarity_distribution(
    a_ND: torch.Tensor, b_ND: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Returns the log of the row softmax of the two views' cosine similarities.

    Row i compares image i of the first view with all images of the second. The diagonal, the
    positive pairs, is kept.

    Args:
        a_ND: embeddings of the first view.
        b_ND: embeddings of the second view, same shape.
        temperature: divisor of the cosines, greater than 0; the paper uses 0.1.

    Returns:
        log p, N x N, float32 or wider; the exponentials of every row sum to 1.

    Raises:
        ValueError: the shapes differ or the temperature is not positive.
    """
    if a_ND.shape != b_ND.shape or a_ND.ndim != 2:
        raise ValueError(
            f"views must be two N x D matrices of one shape, not {tuple(a_ND.shape)} and "
            f"{tuple(b_ND.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0, not {temperature}")
    return F.log_softmax(cosine_similarity(a_ND, b_ND) / temperature, dim=1)


def negative_entropy(p_NN: torch.Tensor, log_p_NN: torch.Tensor) -> torch.Tensor:
    """Returns the mean over rows of sum_j p_ij log p_ij, in -log N..0 nats, as a float64 scalar."""
    return (p_NN * log_p_NN).sum(dim=1, dtype=torch.float64).mean()
