"""What is measured during a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from dogo_fed.config.checks import require, require_positive
from dogo_fed.config.scopes import AGREED, SCORES

USUAL_KNN_TEMPERATURE = 0.07
"""Divisor of the cosines (Wu et al. 2018)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """What is measured, on frozen features, on each peer's own machine.

    Attributes:
        knn_every_rounds: rounds between two evaluations by weighted kNN; the last round has one
            too.
        knn_k, knn_temperature: of the weighted kNN. Without k it is 200, or a tenth of the labelled
            training images if they are fewer than 2,000.
        health: whether the health of the features (spread, rank, alignment, uniformity), which needs
            no labels, is measured at every round; null: if no accuracy can be.
        test_share: how much of the training images is held out if there are no test images.
        linear: whether to end with a linear probe.
        linear_epochs: length of the linear probe.
        batch_size: images per forward pass of feature extraction.
    """

    knn_every_rounds: int = field(default=1, metadata=SCORES)
    knn_k: int | None = field(default=None, metadata=SCORES)
    knn_temperature: float = field(default=USUAL_KNN_TEMPERATURE, metadata=SCORES)
    health: bool | None = field(default=None, metadata=SCORES)
    test_share: float = field(default=0.1, metadata=AGREED)
    linear: bool = field(default=True, metadata=SCORES)
    linear_epochs: int = field(default=50, metadata=SCORES)
    batch_size: int = field(default=500, metadata=SCORES)

    def __post_init__(self) -> None:
        require_positive(
            "eval.",
            knn_every_rounds=self.knn_every_rounds,
            knn_k=self.knn_k,
            knn_temperature=self.knn_temperature,
            linear_epochs=self.linear_epochs,
            batch_size=self.batch_size,
        )
        require(
            0.0 <= self.test_share < 1.0,
            f"eval.test_share must be at least 0 and below 1, not {self.test_share}",
        )
