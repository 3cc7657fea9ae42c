"""What the protocols with probes share: training one, its accuracy with an interval, checks."""

# M = labelled training images, N = test images, F = features

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from dogo_fed.contracts import Score
from dogo_fed.data.labels import why_no_accuracy
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.evaluation.features import FrozenFeatures
from dogo_fed.evaluation.intervals import wilson
from dogo_fed.evaluation.softmax_probe import fit_probe
from dogo_fed.evaluation.subject import Subject

TOP1 = "top1"


class Level(NamedTuple):
    """What orders the conditions of a group; see `Score`."""

    value: float
    name: str
    is_share: bool = False


NO_ORDER = Level(math.nan, "level")


def accuracy(predictions_N: torch.Tensor, labels_N: torch.Tensor) -> tuple[float, float, float]:
    """Returns the share of correct predictions and its 95 % interval (Wilson)."""
    num_correct, num_test = int((predictions_N == labels_N).sum()), len(labels_N)
    return num_correct / num_test, *wilson(num_correct, num_test)


def probe_score(
    subject: Subject,
    train: FrozenFeatures,
    *,
    protocol: str,
    condition: str,
    stream: str | None = None,
    draw: int = 0,
    group: str = "",
    level: Level = NO_ORDER,
) -> Score:
    """Returns the test accuracy of a probe trained on `train`, standardised features and labels.

    The probe's own random stream is named by protocol, condition and draw; `stream` stands for a
    condition whose words may change.
    """
    generator = subject.generator(protocol, condition if stream is None else stream, draw, "probe")
    probe = fit_probe(train, subject.num_classes, generator)
    test = subject.probe_test
    value, low, high = accuracy(probe.predict(test.features_NF), test.labels_N)
    return Score(protocol, condition, draw, TOP1, value, low, high, group, *level)


def check_accuracy(dataset: DataSet) -> None:
    """Asks whether an accuracy can be counted on a data set, before anything is computed.

    Raises:
        DataError: it can't, or it would say nothing; says why, and what can be measured.
    """
    reason = why_no_accuracy(dataset)
    if reason is not None:
        instead = "; protocol=health needs no labels" if len(dataset.test) else ""
        raise DataError(f"{dataset.title}: no accuracy can be counted: {reason}{instead}")


def check_draws(draws: int) -> None:
    """Raises ConfigError if there is nothing to draw."""
    if draws < 1:
        raise ConfigError(f"draws must be at least 1, not {draws}")


def check_listed(name: str, values: Sequence[object]) -> None:
    """Raises ConfigError if an option is no list, or lists a value twice."""
    if isinstance(values, str) or not isinstance(values, Sequence):
        raise ConfigError(f"{name} must be a list, e.g. {name}=[...], not {values!r}")
    if len(set(map(str, values))) != len(values):
        raise ConfigError(f"{name} lists a value twice: {list(values)}")


def share(value: float) -> str:
    """Returns a share as people write it in a condition: "1 %", "0.5 %"."""
    return f"{100 * value:g} %"
