"""A cut deals out every image once, the same in every process, and as unlike as it was asked for."""

from __future__ import annotations

import csv
import dataclasses
import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dogo_fed.config import PartitionConfig, PartitionKind
from dogo_fed.data.partition import cut
from dogo_fed.data.source import TensorImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import ConfigError

WHOLE = synthetic(size=400, test_size=80, num_classes=8)
PEERS = ("ada", "bob", "cat", "dan")
KINDS = [kind for kind in PartitionKind if kind is not PartitionKind.SHARED]
EVERY = pytest.mark.parametrize("kind", KINDS)


def numbered():
    """The data set with every image's pixels replaced by its number."""

    def source(count, first):
        numbers = torch.arange(first, first + count)
        pixels = torch.stack([numbers // 256, numbers % 256, numbers * 0], dim=1)
        return pixels.to(torch.uint8)[:, :, None, None].expand(-1, -1, 4, 4).clone()

    return dataclasses.replace(
        WHOLE,
        train=TensorImages(source(400, 0), WHOLE.train.labels),
        test=TensorImages(source(80, 400), WHOLE.test.labels),
    )


def numbers_in(source):
    images = source.images(torch.arange(len(source)))[:, :2, 0, 0].long()
    return (images[:, 0] * 256 + images[:, 1]).tolist()


def made(kind, seed=0, **changes):
    options = {"kind": kind, "least_images": 4, "alpha": 0.5, **changes}
    return cut(numbered(), PEERS, PartitionConfig(**options), seed)


@EVERY
@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), anchors=st.sampled_from([0.05, 0.2, 0.5]))
def test_every_image_is_dealt_out_once(kind, seed, anchors):
    found = made(kind, seed, anchors=anchors, classes_per_peer=4, least_images=1)
    parts = [found.anchors, *found.private.values()]
    train = [number for part in parts for number in numbers_in(part.train)]
    assert sorted(train) == list(range(400))
    assert len(found.anchors.train) == round(anchors * 400)
    test = [number for part in found.private.values() for number in numbers_in(part.test)]
    assert sorted(test) == list(range(400, 480))
    assert numbers_in(found.anchors.test) == list(range(400, 480))


@EVERY
def test_the_same_seed_gives_the_same_cut_and_another_another(kind):
    first, again, other = made(kind, 3), made(kind, 3), made(kind, 4)
    for name in PEERS:
        assert numbers_in(first.private[name].train) == numbers_in(again.private[name].train)
        assert first.private[name].fingerprint == again.private[name].fingerprint
    assert first.anchors.fingerprint == again.anchors.fingerprint != other.anchors.fingerprint
    assert numbers_in(first.anchors.train) != numbers_in(other.anchors.train)


@EVERY
def test_labels_go_with_their_images(kind):
    for part in made(kind).private.values():
        wanted = [int(WHOLE.train.labels[number]) for number in numbers_in(part.train)]
        assert part.train.labels.tolist() == wanted
        assert part.mean == WHOLE.mean and part.num_classes == 8


def test_iid_parts_are_of_equal_size():
    sizes = [len(part.train) for part in made(PartitionKind.IID).private.values()]
    assert max(sizes) - min(sizes) <= 1


def shares_of(found):
    """How a class is spread over the peers, C x P."""
    counts = np.array(
        [
            np.bincount(part.train.labels.numpy(), minlength=8)
            for _, part in sorted(found.private.items())
        ]
    )
    return (counts / counts.sum(axis=0)).T


def test_a_small_alpha_gives_a_class_to_few_and_a_large_one_to_all():
    few, all_of_them = (
        np.mean([shares_of(made(PartitionKind.DIRICHLET, seed, alpha=alpha)).max(axis=1).mean()
                 for seed in range(5)])
        for alpha in (0.1, 100.0)
    )  # fmt: skip
    assert few > 0.7 and all_of_them < 0.35


def test_the_mean_of_many_dirichlet_draws_is_an_equal_share():
    shares = [shares_of(made(PartitionKind.DIRICHLET, seed, alpha=1.0)) for seed in range(40)]
    assert np.allclose(np.mean(shares, axis=(0, 1)), 0.25, atol=0.06)


@pytest.mark.parametrize("each", [1, 2, 5])
def test_with_classes_each_peer_has_so_many_of_them(each):
    found = made(PartitionKind.CLASSES, classes_per_peer=each)
    for part in found.private.values():
        assert len(set(part.train.labels.tolist())) == each
        assert set(part.test.labels.tolist()) <= set(part.train.labels.tolist())
    if each == 2:  # 4 peers of 2 of 8 classes: nobody shares one
        assert (shares_of(found).max(axis=1) == 1.0).all()


def test_the_table_has_every_part_with_its_classes():
    found = made(PartitionKind.DIRICHLET)
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["part"] for row in rows] == ["anchors", *PEERS]
    for row in rows:
        assert int(row["images"]) == sum(int(row[f"class_{one}"]) for one in range(8))
    assert sum(int(row["images"]) for row in rows) == 400


def without_labels():
    unlabelled = TensorImages(
        WHOLE.train.images(torch.arange(400)), torch.full((400,), -1, dtype=torch.int64)
    )
    return dataclasses.replace(WHOLE, train=unlabelled)


def test_images_without_a_class_can_be_dealt_out_at_random_only():
    found = cut(without_labels(), PEERS, PartitionConfig(kind=PartitionKind.IID), 0)
    assert sum(len(part.train) for part in found.private.values()) == 320
    with pytest.raises(ConfigError, match="400 images of synthetic have none; partition=iid"):
        cut(without_labels(), PEERS, PartitionConfig(kind=PartitionKind.DIRICHLET), 0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"anchors": 0.001}, "leaves 0 anchors"),
        ({"anchors": 0.95}, "20 private images of 400 for 4 peers"),
        ({"alpha": 1e-3, "least_images": 80}, "fewer than 80"),
        ({"kind": PartitionKind.CLASSES, "classes_per_peer": 9}, "more than the 8 classes"),
    ],
)
def test_an_impossible_cut_is_said(changes, why):
    options = {"kind": PartitionKind.DIRICHLET, **changes}
    with pytest.raises(ConfigError, match=why):
        cut(WHOLE, PEERS, PartitionConfig(**options), 0)
