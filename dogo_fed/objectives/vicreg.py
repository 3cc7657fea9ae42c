"""VICReg: the views agree, every output keeps its variance, outputs are not correlated.

Source: Bardes, Ponce and LeCun, "VICReg: Variance-Invariance-Covariance Regularization for
Self-Supervised Learning", ICLR 2022, equations 1 to 6 and algorithm 1.
"""

# N = images in the step's batch, D = embedding dimension, C, H, W = channels and pixels

from __future__ import annotations

import torch
from torch import nn

from dogo_fed.objectives.base import Embeddings, Objective
from dogo_fed.objectives.checks import check_not_negative, check_sizes, check_views, widened
from dogo_fed.objectives.heads import vicreg_expander

EPSILON = 1e-4
"""The paper's epsilon, under the root of equation 2."""


def variance_term(z_ND: torch.Tensor) -> torch.Tensor:
    """Returns the mean over outputs of max(0, gamma - sqrt(Var + epsilon)) (equations 1 and 2).

    Gamma is 1. The variance is the unbiased one (divided by N - 1), as in algorithm 1.
    """
    deviation_D = torch.sqrt(z_ND.var(dim=0) + EPSILON)
    return torch.relu(1.0 - deviation_D).mean()


def covariance_term(z_ND: torch.Tensor) -> torch.Tensor:
    """Returns the sum of the squared off-diagonal covariances, divided by D (equations 3 and 4)."""
    num_images, dim = z_ND.shape
    centred_ND = z_ND - z_ND.mean(dim=0)
    covariance_DD = centred_ND.T @ centred_ND / (num_images - 1)
    off_diagonal_DD = covariance_DD - torch.diag(torch.diagonal(covariance_DD))
    return off_diagonal_DD.square().sum() / dim


def vicreg_loss(
    z_a_ND: torch.Tensor,
    z_b_ND: torch.Tensor,
    *,
    invariance_weight: float,
    variance_weight: float,
    covariance_weight: float,
) -> torch.Tensor:
    """Returns lambda s + mu (v(a) + v(b)) + nu (c(a) + c(b)) (equation 6).

    s is the squared distance of the two views, mean over images and outputs. The paper's equation 5
    sums over the outputs; its algorithm 1 takes the mean, and the weights of 25, 25 and 1 belong to
    that. For the equation to the letter, multiply `invariance_weight` by D.

    Args:
        z_a_ND: embeddings of the first view.
        z_b_ND: embeddings of the second view, same shape, N >= 2.
        invariance_weight: lambda, 0 or more.
        variance_weight: mu, 0 or more.
        covariance_weight: nu, 0 or more.

    Raises:
        ValueError: the shapes differ, N < 2, or a weight is negative.
    """
    check_views(z_a_ND, z_b_ND, min_images=2, name="VICReg")
    check_not_negative(
        invariance_weight=invariance_weight,
        variance_weight=variance_weight,
        covariance_weight=covariance_weight,
    )
    with torch.autocast(device_type=z_a_ND.device.type, enabled=False):
        a_ND, b_ND = widened(z_a_ND, z_b_ND)
        invariance = (a_ND - b_ND).square().mean()
        variance = variance_term(a_ND) + variance_term(b_ND)
        covariance = covariance_term(a_ND) + covariance_term(b_ND)
        return (
            invariance_weight * invariance
            + variance_weight * variance
            + covariance_weight * covariance
        )


class VICReg(Objective):
    """VICReg over a backbone. It learns with the expander's output and publishes it."""

    can_look_ahead = True

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        *,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 1.0,
        hidden_dim: int = 8192,
        output_dim: int = 8192,
    ) -> None:
        """Builds the expander, which is called `projector` as in all objectives.

        Args:
            backbone: images to pooled features of `feature_dim`.
            feature_dim: F.
            invariance_weight: lambda, 0 or more.
            variance_weight: mu, 0 or more.
            covariance_weight: nu, 0 or more.
            hidden_dim: width of the two hidden layers.
            output_dim: D; the loss needs memory for two D x D matrices.

        Raises:
            ValueError: a weight is negative, or a size is below 1.
        """
        weights = {
            "invariance_weight": invariance_weight,
            "variance_weight": variance_weight,
            "covariance_weight": covariance_weight,
        }
        check_not_negative(**weights)
        check_sizes(hidden_dim=hidden_dim, output_dim=output_dim)
        super().__init__(backbone)
        self.weights = weights
        self.projector = vicreg_expander(feature_dim, hidden_dim, output_dim)

    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the weighted sum of the three terms (equation 6)."""
        return vicreg_loss(seen["projector_a"], seen["projector_b"], **self.weights)
