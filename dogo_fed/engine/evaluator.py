"""A peer's evaluations, with the run's settings: kNN at the end of rounds, linear probe at the end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from dogo_fed import seeding
from dogo_fed.config import EvalConfig
from dogo_fed.contracts import PeerId
from dogo_fed.data.augment import normalise
from dogo_fed.data.source import DataSet, ImageSource
from dogo_fed.evaluation import FrozenFeatures, extract_features, frozen, knn_top1, linear_probe


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Evaluates a backbone on a data set's training (bank) and test images."""

    dataset: DataSet
    settings: EvalConfig
    device: torch.device
    run_seed: int
    peer: PeerId

    def knn(self, backbone: nn.Module) -> float:
        """Returns the accuracy of the weighted kNN, 0 to 1.

        Raises:
            EvaluationError: the backbone is not the same afterwards.
        """
        with frozen(backbone):
            return self._knn(*self._features(backbone))

    def knn_and_linear(self, backbone: nn.Module) -> tuple[float, float]:
        """Returns the accuracies of kNN and linear probe, from one extraction; NaN if it is off.

        Raises:
            EvaluationError: the backbone is not the same afterwards.
        """
        with frozen(backbone):
            bank, queries = self._features(backbone)
            knn = self._knn(bank, queries)
            if not self.settings.linear:
                return knn, float("nan")
            probe = linear_probe(
                bank,
                queries,
                self.dataset.num_classes,
                seeding.generator(self.run_seed, self.peer, "linear probe"),
                epochs=self.settings.linear_epochs,
            )
        return knn, probe.top1

    def _knn(self, bank: FrozenFeatures, queries: FrozenFeatures) -> float:
        return knn_top1(
            bank, queries, k=self.settings.knn_k, temperature=self.settings.knn_temperature
        )

    def _features(self, backbone: nn.Module) -> tuple[FrozenFeatures, FrozenFeatures]:
        return self._extract(backbone, self.dataset.train), self._extract(
            backbone, self.dataset.test
        )

    def _extract(self, backbone: nn.Module, source: ImageSource) -> FrozenFeatures:
        return extract_features(
            backbone,
            source,
            lambda images: normalise(images, self.dataset.mean, self.dataset.std),
            batch_size=self.settings.batch_size,
            device=self.device,
        )
