"""Barlow Twins: the cross-correlation of two views' embeddings is pulled towards the identity.

Source: Zbontar et al., "Barlow Twins: Self-Supervised Learning via Redundancy Reduction", ICML
2021, equations 1 and 2.
"""

# N = images in the step's batch, D = embedding dimension, C, H, W = channels and pixels

from __future__ import annotations

import torch
from torch import nn

from dogo_fed.objectives.base import Embeddings, Objective
from dogo_fed.objectives.checks import check_not_negative, check_sizes, check_views, widened
from dogo_fed.objectives.heads import barlow_twins_projector

EPSILON = 1e-5
"""Added to every variance. Equation 2 has no such term; implementations that standardise by batch
normalisation add this value. It keeps the loss of a constant output finite."""


def cross_correlation(z_a_ND: torch.Tensor, z_b_ND: torch.Tensor) -> torch.Tensor:
    """Returns the correlations of one view's outputs with the other's, D x D (equation 2).

    Means and variances are over the batch; the variance is the biased one (divided by N).

    Args:
        z_a_ND: embeddings of the first view.
        z_b_ND: embeddings of the second view, same shape, N >= 2.

    Raises:
        ValueError: the shapes differ, or N < 2.
    """
    check_views(z_a_ND, z_b_ND, min_images=2, name="the cross-correlation")
    with torch.autocast(device_type=z_a_ND.device.type, enabled=False):
        a_ND, b_ND = (_standardised(z_ND) for z_ND in widened(z_a_ND, z_b_ND))
        return a_ND.T @ b_ND / len(a_ND)


def barlow_twins_loss(
    z_a_ND: torch.Tensor, z_b_ND: torch.Tensor, off_diagonal_weight: float
) -> torch.Tensor:
    """Returns sum_i (1 - C_ii)^2 + weight * sum_i sum_(j != i) C_ij^2 (equation 1).

    It is a sum over outputs, so it grows with D: about D for embeddings without any correlation.

    Args:
        z_a_ND: embeddings of the first view.
        z_b_ND: embeddings of the second view, same shape, N >= 2.
        off_diagonal_weight: the paper's lambda, 0 or more.

    Raises:
        ValueError: the shapes differ, N < 2, or the weight is negative.
    """
    check_not_negative(off_diagonal_weight=off_diagonal_weight)
    c_DD = cross_correlation(z_a_ND, z_b_ND)
    diagonal_D = torch.diagonal(c_DD)
    off_diagonal_DD = c_DD - torch.diag(diagonal_D)
    invariance = (1.0 - diagonal_D).square().sum()
    return invariance + off_diagonal_weight * off_diagonal_DD.square().sum()


def _standardised(z_ND: torch.Tensor) -> torch.Tensor:
    variance_D, mean_D = torch.var_mean(z_ND, dim=0, correction=0)
    return (z_ND - mean_D) / torch.sqrt(variance_D + EPSILON)


class BarlowTwins(Objective):
    """Barlow Twins over a backbone. It learns with the projector's output and publishes it."""

    can_look_ahead = True

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        *,
        off_diagonal_weight: float = 0.005,
        hidden_dim: int = 8192,
        output_dim: int = 8192,
    ) -> None:
        """Builds the projector.

        Args:
            backbone: images to pooled features of `feature_dim`.
            feature_dim: F.
            off_diagonal_weight: weight of the redundancy reduction, the paper's lambda, 0 or more.
            hidden_dim: width of the projector's two hidden layers.
            output_dim: D; the loss needs memory for a D x D matrix.

        Raises:
            ValueError: the weight is negative, or a size is below 1.
        """
        check_not_negative(off_diagonal_weight=off_diagonal_weight)
        check_sizes(hidden_dim=hidden_dim, output_dim=output_dim)
        super().__init__(backbone)
        self.off_diagonal_weight = off_diagonal_weight
        self.projector = barlow_twins_projector(feature_dim, hidden_dim, output_dim)

    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the loss of equation 1."""
        return barlow_twins_loss(seen["projector_a"], seen["projector_b"], self.off_diagonal_weight)
