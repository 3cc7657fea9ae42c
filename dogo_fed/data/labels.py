"""Which labels a data set has, and so what can be counted on it."""

from __future__ import annotations

import torch

from dogo_fed.data.source import DataSet


def num_labelled(labels_N: torch.Tensor) -> int:
    """Returns how many images have a class."""
    return int((labels_N >= 0).sum())


def why_no_accuracy(dataset: DataSet) -> str | None:
    """Returns why no accuracy can be counted on a data set, as a phrase; None if it can.

    kNN and probe learn the classes from labelled training images, and are counted on labelled test
    images. With one class, every answer is right, which says nothing.
    """
    train_N, test_N = dataset.train.labels, dataset.test.labels
    if num_labelled(train_N) == 0:
        return "no training image has a class"
    if int((train_N[train_N >= 0].bincount() > 0).sum()) < 2:
        return "all training images that have a class are of the same"
    if len(test_N) == 0:
        return "there are no test images"
    if num_labelled(test_N) == 0:
        return "no test image has a class"
    return None
