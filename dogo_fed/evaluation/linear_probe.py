"""Linear probe: a linear classifier on frozen features, its accuracy counted on every test image.

Features are extracted before, so the backbone can't be changed here. They are shifted and scaled
by the training images' mean and standard deviation: the classifier stays linear in the features,
and one learning rate fits backbones whose features differ in scale. No epoch is chosen as the best,
so no validation split is needed: the test images are looked at once, after the last epoch.
"""

# M = training images, N = test images, B = images in a batch, F = features, C = classes

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dogo_fed.errors import ConfigError, DataError
from dogo_fed.evaluation.features import FrozenFeatures
from dogo_fed.evaluation.pulse import beat


@dataclass(frozen=True, slots=True)
class LinearProbeResult:
    """What a linear probe found.

    Attributes:
        top1: num_correct / num_test, 0 to 1.
        num_test: labelled test images; every one is counted.
        train_loss: mean cross-entropy over the last epoch, in nats.
    """

    top1: float
    num_correct: int
    num_test: int
    train_loss: float


def linear_probe(
    train: FrozenFeatures,
    test: FrozenFeatures,
    num_classes: int,
    generator: torch.Generator,
    epochs: int = 50,
    learning_rate: float = 0.01,
    batch_size: int = 256,
    weight_decay: float = 1e-6,
) -> LinearProbeResult:
    """Returns the accuracy on `test` of a linear classifier trained on `train`.

    Cross-entropy and Adam; the learning rate falls to zero along a cosine over all updates. The
    weights start at zero (the problem is convex), so the batch order, from `generator`, is the only
    randomness and torch's global random state is not used. Unlabelled images (-1) are left out.

    Args:
        train: features M x F and labels M.
        test: features N x F and labels N.
        num_classes: classes of the data set; labels are below it.
        generator: a CPU generator, for example from `dogo_fed.seeding.generator`.
        epochs: passes over the training images.
        learning_rate: of the first update.
        batch_size: images in an update; the last of an epoch may be smaller.
        weight_decay: L2 penalty as in Adam.

    Raises:
        ConfigError: a setting is impossible.
        DataError: no labelled images, a label outside the classes, or widths that differ.
    """
    _check_settings(epochs, learning_rate, batch_size, weight_decay)
    train, test = train.labelled("linear probe, training"), test.labelled("linear probe, test")
    _check_data(train, test, num_classes)
    standardise = Standardiser.of(train.features_NF)
    train, test = standardise(train), standardise(test)
    weight_CF, bias_C, train_loss = _fit(
        train, num_classes, generator, epochs, learning_rate, batch_size, weight_decay
    )
    predictions_N = F.linear(test.features_NF, weight_CF, bias_C).argmax(dim=1)
    num_correct = int((predictions_N == test.labels_N).sum())
    num_test = len(test.labels_N)
    return LinearProbeResult(num_correct / num_test, num_correct, num_test, train_loss)


@dataclass(frozen=True, slots=True)
class Standardiser:
    """Shifts and scales features by mean and standard deviation of some training images' features.

    Attributes:
        mean_F, scale_F: a feature that is constant up to rounding has the scale 1.
    """

    mean_F: torch.Tensor
    scale_F: torch.Tensor

    @classmethod
    def of(cls, features_MF: torch.Tensor) -> Standardiser:
        """Returns the standardiser of these images."""
        std_F, mean_F = torch.std_mean(features_MF, dim=0, correction=0)
        varies_F = std_F > 1e-6 * mean_F.abs() + 1e-12
        return cls(mean_F, torch.where(varies_F, std_F, torch.ones_like(std_F)))

    def __call__(self, features: FrozenFeatures) -> FrozenFeatures:
        """Returns the features shifted and scaled, with their labels."""
        return FrozenFeatures(
            (features.features_NF - self.mean_F) / self.scale_F, features.labels_N
        )


def _fit(
    train: FrozenFeatures,
    num_classes: int,
    generator: torch.Generator,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    weight_decay: float,
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Returns weights C x F, biases C and the mean loss (nats) of the last epoch."""
    num_images, num_features = train.features_NF.shape
    device = train.features_NF.device
    weight_CF = torch.zeros(num_classes, num_features, device=device, requires_grad=True)
    bias_C = torch.zeros(num_classes, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([weight_CF, bias_C], lr=learning_rate, weight_decay=weight_decay)
    num_updates = epochs * math.ceil(num_images / batch_size)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=num_updates)
    for _ in range(epochs):
        order_M = torch.randperm(num_images, generator=generator).to(device)
        loss_sum = torch.zeros((), device=device)
        for ids_B in torch.split(order_M, batch_size):
            with torch.enable_grad():
                logits_BC = F.linear(train.features_NF[ids_B], weight_CF, bias_C)
                loss = F.cross_entropy(logits_BC, train.labels_N[ids_B])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            loss_sum += loss.detach() * len(ids_B)
            beat()
    return weight_CF.detach(), bias_C.detach(), float(loss_sum) / num_images


def _check_settings(
    epochs: int, learning_rate: float, batch_size: int, weight_decay: float
) -> None:
    """Raises ConfigError if a setting is impossible."""
    if epochs < 1 or batch_size < 1:
        raise ConfigError(
            f"linear probe: epochs ({epochs}) and batch_size ({batch_size}) must be at least 1"
        )
    if not learning_rate > 0.0 or not weight_decay >= 0.0:
        raise ConfigError(
            f"linear probe: learning_rate ({learning_rate}) must be positive and weight_decay "
            f"({weight_decay}) not negative"
        )


def _check_data(train: FrozenFeatures, test: FrozenFeatures, num_classes: int) -> None:
    """Raises DataError if training and test images do not belong to one problem."""
    if train.features_NF.shape[1] != test.features_NF.shape[1]:
        raise DataError(
            f"linear probe: {train.features_NF.shape[1]} features in training but "
            f"{test.features_NF.shape[1]} in test; use the same backbone for both"
        )
    highest = int(torch.cat([train.labels_N, test.labels_N]).max())
    if highest >= num_classes:
        raise DataError(
            f"linear probe: label {highest} in a data set of {num_classes} classes (0 to "
            f"{num_classes - 1})"
        )
