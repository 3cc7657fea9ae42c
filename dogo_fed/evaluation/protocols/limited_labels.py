"""Few labels: the probe sees a stratified part of the training images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dogo_fed.contracts import Score
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.protocols.probing import (
    Level,
    check_draws,
    check_listed,
    probe_score,
    share,
)
from dogo_fed.evaluation.subject import Subject
from dogo_fed.evaluation.subsets import check_sizes, choose, class_sizes, fraction_sizes

_NAME = "limited_labels"


def limited_labels(
    subject: Subject,
    *,
    fractions: Sequence[float] = (0.01, 0.1),
    per_class: Sequence[int] = (5, 25),
    draws: int = 5,
) -> list[Score]:
    """Returns a score per amount of labels and draw.

    Within a draw, fewer labels are a part of more labels. The features are those of the encoder;
    only the probe sees labels.

    Args:
        subject: the encoder on a data set.
        fractions: of every class's labelled images, e.g. 0.01.
        per_class: numbers of images per class.
        draws: random subsets of each amount.

    Raises:
        ConfigError: a class has fewer images than asked for, or a value is out of range.
    """
    check_draws(draws)
    amounts = amounts_of(subject.dataset, fractions=fractions, per_class=per_class)
    train = subject.probe_train
    scores = []
    for condition, sizes in amounts.items():
        for draw in range(draws):
            ids_M = choose(train.labels_N, sizes, subject.generator(_NAME, draw))
            part = train.rows(ids_M)
            scores.append(
                probe_score(
                    subject,
                    part,
                    protocol=_NAME,
                    condition=condition,
                    draw=draw,
                    level=Level(len(ids_M), "labelled images"),
                )
            )
    return scores


def amounts_of(
    dataset: DataSet,
    *,
    fractions: Sequence[float] = (0.01, 0.1),
    per_class: Sequence[int] = (5, 25),
    **others: object,
) -> dict[str, list[int]]:
    """Returns for each amount of labels how many images of each class it has, the least first.

    Args:
        dataset: whose training images they are.
        fractions: see `limited_labels`.
        per_class: see `limited_labels`.
        others: its other options, which say nothing of this.

    Raises:
        ConfigError: a class has fewer images than asked for, or a value is out of range.
    """
    check_listed("fractions", fractions)
    check_listed("per_class", per_class)
    labels_N, num_classes = dataset.train.labels, dataset.num_classes
    amounts = {
        f"{share(fraction)} of the labels": fraction_sizes(labels_N, num_classes, fraction)
        for fraction in fractions
    }
    for number in per_class:
        amounts[f"{number} per class"] = _equal_sizes(labels_N, num_classes, number)
    smallest = min((size for size in class_sizes(labels_N, num_classes) if size), default=0)
    fitting = [number for number in per_class if number < smallest] + [smallest]
    for sizes in amounts.values():
        try:
            check_sizes(labels_N, sizes, dataset.class_names)
        except ConfigError as error:
            raise ConfigError(
                f"{error}, such as per_class=[{','.join(map(str, fitting))}] among its options"
            ) from error
    return dict(sorted(amounts.items(), key=lambda item: sum(item[1])))


def _equal_sizes(labels_N: torch.Tensor, num_classes: int, number: int) -> list[int]:
    """Returns `number` for every class that has images; an impossible number is an error."""
    if number < 1:
        raise ConfigError(f"per_class must be at least 1, not {number}")
    return [number if size else 0 for size in class_sizes(labels_N, num_classes)]
