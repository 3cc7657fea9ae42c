"""What can be counted on a data set, and the test part of one that has none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dogo_fed import seeding
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


def test_the_draw_is_one_where_all_images_have_a_class_or_none_has():
    for labels in ([0, 1] * 20, [-1] * 40):
        whole = data(labels)
        order = torch.randperm(40, generator=seeding.generator(0, "held out", 40))
        expected = whole.train.images(order[:4].sort().values)
        assert torch.equal(with_test_part(whole, 0.1).test.images(torch.arange(4)), expected)


def test_the_share_is_drawn_of_those_with_a_class_and_of_those_without():
    whole = data([number % 3 - 1 if number < 60 else -1 for number in range(400)])  # 40 have one
    held = with_test_part(whole, 0.5)
    for source in (held.train, held.test):
        assert (len(source), int((source.labels >= 0).sum())) == (200, 20)
    again = with_test_part(whole, 0.5)
    assert held.test_fingerprint == again.test_fingerprint
    both = torch.cat([part.images(torch.arange(200)) for part in (held.train, held.test)])
    everything = whole.train.images(torch.arange(400))
    assert sorted(both.flatten(1).tolist()) == sorted(everything.flatten(1).tolist())


def test_few_test_images_with_a_class_are_counted_in_a_note():
    held = with_test_part(data([0, 1] * 10 + [-1] * 180), 0.1)
    assert "20 of 200 images are held out" in held.notes[-1]
    assert held.notes[-1].endswith("; only 2 of the test images have a class")
    for labels in ([0, 1] * 60, [-1] * 40):
        assert "only" not in with_test_part(data(labels), 0.1).notes[-1]


def test_too_few_of_one_kind_are_drawn_with_the_others():
    held = with_test_part(data([0, 1, 0] + [-1] * 97), 0.1)
    assert (len(held.train), len(held.test)) == (90, 10)


def test_nothing_is_held_out_if_not_asked_or_not_needed_or_too_few():
    for whole, share in ((data([0, 1], [1]), 0.5), (data([0, 1] * 5), 0.0), (data([0, 1, 0]), 0.5)):
        assert with_test_part(whole, share) is whole
