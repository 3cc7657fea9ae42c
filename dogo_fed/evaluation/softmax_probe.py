"""Softmax regression on frozen features, for few, wrong or uneven labels as well as for all of them.

The number of updates is fixed, so that 50 labels get as much training as 50,000. The L2 penalty is
chosen on held-out labelled training images, as in Kornblith, Shlens, Le, "Do better ImageNet models
transfer better?", CVPR 2019. The held-out images have the labels that the probe is given, so noisy
labels stay noisy. The test images are never looked at. The problem is convex and starts at zero;
`docs/design/evaluation.md` says why these settings.
"""

# M = labelled images, B = images in an update, F = features, C = classes, G = penalties, K = G x C

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.features import FrozenFeatures
from dogo_fed.evaluation.pulse import beat
from dogo_fed.evaluation.subsets import hold_out

_ADAM_BETAS = (0.9, 0.999)
_ADAM_EPSILON = 1e-6
"""Large enough that a gradient that is nothing but rounding moves nothing (balanced biases)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRecipe:
    """How every probe of the protocols is trained; one recipe for all encoders and conditions.

    Weights are those of features divided by sqrt(F), so that rows have length 1 on average: the same
    penalty and learning rate are then as strong for 64 features as for 2048.

    Attributes:
        num_updates: of Adam, whatever the number of labels.
        batch_size: images in an update; all of them where there are fewer.
        learning_rate: of the first update; falls to zero along a cosine.
        penalties: L2 penalties to choose from, ascending. Half the product of one with the sum of
            squared weights is added to the mean cross-entropy in nats.
        fallback_penalty: used when nothing can be held out (one image in every class).
        held_out: share of each class's images that the choice is made on.
    """

    num_updates: int = 500
    batch_size: int = 256
    learning_rate: float = 0.5
    penalties: tuple[float, ...] = (1e-6, 1e-5, 1e-4)
    fallback_penalty: float = 1e-4
    held_out: float = 0.2


RECIPE = ProbeRecipe()


@dataclass(frozen=True, slots=True)
class SoftmaxClassifier:
    """A trained probe.

    Attributes:
        weight_FC, bias_C: for features prepared like those that it was trained on.
        penalty: the L2 penalty that was chosen.
    """

    weight_FC: torch.Tensor
    bias_C: torch.Tensor
    penalty: float

    def predict(self, features_NF: torch.Tensor) -> torch.Tensor:
        """Returns the class of every row: int64, shape N."""
        return (features_NF @ self.weight_FC + self.bias_C).argmax(dim=1)


def fit_probe(
    train: FrozenFeatures,
    num_classes: int,
    generator: torch.Generator,
    recipe: ProbeRecipe = RECIPE,
) -> SoftmaxClassifier:
    """Returns a probe trained on `train`, its penalty chosen on a part of `train`.

    Args:
        train: standardised features M x F and labels M, all from 0 to num_classes - 1.
        num_classes: C.
        generator: a CPU generator; decides what is held out and the order of the images.
        recipe: the settings.

    Raises:
        ConfigError: there is no labelled image.
    """
    if len(train.labels_N) == 0:
        raise ConfigError("a probe needs at least 1 labelled image, but there is none")
    penalty = recipe.fallback_penalty
    kept, held = hold_out(train.labels_N, num_classes, recipe.held_out, generator)
    if len(held):
        weight_GFC, bias_GC = fit(
            train.rows(kept), num_classes, recipe.penalties, generator, recipe
        )
        logits_GMC = train.features_NF[held] @ weight_GFC + bias_GC[:, None]
        losses = [
            float(F.cross_entropy(logits_MC, train.labels_N[held])) for logits_MC in logits_GMC
        ]
        best = min(range(len(losses)), key=lambda i: (losses[i], -recipe.penalties[i]))
        penalty = recipe.penalties[best]
    weight_GFC, bias_GC = fit(train, num_classes, (penalty,), generator, recipe)
    return SoftmaxClassifier(weight_GFC[0], bias_GC[0], penalty)


def fit(
    train: FrozenFeatures,
    num_classes: int,
    penalties: Sequence[float],
    generator: torch.Generator,
    recipe: ProbeRecipe = RECIPE,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns weights G x F x C (for the features as given) and biases G x C, one per penalty.

    All are trained at once, on the same batches; none sees the others. Adam (Kingma and Ba, ICLR
    2015) and the gradient of softmax regression, X^T (softmax - one-hot) / B, are written out:
    autograd would take longer than the arithmetic of so small a model.
    """
    scale = train.features_NF.shape[1] ** -0.5
    inputs_MF = F.pad(scale * train.features_NF, (0, 1), value=1.0)  # the last one is the bias
    targets_MC = F.one_hot(train.labels_N, num_classes).to(inputs_MF.dtype)
    num_models, (_, width) = len(penalties), inputs_MF.shape
    columns = num_models * num_classes  # the classifiers side by side: K = G C columns
    weight_FK = torch.zeros(width, columns, device=inputs_MF.device)
    first_FK, second_FK = torch.zeros_like(weight_FK), torch.zeros_like(weight_FK)
    decay_FK = torch.tensor(penalties, device=inputs_MF.device).repeat_interleave(num_classes)
    decay_FK = decay_FK.repeat(width, 1)
    decay_FK[-1] = 0.0
    beta_1, beta_2 = _ADAM_BETAS
    rates = _cosine(recipe.learning_rate, recipe.num_updates)
    batches = _batches(len(inputs_MF), recipe, generator)
    with torch.no_grad():
        for update, (rate, ids_B) in enumerate(zip(rates, batches, strict=True), start=1):
            x_BF = inputs_MF if ids_B is None else inputs_MF[ids_B]
            y_BC = targets_MC if ids_B is None else targets_MC[ids_B]
            logits_BGC = (x_BF @ weight_FK).view(-1, num_models, num_classes)
            error_BGC = torch.softmax(logits_BGC, dim=2).sub_(y_BC[:, None])
            gradient_FK = (x_BF.T @ error_BGC.view(-1, columns)).div_(len(x_BF))
            gradient_FK.addcmul_(decay_FK, weight_FK)
            first_FK.lerp_(gradient_FK, 1 - beta_1)
            second_FK.mul_(beta_2).addcmul_(gradient_FK, gradient_FK, value=1 - beta_2)
            scale_FK = (second_FK / (1 - beta_2**update)).sqrt_().add_(_ADAM_EPSILON)
            weight_FK.addcdiv_(first_FK, scale_FK, value=-rate / (1 - beta_1**update))
            beat()
    weight_GFC = weight_FK.view(width, num_models, num_classes).transpose(0, 1)
    return scale * weight_GFC[:, :-1], weight_GFC[:, -1]


def _cosine(first: float, number: int) -> list[float]:
    """Returns learning rates that fall from `first` to nearly zero along half a cosine."""
    turns = torch.arange(number, dtype=torch.float64) / number
    rates: list[float] = (first * 0.5 * (1 + torch.cos(torch.pi * turns))).tolist()
    return rates


def _batches(
    num_images: int, recipe: ProbeRecipe, generator: torch.Generator
) -> Iterator[torch.Tensor | None]:
    """Yields the image ids of every update; None stands for all images in their order."""
    if num_images <= recipe.batch_size:
        for _ in range(recipe.num_updates):
            yield None
        return
    waiting: list[torch.Tensor] = []
    for _ in range(recipe.num_updates):
        if not waiting:  # an epoch is over; what does not fill a batch is left out of it
            order_M = torch.randperm(num_images, generator=generator)
            full = num_images // recipe.batch_size * recipe.batch_size
            waiting = list(torch.split(order_M[:full], recipe.batch_size))
        yield waiting.pop()
