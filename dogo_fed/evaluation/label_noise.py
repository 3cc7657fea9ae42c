"""Wrong labels at an exact rate: symmetric (to any other class) or asymmetric (to one given class)."""

# N = images, M = images of one class, C = classes

from __future__ import annotations

from collections.abc import Sequence

import torch

from dogo_fed.errors import ConfigError

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR10_CONFUSIONS = (0, 1, 0, 5, 7, 3, 6, 7, 8, 1)
"""bird -> airplane, cat <-> dog, deer -> horse, truck -> automobile; the other classes stay.

Source: Patrini et al., "Making deep neural networks robust to label noise", CVPR 2017.
"""


def next_class(num_classes: int) -> tuple[int, ...]:
    """Returns the map c -> c + 1 modulo C: pair flips, as in Han et al., "Co-teaching", NeurIPS 2018."""
    return tuple((label + 1) % num_classes for label in range(num_classes))


def symmetric(
    labels_N: torch.Tensor, num_classes: int, rate: float, generator: torch.Generator
) -> torch.Tensor:
    """Returns labels of which `rate` in every class are wrong: uniformly one of the other classes.

    Exact: round(rate * M) of a class's M labels change. With the same generator state, a higher
    rate makes the same labels wrong in the same way, and more.

    Args:
        labels_N: classes from 0; left as they are.
        num_classes: C, at least 2.
        rate: 0 to 1.
        generator: decides which labels change, and to what.

    Raises:
        ConfigError: the rate is not between 0 and 1, or there is one class only.
    """
    _check(rate, num_classes)
    shift_N = torch.randint(1, num_classes, labels_N.shape, generator=generator)
    wrong_N = _chosen(labels_N, num_classes, rate, generator)
    return torch.where(wrong_N, (labels_N + shift_N) % num_classes, labels_N)


def asymmetric(
    labels_N: torch.Tensor, mapping: Sequence[int], rate: float, generator: torch.Generator
) -> torch.Tensor:
    """Returns labels of which `rate` in every class c are `mapping[c]` instead.

    Exact, and growing with the rate, as `symmetric`. Classes that map to themselves stay clean.

    Args:
        labels_N: classes from 0; left as they are.
        mapping: to which class a wrong label of class c goes, for every c.
        rate: 0 to 1; from 0.5 on most labels of a mapped class are wrong.
        generator: decides which labels change.

    Raises:
        ConfigError: the rate is not between 0 and 1, or the mapping names no class.
    """
    num_classes = len(mapping)
    _check(rate, num_classes)
    if not all(0 <= target < num_classes for target in mapping):
        raise ConfigError(
            f"a map of {num_classes} classes must name classes from 0 to {num_classes - 1}, not "
            f"{list(mapping)}"
        )
    wrong_N = _chosen(labels_N, num_classes, rate, generator)
    return torch.where(wrong_N, torch.tensor(mapping)[labels_N], labels_N)


def _chosen(
    labels_N: torch.Tensor, num_classes: int, rate: float, generator: torch.Generator
) -> torch.Tensor:
    """Returns which labels change: a random round(rate * M) of the M labels of every class."""
    wrong_N = torch.zeros(labels_N.shape, dtype=torch.bool)
    for label in range(num_classes):
        (members_M,) = torch.nonzero(labels_N == label, as_tuple=True)
        order_M = torch.randperm(len(members_M), generator=generator)
        wrong_N[members_M[order_M[: round(rate * len(members_M))]]] = True
    return wrong_N


def _check(rate: float, num_classes: int) -> None:
    if not 0.0 <= rate <= 1.0:
        raise ConfigError(f"a noise rate must be from 0 to 1 (40 % is 0.4), not {rate}")
    if num_classes < 2:
        raise ConfigError("with one class there is no wrong label to flip to")
