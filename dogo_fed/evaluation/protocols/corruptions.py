"""Robustness: a probe trained on clean images, tested on corrupted ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dogo_fed.contracts import Score
from dogo_fed.data.source import ImageSource, Subset
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from dogo_fed.evaluation.corruptions.source import check_corruption
from dogo_fed.evaluation.protocols.probing import TOP1, accuracy, check_listed
from dogo_fed.evaluation.softmax_probe import SoftmaxClassifier, fit_probe
from dogo_fed.evaluation.subject import Subject

_NAME = "corruptions"


def corruptions(
    subject: Subject,
    *,
    names: Sequence[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    test_images: int | None = None,
) -> list[Score]:
    """Returns a score for clean images, one per corruption and severity, and the mean of the latter.

    The mean is of accuracies, over corruptions and severities alike; it has no interval, since all
    conditions share the test images.

    Args:
        subject: the encoder on a data set.
        names: which corruptions, by name.
        severities: which, from 1 to 5.
        test_images: how many test images, chosen at random; None takes all.

    Raises:
        ConfigError: a name, severity or number of images is impossible.
    """
    check_listed("names", names)
    check_listed("severities", severities)
    if not names or not severities:
        raise ConfigError("names and severities must list at least one each")
    for name in names:
        for severity in severities:
            check_corruption(name, severity)
    images = _test_images(subject, test_images)
    probe = fit_probe(subject.probe_train, subject.num_classes, subject.generator(_NAME, "probe"))
    scores = [_score(subject, probe, images, "clean", "", 0)]
    for name in names:
        for severity in severities:
            changed = corrupted(images, name, severity, subject.seed)
            condition = f"{name}, severity {severity}"
            scores.append(_score(subject, probe, changed, condition, name, severity))
    mean = sum(score.value for score in scores[1:]) / len(scores[1:])
    return [*scores, Score(_NAME, "mean over all corrupted", 0, TOP1, mean)]


def _score(
    subject: Subject,
    probe: SoftmaxClassifier,
    images: ImageSource,
    condition: str,
    group: str,
    severity: int,
) -> Score:
    """Returns the probe's accuracy on these images."""
    features = subject.encoder.features(images).labelled("corrupted test images")
    test = subject.standardiser(features)
    result = accuracy(probe.predict(test.features_NF), test.labels_N)
    return Score(_NAME, condition, 0, TOP1, *result, group, float(severity), "severity")


def _test_images(subject: Subject, number: int | None) -> ImageSource:
    """Returns the test images, or a random part of them."""
    source = subject.dataset.test
    if number is None:
        return source
    if not 1 <= number <= len(source):
        raise ConfigError(
            f"test_images must be from 1 to the {len(source)} that {subject.dataset.title} has, not "
            f"{number}"
        )
    order_N = torch.randperm(len(source), generator=subject.generator(_NAME, "test images"))
    return Subset(source, order_N[:number].sort().values)
