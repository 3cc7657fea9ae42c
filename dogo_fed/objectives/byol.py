"""BYOL: a predictor maps one view's embedding to a momentum copy's embedding of the other view.

Source: Grill et al., "Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
NeurIPS 2020, equations 1 and 2; the loss of both directions is their sum (section 3.1).
"""

# N = images in the step's batch, D = embedding dimension, C, H, W = channels and pixels

from __future__ import annotations

import torch
from torch import nn

from dogo_fed.objectives.base import Embeddings, Objective, with_predictions
from dogo_fed.objectives.checks import check_publish, check_sizes
from dogo_fed.objectives.heads import byol_head
from dogo_fed.objectives.momentum import MomentumEncoder
from dogo_fed.objectives.simsiam import negative_cosine


def byol_regression(p_ND: torch.Tensor, target_ND: torch.Tensor) -> torch.Tensor:
    """Returns the mean over images of |p / |p| - t / |t||^2, in 0..4 (equation 2).

    That is 2 - 2 cos(p, t). No gradient flows to the target.

    Args:
        p_ND: the online network's predictions.
        target_ND: the target network's projections, same shape.

    Raises:
        ValueError: the shapes differ.
    """
    return 2.0 + 2.0 * negative_cosine(p_ND, target_ND)


class BYOL(Objective):
    """BYOL over a backbone. It learns with the predictor's output and publishes the projector's."""

    moved_by_update = ("target.num_updates",)
    can_look_ahead = True

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        *,
        hidden_dim: int = 4096,
        output_dim: int = 256,
        momentum: float = 0.996,
        momentum_steps: int | None = None,
        publish: str = "projector",
    ) -> None:
        """Builds projector, predictor and the target network.

        Args:
            backbone: images to pooled features of `feature_dim`; it is copied for the target.
            feature_dim: F.
            hidden_dim: width of the hidden layers of projector and predictor.
            output_dim: D.
            momentum: share of its old weights that the target keeps at an update.
            momentum_steps: steps over which the momentum rises to 1. In the paper it is the length
                of the run, which an objective does not know. None keeps the momentum constant.
            publish: "projector", "predictor", or "target" for the target's projector.

        Raises:
            ValueError: an option is out of range, or the backbone can't be copied.
        """
        check_sizes(hidden_dim=hidden_dim, output_dim=output_dim)
        check_publish(publish, ("projector", "predictor", "target"))
        super().__init__(backbone)
        self.learn_with, self.publish = "predictor", publish
        self.projector = byol_head(feature_dim, hidden_dim, output_dim)
        self.predictor = byol_head(output_dim, hidden_dim, output_dim)
        self.target = MomentumEncoder(backbone, self.projector, momentum, momentum_steps)

    def embed(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        """Returns the outputs of projector, predictor and target, N x D each."""
        return {
            **with_predictions(super().embed(view_a_NCHW, view_b_NCHW), self.predictor),
            "target_a": self.target(view_a_NCHW),
            "target_b": self.target(view_b_NCHW),
        }

    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the sum of both directions' losses, in 0..8 (section 3.1)."""
        a_to_b = byol_regression(seen["predictor_a"], seen["target_b"])
        b_to_a = byol_regression(seen["predictor_b"], seen["target_a"])
        return a_to_b + b_to_a

    def after_update(self) -> None:
        """Moves the target network (equation 1)."""
        self.target.follow(self.backbone, self.projector)
