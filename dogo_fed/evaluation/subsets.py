"""Which labelled images a probe may see: stratified subsets, and what is held out."""

# N = images, K = images chosen, C = classes

from __future__ import annotations

from collections.abc import Sequence

import torch

from dogo_fed.errors import ConfigError
from dogo_fed.text import one_line


def class_sizes(labels_N: torch.Tensor, num_classes: int) -> list[int]:
    """Returns how many images every class has; unlabelled images (-1) count nowhere."""
    known_N = labels_N[labels_N >= 0]
    sizes: list[int] = torch.bincount(known_N, minlength=num_classes).tolist()
    return sizes


def fraction_sizes(labels_N: torch.Tensor, num_classes: int, fraction: float) -> list[int]:
    """Returns `fraction` of every class's size, rounded, at least 1 where the class has images.

    Raises:
        ConfigError: the fraction is not above 0 and at most 1.
    """
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(
            f"a share of the labels must be above 0 and at most 1 (1 % is 0.01), not {fraction}"
        )
    sizes = class_sizes(labels_N, num_classes)
    return [max(1, round(fraction * size)) if size else 0 for size in sizes]


def choose(
    labels_N: torch.Tensor, sizes: Sequence[int], generator: torch.Generator
) -> torch.Tensor:
    """Returns ids of `sizes[c]` random images of every class c: int64, shape K, ascending.

    With the same generator state, smaller sizes choose a part of what larger ones choose.

    Raises:
        ConfigError: see `check_sizes`.
    """
    check_sizes(labels_N, sizes)
    chosen = []
    for label, size in enumerate(sizes):
        (members,) = torch.nonzero(labels_N == label, as_tuple=True)
        order = torch.randperm(len(members), generator=generator)
        chosen.append(members[order[:size]])
    return torch.cat(chosen).sort().values


def check_sizes(
    labels_N: torch.Tensor, sizes: Sequence[int], class_names: Sequence[str] = ()
) -> None:
    """Checks that every class c has `sizes[c]` images.

    Args:
        labels_N: the classes of the images.
        sizes: how many images of each class are wanted.
        class_names: for the message, if they have names.

    Raises:
        ConfigError: one has fewer; names it.
    """
    there = class_sizes(labels_N, len(sizes))
    for label, size in enumerate(sizes):
        if size > there[label]:
            name = f" ({one_line(class_names[label], 60)})" if class_names else ""
            raise ConfigError(
                f"{size} labelled images of class {label}{name} were asked for, but the data set has "
                f"{there[label]}; ask for at most that many per class"
            )


def hold_out(
    labels_N: torch.Tensor, num_classes: int, share: float, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns ids to keep and ids to hold out, both ascending; every image is in one of them.

    `share` of each class is held out, rounded, at least 1 of a class of 2 or more; a class's only
    image is kept.
    """
    sizes = class_sizes(labels_N, num_classes)
    held = choose(
        labels_N, [max(1, round(share * size)) if size > 1 else 0 for size in sizes], generator
    )
    is_kept_N = torch.ones(len(labels_N), dtype=torch.bool)
    is_kept_N[held] = False
    return is_kept_N.nonzero().flatten(), held
