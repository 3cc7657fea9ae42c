"""MoCo v3: a view must match its image's key, and none of the other keys of its batch.

Source: Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV
2021, equation 1 and algorithm 1: no queue, a predictor, both directions. The keys come from a
momentum encoder.
"""

# N = images in the step's batch, D = embedding dimension, C, H, W = channels and pixels

from __future__ import annotations

import torch
from torch import nn

from dogo_fed.objectives.base import Embeddings, Objective, with_predictions
from dogo_fed.objectives.checks import check_positive, check_publish, check_sizes, check_views
from dogo_fed.objectives.contrast import contrast_cross_entropy
from dogo_fed.objectives.heads import moco_v3_predictor, moco_v3_projector
from dogo_fed.objectives.momentum import MomentumEncoder
from dogo_fed.objectives.similarity import products, unit_rows


def batch_contrast(
    query_ND: torch.Tensor, key_ND: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Returns 2 t times the mean over i of -log(e^(q_i.k_i / t) / sum_j e^(q_i.k_j / t)).

    Source: equation 1 with the keys of the same batch as negatives; the factor 2 t is algorithm
    1's. Queries and keys are normalised here. Gradients flow to the queries only.

    Args:
        query_ND: one view's embeddings.
        key_ND: the other view's, by the momentum encoder, same shape, N >= 2.
        temperature: t, greater than 0.

    Raises:
        ValueError: the shapes differ, N < 2, or the temperature is not positive.
    """
    check_views(query_ND, key_ND, min_images=2, name="the contrast within a batch")
    check_positive(temperature=temperature)
    query_ND, key_ND = unit_rows(query_ND), unit_rows(key_ND.detach())
    itself_N = torch.arange(len(query_ND), device=query_ND.device)

    def logits_of(rows: slice) -> torch.Tensor:
        return products(query_ND[rows], key_ND) / temperature

    return 2.0 * temperature * contrast_cross_entropy(logits_of, itself_N, len(key_ND))


class MoCoV3(Objective):
    """MoCo v3 over a backbone. It learns with the predictor's output, publishes the projector's."""

    moved_by_update = ("target.num_updates",)
    can_look_ahead = True

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        *,
        temperature: float = 0.2,
        hidden_dim: int = 4096,
        output_dim: int = 256,
        momentum: float = 0.99,
        momentum_steps: int | None = None,
        publish: str = "projector",
    ) -> None:
        """Builds projector, predictor and the momentum encoder.

        Args:
            backbone: images to pooled features of `feature_dim`; it is copied for the keys.
            feature_dim: F.
            temperature: divisor of the cosines in the loss, greater than 0.
            hidden_dim: width of the hidden layers of projector and predictor.
            output_dim: D.
            momentum: share of its old weights that the momentum encoder keeps at an update.
            momentum_steps: steps over which the momentum rises to 1. In the paper it is the length
                of the run, which an objective does not know. None keeps the momentum constant.
            publish: "projector", "predictor", or "target" for the momentum encoder's projector.

        Raises:
            ValueError: an option is out of range, or the backbone can't be copied.
        """
        check_positive(temperature=temperature)
        check_sizes(hidden_dim=hidden_dim, output_dim=output_dim)
        check_publish(publish, ("projector", "predictor", "target"))
        super().__init__(backbone)
        self.temperature = temperature
        self.learn_with, self.publish = "predictor", publish
        self.projector = moco_v3_projector(feature_dim, hidden_dim, output_dim)
        self.predictor = moco_v3_predictor(output_dim, hidden_dim)
        self.target = MomentumEncoder(backbone, self.projector, momentum, momentum_steps)

    def embed(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        """Returns the outputs of projector, predictor and momentum encoder, N x D each."""
        return {
            **with_predictions(super().embed(view_a_NCHW, view_b_NCHW), self.predictor),
            "target_a": self.target(view_a_NCHW),
            "target_b": self.target(view_b_NCHW),
        }

    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the sum of both directions' losses (algorithm 1)."""
        a_to_b = batch_contrast(seen["predictor_a"], seen["target_b"], self.temperature)
        b_to_a = batch_contrast(seen["predictor_b"], seen["target_a"], self.temperature)
        return a_to_b + b_to_a

    def after_update(self) -> None:
        """Moves the momentum encoder (algorithm 1)."""
        self.target.follow(self.backbone, self.projector)
