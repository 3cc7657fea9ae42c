"""A test part for data sets that come without one."""

from __future__ import annotations

import dataclasses

import torch

from dogo_fed import seeding
from dogo_fed.config import DataConfig
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.labels import num_labelled
from dogo_fed.data.source import DataSet, Subset, fingerprint_of_part

_FEWEST = 2
"""Images that are held out, and that stay, at least."""
_FEW_LABELLED = 10
"""Accuracies of fewer images than these jump by more than a tenth from image to image."""


def dataset_with_test_part(settings: DataConfig, share: float) -> DataSet:
    """Returns the data set that the settings name, with a test part; see `with_test_part`.

    Raises:
        ConfigError, DataError: see `build_dataset`.
    """
    return with_test_part(build_dataset(settings.name, settings.options), share)


def with_test_part(dataset: DataSet, share: float) -> DataSet:
    """Returns the data set, with some training images held out if it has no test images.

    The images are drawn by a stream of its own, so they are the same for every seed of a run, and
    every site of a run holds out the same. Where some images have a class and others have none, the
    share is drawn of each. Mean and deviation stay those of all images.

    Args:
        dataset: with or without test images.
        share: of the training images, 0 to 1; 0 holds out none.
    """
    number = len(dataset.train)
    held_out = _how_many(number, share)
    if len(dataset.test) or held_out == 0 or number - held_out < _FEWEST:
        return dataset
    train_ids, test_ids = _drawn(dataset.train.labels, share)
    note = (
        f"{len(test_ids)} of {number} images are held out, since there are no test images "
        f"(eval.test_share={share:g})"
    )
    labelled = num_labelled(dataset.train.labels[test_ids])
    if 0 < labelled < _FEW_LABELLED:
        note += f"; only {labelled} of the test images have a class"
    return dataclasses.replace(
        dataset,
        train=Subset(dataset.train, train_ids),
        test=Subset(dataset.train, test_ids),
        fingerprint=fingerprint_of_part(dataset.fingerprint, train_ids),
        test_fingerprint=fingerprint_of_part(dataset.fingerprint, test_ids),
        notes=(*dataset.notes, note),
    )


def _how_many(number: int, share: float) -> int:
    """Returns how many of so many images are held out."""
    return max(_FEWEST, round(share * number)) if share > 0 else 0


def _drawn(labels_N: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the ids that stay and those that are held out, both in order."""
    has_class_N = labels_N >= 0
    groups: dict[tuple[str, ...], torch.Tensor] = {
        ("held out", "with a class"): has_class_N.nonzero()[:, 0],
        ("held out", "without a class"): (~has_class_N).nonzero()[:, 0],
    }
    if min(map(len, groups.values())) < 2 * _FEWEST:  # one can't give and keep enough
        groups = {("held out",): torch.arange(len(labels_N))}
    stay: list[torch.Tensor] = []
    held_out: list[torch.Tensor] = []
    for name, ids in groups.items():
        border = min(_how_many(len(ids), share), len(ids) - _FEWEST)
        order = torch.randperm(len(ids), generator=seeding.generator(0, *name, len(ids)))
        held_out.append(ids[order[:border]])
        stay.append(ids[order[border:]])
    return torch.cat(stay).sort().values, torch.cat(held_out).sort().values
