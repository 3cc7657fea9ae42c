"""A peer's private images: of the anchors' size, and none of them an anchor."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from dogo_fed.config import DataConfig
from dogo_fed.data import private
from dogo_fed.data.private import image_digests, private_images
from dogo_fed.data.source import TensorImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import ConfigError

ANCHORS = synthetic(size=40, test_size=8, seed=1)


def settings(**options):
    return DataConfig(name="synthetic", options={"size": 60, "test_size": 8, **options})


def test_images_that_are_anchors_too_are_left_out_and_counted():
    own = synthetic(size=60, test_size=8, seed=2)
    both_NCHW = torch.cat(
        [own.train.images(torch.arange(60)), ANCHORS.train.images(torch.arange(0, 40, 4))]
    )
    anchors = dataclasses.replace(
        ANCHORS, train=TensorImages(both_NCHW, torch.zeros(70, dtype=torch.int64))
    )
    with pytest.raises(
        ConfigError, match=r"of the 60 private training images of peer 'ada', 60 are anchors"
    ):
        private_images({"ada": settings(seed=2)}, anchors, 0.1)
    some = dataclasses.replace(
        ANCHORS, train=TensorImages(both_NCHW[50:], torch.zeros(20, dtype=torch.int64))
    )
    found = private_images({"ada": settings(seed=2)}, some, 0.1)["ada"]
    assert len(found.train) == 50 and "10 of 60 training images of peer ada" in found.notes[-1]
    assert found.fingerprint != own.fingerprint
    kept = found.train.images(torch.arange(50))
    assert torch.equal(kept, own.train.images(torch.arange(50)))


def test_test_images_that_are_anchors_too_are_left_out():
    own = synthetic(size=60, test_size=8, seed=2)
    trained_on_NCHW = torch.cat(
        [ANCHORS.train.images(torch.arange(40)), own.test.images(torch.tensor([1, 6]))]
    )
    anchors = dataclasses.replace(
        ANCHORS, train=TensorImages(trained_on_NCHW, torch.zeros(42, dtype=torch.int64))
    )
    found = private_images({"ada": settings(seed=2)}, anchors, 0.1)["ada"]
    kept = torch.tensor([0, 2, 3, 4, 5, 7])
    assert torch.equal(found.test.images(torch.arange(6)), own.test.images(kept))
    assert torch.equal(found.test.labels, own.test.labels[kept])
    assert found.test_fingerprint != own.test_fingerprint and found.fingerprint == own.fingerprint
    assert found.notes[-1].startswith("2 of 8 test images of peer ada are anchors too")


def test_images_of_ones_own_are_taken_as_they_are():
    found = private_images({"ada": settings(seed=2)}, ANCHORS, 0.1)["ada"]
    assert found.fingerprint == synthetic(size=60, test_size=8, seed=2).fingerprint


def test_images_of_another_size_are_refused_with_the_setting_that_makes_them_alike():
    with pytest.raises(
        ConfigError, match=r"3 x 24 x 24 .* 3 x 16 x 16; .*peers.ada.data.options.image_size=16"
    ):
        private_images({"ada": settings(image_size=24)}, ANCHORS, 0.1)


def test_a_wrong_option_is_named_with_its_peer():
    with pytest.raises(ConfigError, match=r"peers.ada.data: .*no option 'colour'"):
        private_images({"ada": settings(colour=3)}, ANCHORS, 0.1)


def test_the_anchors_are_looked_through_once_for_all_peers(monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        private, "image_digests", lambda *given: looked_at.append(given[0]) or image_digests(*given)
    )
    named = {name: settings(seed=seed) for seed, name in enumerate(("ada", "bob", "cai"), start=2)}
    assert list(private_images(named, ANCHORS, 0.1)) == ["ada", "bob", "cai"]
    assert sum(source is ANCHORS.train for source in looked_at) == 1
    assert len(looked_at) == 1 + 3 * 2, "of each peer its training and its test images"


def test_a_digest_knows_an_image_again_and_no_other():
    digests = image_digests(ANCHORS.train, 16)
    assert len(set(digests)) == 40
    assert image_digests(ANCHORS.train, 16) == digests
    assert set(image_digests(ANCHORS.train, 8)).isdisjoint(digests)
