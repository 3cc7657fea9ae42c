"""What can be counted on a data set, and the test part of one that has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dogo_fed.data.held_out import with_test_part
from dogo_fed.data.labels import why_no_accuracy
from dogo_fed.data.map_style import dataset_from_arrays


def images(number, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, 3, 4, 4), dtype=np.uint8)


def data(train, test=None):
    """Returns a data set with these labels; None for unlabelled images of that number."""
    return dataset_from_arrays(
        "d",
        images(len(train)),
        np.array(train),
        None if test is None else images(max(len(test), 1), 1)[: len(test)],
        None if test is None else np.array(test, dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("train", "test", "says"),
    [
        ([-1, -1], [0], "no training image has a class"),
        ([0, 0, -1], [0], "all training images that have a class are of the same"),
        ([0, 1], None, "there are no test images"),
        ([0, 1], [], "there are no test images"),
        ([0, 1], [-1], "no test image has a class"),
        ([0, 1, -1], [1, -1], None),
    ],
)
def test_why_no_accuracy(train, test, says):
    assert why_no_accuracy(data(train, test)) == says


def test_a_test_part_is_held_out_where_there_is_none():
    whole = data(list(range(50)))
    held = with_test_part(whole, 0.2)
    assert (len(held.train), len(held.test)) == (40, 10)
    labels = torch.cat([held.train.labels, held.test.labels])
    assert sorted(labels.tolist()) == list(range(50))
    for source in (held.train, held.test):
        assert torch.equal(source.images(torch.tensor([3])), whole.train.images(source.labels[3:4]))
    assert (
        "10 of 50 images are held out" in held.notes[-1] and "eval.test_share=0.2" in held.notes[-1]
    )


def test_all_sites_hold_out_the_same_and_another_share_is_another_data_set():
    first, again = (with_test_part(data([0, 1] * 20), 0.1) for _ in range(2))
    assert first.fingerprint == again.fingerprint != data([0, 1] * 20).fingerprint
    assert first.test_fingerprint not in (first.fingerprint, "")
    assert torch.equal(first.test.labels, again.test.labels)
    assert with_test_part(data([0, 1] * 20), 0.2).fingerprint != first.fingerprint


def test_nothing_is_held_out_if_not_asked_or_not_needed_or_too_few():
    for whole, share in ((data([0, 1], [1]), 0.5), (data([0, 1] * 5), 0.0), (data([0, 1, 0]), 0.5)):
        assert with_test_part(whole, share) is whole
