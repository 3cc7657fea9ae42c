"""Uneven classes: the probe is trained on a long-tailed part, and on an even part of the same size."""

# M = images chosen

from __future__ import annotations

from collections.abc import Sequence

import torch

from dogo_fed.contracts import Score
from dogo_fed.data.imbalanced import class_counts
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.protocols.probing import Level, check_draws, check_listed, probe_score
from dogo_fed.evaluation.subject import Subject
from dogo_fed.evaluation.subsets import choose, class_sizes

_NAME = "imbalance"


def imbalance(
    subject: Subject,
    *,
    gammas: Sequence[float] = (0.2, 1.0),
    smallest_share: float = 0.05,
    draws: int = 3,
) -> list[Score]:
    """Returns two scores per gamma and draw: long-tailed, and even with as many images in all.

    The difference between the two is what unevenness costs, apart from having fewer images. Which
    classes are rare is drawn anew each time. Test images stay as they are. The sizes are those of
    `data.imbalanced.class_counts`, by which the data set cifar10_imbalanced is made too.

    Args:
        subject: the encoder on a data set.
        gammas: exponents of the power law; the smaller, the faster the sizes fall at first. 0.2 is
            the published one.
        smallest_share: the smallest class's size as a share of the largest's.
        draws: random orders of the classes, and subsets.

    Raises:
        ConfigError: a value is out of range, or a class has no labelled image.
    """
    check_draws(draws)
    check_listed("gammas", gammas)
    labels_N, num_classes = subject.probe_train.labels_N, subject.num_classes
    largest = min(class_sizes(labels_N, num_classes))
    if largest < 2:
        raise ConfigError(
            f"every one of the {num_classes} classes needs two labelled images to make some rare; a "
            f"class of {subject.dataset.title} has {largest}"
        )
    if not 0.0 < smallest_share < 1.0:
        raise ConfigError(f"smallest_share must be above 0 and below 1, not {smallest_share}")
    smallest = min(largest - 1, max(1, round(smallest_share * largest)))
    scores = []
    for gamma in gammas:
        sizes = class_counts(num_classes, gamma, largest, smallest)
        mean_size = max(1, round(sum(sizes) / num_classes))
        for draw in range(draws):
            order_C = torch.randperm(num_classes, generator=subject.generator(_NAME, "order", draw))
            tail = [sizes[rank] for rank in order_C.tolist()]
            for group, chosen in (("long tail", tail), ("even", [mean_size] * num_classes)):
                ids_M = choose(labels_N, chosen, subject.generator(_NAME, draw))
                scores.append(
                    probe_score(
                        subject,
                        subject.probe_train.rows(ids_M),
                        protocol=_NAME,
                        condition=f"{group}, gamma {gamma:g}",
                        draw=draw,
                        group=group,
                        level=Level(gamma, "gamma"),
                    )
                )
    return scores
