"""A test part for data sets that come without one."""

from __future__ import annotations

import dataclasses

import torch

from dogo_fed import seeding
from dogo_fed.config import DataConfig
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.source import DataSet, Subset, fingerprint_of_part

_FEWEST = 2


def dataset_with_test_part(settings: DataConfig, share: float) -> DataSet:
    """Returns the data set that the settings name, with a test part; see `with_test_part`.

    Raises:
        ConfigError, DataError: see `build_dataset`.
    """
    return with_test_part(build_dataset(settings.name, settings.options), share)


def with_test_part(dataset: DataSet, share: float) -> DataSet:
    """Returns the data set, with some training images held out if it has no test images.

    The images are drawn by a stream of its own, so they are the same for every seed of a run, and
    every site of a run holds out the same. Mean and deviation stay those of all images.

    Args:
        dataset: with or without test images.
        share: of the training images, 0 to 1; 0 holds out none.
    """
    number = len(dataset.train)
    held_out = max(_FEWEST, round(share * number)) if share > 0 else 0
    if len(dataset.test) or held_out == 0 or number - held_out < _FEWEST:
        return dataset
    order_N = torch.randperm(number, generator=seeding.generator(0, "held out", number))
    test_ids, train_ids = order_N[:held_out].sort().values, order_N[held_out:].sort().values
    note = (
        f"{held_out} of {number} images are held out, since there are no test images "
        f"(eval.test_share={share:g})"
    )
    return dataclasses.replace(
        dataset,
        train=Subset(dataset.train, train_ids),
        test=Subset(dataset.train, test_ids),
        fingerprint=fingerprint_of_part(dataset.fingerprint, train_ids),
        test_fingerprint=fingerprint_of_part(dataset.fingerprint, test_ids),
        notes=(*dataset.notes, note),
    )
