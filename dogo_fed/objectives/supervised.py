"""Supervised: cross entropy on the labels, through a linear classifier, as an upper bound.

It is not part of DoGo. It shows what the same backbone reaches with the same images, views and
steps if it knows the classes. Labels stay at the peer.
"""

# N = images in the step's batch, C, H, W = channels and pixels, F = feature dimension, K = classes

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from dogo_fed.objectives.base import Embeddings, Objective


class Supervised(Objective):
    """A linear classifier over the backbone. It learns with the features and publishes them."""

    can_look_ahead = True

    uses_labels: ClassVar[bool] = True

    def __init__(self, backbone: nn.Module, feature_dim: int, *, num_classes: int) -> None:
        """Builds the classifier.

        Args:
            backbone: images to pooled features of `feature_dim`.
            feature_dim: F.
            num_classes: K, at least 2.

        Raises:
            ValueError: there are fewer than 2 classes.
        """
        if num_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, not {num_classes}")
        super().__init__(backbone)
        self.learn_with = self.publish = "features"
        self.classifier = nn.Linear(feature_dim, num_classes)

    def embed(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        """Returns the backbone's features, N x F each."""
        return {"features_a": self.backbone(view_a_NCHW), "features_b": self.backbone(view_b_NCHW)}

    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the mean cross entropy over both views, in nats.

        Raises:
            ValueError: there are no labels.
        """
        if labels_N is None:
            raise ValueError("the objective supervised needs the labels of the batch")
        logits_2NK = self.classifier(torch.cat([seen["features_a"], seen["features_b"]]))
        return F.cross_entropy(logits_2NK, labels_N.repeat(2))
