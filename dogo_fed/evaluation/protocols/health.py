"""Health of the representation, without labels: spread, rank, alignment, uniformity."""

# B = images in a batch, N = test images, F = features

from __future__ import annotations

import dataclasses

import torch

from dogo_fed import seeding
from dogo_fed.contracts import Score
from dogo_fed.data.adapt import adapted
from dogo_fed.data.augment import build_augmentation
from dogo_fed.evaluation.features import evaluation_mode, mark_pass
from dogo_fed.evaluation.pulse import beat
from dogo_fed.evaluation.representation import alignment, feature_std, rankme, uniformity
from dogo_fed.evaluation.subject import Subject

_NAME = "health"
_TEST, _TRAINING = "test images", "training images"
_FEWEST = 2
"""Images of which spread and rank can be told."""
_VIEWS_BATCH = 256


def health(subject: Subject, *, augmentation: str = "simclr") -> list[Score]:
    """Returns one score per meter, all on the backbone's features of the test images.

    Where there are none, it is those of the training images.

    std_mean, std_min: over the dimensions, of the deviation of normalised features times sqrt(F).
    rankme and rankme_share: the effective rank, and as a share of the largest possible.
    alignment: between two augmented views. uniformity: between clean images.

    Args:
        subject: the encoder on a data set.
        augmentation: how the two views are drawn, the same for every encoder.

    Raises:
        ConfigError: there is no such augmentation.
    """
    condition = _TEST if len(subject.dataset.test) >= _FEWEST else _TRAINING
    if condition == _TRAINING:
        subject = subject.on(dataclasses.replace(subject.dataset, test=subject.dataset.train))
    view_a_NF, view_b_NF = _views(subject, augmentation)
    features_NF = subject.test.features_NF
    std_F = feature_std(features_NF)
    rank = rankme(features_NF)
    meters = {
        "std_mean": float(std_F.mean()),
        "std_min": float(std_F.min()),
        "rankme": rank,
        "rankme_share": rank / min(features_NF.shape),
        "alignment": alignment(view_a_NF, view_b_NF),
        "uniformity": uniformity(features_NF),
    }
    return [Score(_NAME, condition, 0, name, value) for name, value in meters.items()]


def _views(subject: Subject, augmentation: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the features of two views of every test image, each N x F."""
    encoder, inputs = subject.encoder, subject.encoder.inputs
    make_views = build_augmentation(augmentation, {}, inputs.image_size, inputs.mean, inputs.std)
    source = adapted(subject.dataset.test, inputs.image_size, len(inputs.mean))
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    with evaluation_mode(encoder.backbone), torch.no_grad():
        for index, ids_B in enumerate(torch.split(torch.arange(len(source)), _VIEWS_BATCH)):
            names = ("evaluation", subject.dataset.name, _NAME, index)
            with seeding.stream(subject.seed, *names, device=encoder.device):
                mark_pass(encoder.backbone)
                views = make_views(source.images(ids_B).to(encoder.device))
                a_BF, b_BF = (encoder.backbone(view_BCHW).flatten(1) for view_BCHW in views)
            parts.append((a_BF.float().cpu(), b_BF.float().cpu()))
            beat()
    return torch.cat([a_BF for a_BF, _ in parts]), torch.cat([b_BF for _, b_BF in parts])
