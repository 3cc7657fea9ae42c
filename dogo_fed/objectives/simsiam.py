"""SimSiam: a predictor maps one view's embedding to the other's, whose gradient is stopped.

Source: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, equations 1 to 4
and algorithm 1.
"""

# N = images in the step's batch, D = embedding dimension

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dogo_fed.objectives.base import Embeddings, Objective, with_predictions
from dogo_fed.objectives.checks import check_publish, check_sizes, check_views, widened
from dogo_fed.objectives.heads import simsiam_predictor, simsiam_projector


def negative_cosine(p_ND: torch.Tensor, z_ND: torch.Tensor) -> torch.Tensor:
    """Returns the mean over images of -cos(p_i, stop_gradient(z_i)), in -1..1 (equations 1 and 3).

    Args:
        p_ND: predictions of one view.
        z_ND: projections of the other view, same shape.

    Raises:
        ValueError: the shapes differ.
    """
    check_views(p_ND, z_ND, min_images=1, name="the negative cosine")
    p_ND, z_ND = widened(p_ND, z_ND.detach())
    return -F.cosine_similarity(p_ND, z_ND, dim=1).mean()


class SimSiam(Objective):
    """SimSiam over a backbone.

    It learns with the predictor's output and publishes the projector's. That mirrors the asymmetry
    of its own loss, and the published code does the same for a SimSiam pair.
    """

    can_look_ahead = True

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        *,
        hidden_dim: int = 2048,
        output_dim: int = 2048,
        bottleneck_dim: int = 512,
        num_layers: int = 3,
        publish: str = "projector",
    ) -> None:
        """Builds projector and predictor.

        Args:
            backbone: images to pooled features of `feature_dim`.
            feature_dim: F.
            hidden_dim: width of the projector's hidden layers.
            output_dim: D, width of the outputs of projector and predictor.
            bottleneck_dim: width of the predictor's hidden layer.
            num_layers: number of the projector's layers.
            publish: "projector", or "predictor" as in the published code's mixed pairs.

        Raises:
            ValueError: `publish` is another name, or a size is below 1.
        """
        check_sizes(
            hidden_dim=hidden_dim,
            output_dim=output_dim,
            bottleneck_dim=bottleneck_dim,
            num_layers=num_layers,
        )
        check_publish(publish, ("projector", "predictor"))
        super().__init__(backbone)
        self.learn_with, self.publish = "predictor", publish
        self.projector = simsiam_projector(feature_dim, hidden_dim, output_dim, num_layers)
        self.predictor = simsiam_predictor(output_dim, bottleneck_dim)

    def embed(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        """Returns the outputs of projector and predictor, N x D each."""
        return with_predictions(super().embed(view_a_NCHW, view_b_NCHW), self.predictor)

    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the mean of both directions' losses, in -1..1 (equation 4)."""
        a_to_b = negative_cosine(seen["predictor_a"], seen["projector_b"])
        b_to_a = negative_cosine(seen["predictor_b"], seen["projector_a"])
        return (a_to_b + b_to_a) / 2
