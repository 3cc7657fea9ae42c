"""A peer's private images: of the anchors' size, and none of them an anchor."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from configs.compose import compose_run
from dogo_fed.config import DataConfig, PartitionConfig, PartitionKind
from dogo_fed.data import private
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.digests import image_digests
from dogo_fed.data.files import on_demand, pixel_cache
from dogo_fed.data.held_out import dataset_with_test_part
from dogo_fed.data.private import other_anchors, private_images
from dogo_fed.data.source import DataSet, TensorImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import ConfigError, DataError
from tests.support.image_folders import draw, listing_decoded
from tests.support.tiny_run import TINY

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


def test_images_of_the_set_that_anchors_are_drawn_from_are_not_called_anchors():
    """Which of it are anchors depends on the seed, and what is left out does not."""
    own = synthetic(size=60, test_size=8, seed=2)
    some = dataclasses.replace(
        ANCHORS,
        train=TensorImages(own.train.images(torch.arange(10)), torch.zeros(10, dtype=torch.int64)),
    )
    found = private_images({"ada": settings(seed=2)}, some, 0.1, "data")["ada"]
    assert found.notes[-1] == (
        "10 of 60 training images of peer ada are in data, of which the anchors are drawn, and are "
        "left out of its private ones"
    )
    all_of_them = dataclasses.replace(some, train=own.train)
    with pytest.raises(ConfigError, match="60 are in data, of which the anchors are drawn, so 0"):
        private_images({"ada": settings(seed=2)}, all_of_them, 0.1, "data")


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


def test_grey_images_beside_colours_are_refused_with_the_setting_that_makes_them_alike(tmp_path):
    for number in range(12):
        draw(tmp_path / f"{number}.png", number, size=24)
    grey = DataConfig(
        name="image_folder", options={"root": str(tmp_path), "image_size": 16, "channels": 1}
    )
    with pytest.raises(ConfigError) as caught:
        private_images({"ada": grey}, ANCHORS, 0.1)
    assert str(caught.value).endswith("e.g. by peers.ada.data.options.channels=3")
    smaller = DataConfig(
        name="image_folder", options={"root": str(tmp_path), "image_size": 24, "channels": 1}
    )
    with pytest.raises(ConfigError, match=r"channels=3 peers.ada.data.options.image_size=16$"):
        private_images({"ada": smaller}, ANCHORS, 0.1)


def test_images_that_are_stored_at_another_side_than_the_anchors_are_told(tmp_path):
    for number in range(12):
        draw(tmp_path / f"{number}.png", number, size=64)
    photos = DataConfig(name="image_folder", options={"root": str(tmp_path), "image_size": 16})
    found = private_images({"ada": photos}, ANCHORS, 0.1)["ada"]
    told = [note for note in found.notes if "so passes see both at 16" in note]
    assert len(told) == 1 and told[0].startswith("they are stored at 32 pixels a side and the")


def test_a_wrong_option_is_named_with_its_peer():
    with pytest.raises(ConfigError, match=r"peers.ada.data: .*no option 'colour'"):
        private_images({"ada": settings(colour=3)}, ANCHORS, 0.1)


def test_a_broken_image_is_named_with_its_peer_and_so_is_the_setting_that_leaves_it_out(tmp_path):
    """data.options.skip_broken would leave it where it is."""
    for number in range(4):
        draw(tmp_path / f"{number}.png", number, size=16)
    (tmp_path / "bad.png").write_bytes(b"no image")
    photos = DataConfig(name="image_folder", options={"root": str(tmp_path), "image_size": 16})
    with pytest.raises(DataError) as caught:
        private_images({"ada": photos}, ANCHORS, 0.1)
    said = str(caught.value)
    assert said.startswith("peers.ada.data: ") and "bad.png" in said
    assert " peers.ada.data.options.skip_broken=true" in said and " data.options." not in said


def test_the_anchors_are_looked_through_once_for_all_peers(monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        private, "image_digests", lambda *given: looked_at.append(given[0]) or image_digests(*given)
    )
    named = {name: settings(seed=seed) for seed, name in enumerate(("ada", "bob", "cai"), start=2)}
    assert list(private_images(named, ANCHORS, 0.1)) == ["ada", "bob", "cai"]
    assert sum(source is ANCHORS.train for source in looked_at) == 1
    assert len(looked_at) == 1 + 3 * 2, "of each peer its training and its test images"


def folder_of_photos(root: Path, num_images: int, side: int, seed: int) -> Path:
    random = np.random.default_rng(seed)
    root.mkdir()
    for number in range(num_images):
        pixels = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


def unlabelled(root: Path, **options: object) -> DataConfig:
    return DataConfig(
        name="image_folder",
        options={"root": str(root), "labels": "none", "image_size": 16, **options},
    )


@pytest.mark.parametrize("anchor_side", [16, 20, 40])
def test_an_anchor_is_found_among_files_that_are_stored_larger(tmp_path, anchor_side):
    own = folder_of_photos(tmp_path / "own", 12, 40, seed=1)
    root = folder_of_photos(tmp_path / "anchors", 11, anchor_side, seed=2)
    shutil.copy(own / "3.png", root / "taken.png")
    shared = unlabelled(root)
    anchors = build_dataset(shared.name, shared.options)
    found = private_images({"ada": unlabelled(own)}, anchors, 0.0)["ada"]
    assert len(found.train) == 11 and "1 of 12 training images of peer ada" in found.notes[-1]
    images = found.train.images(torch.arange(11))
    assert images.shape[-1] == 32, "what is trained on keeps its full size"
    whole = build_dataset("image_folder", unlabelled(own).options).train
    left = [
        row
        for row in range(12)
        if not (images == whole.images(torch.tensor([row]))).all((1, 2, 3)).any()
    ]
    assert len(left) == 1


def test_images_that_cannot_be_compared_with_the_anchors_are_said(tmp_path):
    root = folder_of_photos(tmp_path / "anchors", 12, 40, seed=2)
    anchors = build_dataset("image_folder", unlabelled(root).options)
    found = private_images({"ada": settings(seed=2)}, anchors, 0.1)["ada"]
    assert len(found.train) == 60
    assert "images that are in both are not found; name the same" in found.notes[-1]


@pytest.fixture
def decoded(monkeypatch):
    """The files that are decoded, by the cache or on demand."""
    return listing_decoded(monkeypatch, pixel_cache, on_demand)


def own_and_anchors(folder: Path, **options: object) -> tuple[DataConfig, DataConfig]:
    """Returns the settings of 12 private images and of 12 anchors; one image is in both."""
    own = folder_of_photos(folder / "own", 12, 40, seed=1)
    root = folder_of_photos(folder / "anchors", 11, 40, seed=2)
    shutil.copy(own / "3.png", root / "taken.png")
    return unlabelled(own, **options), unlabelled(root, **options)


def found_of(own: DataConfig, shared: DataConfig, test_share: float = 0.2) -> DataSet:
    anchors = build_dataset(shared.name, shared.options)
    return private_images({"ada": own}, anchors, test_share)["ada"]


@pytest.mark.parametrize("options", [{}, {"cache_dir": "off"}])
def test_a_second_start_reads_no_image(tmp_path, decoded, options):
    own, shared = own_and_anchors(tmp_path, **options)
    first = found_of(own, shared)
    assert len(first.train) + len(first.test) == 11 and decoded
    decoded.clear()
    second = found_of(own, shared)
    assert decoded == []
    assert (second.notes, second.fingerprint) == (first.notes, first.fingerprint)


def test_a_second_start_reads_no_image_that_was_decoded_again_to_be_compared(tmp_path, decoded):
    own, _ = own_and_anchors(tmp_path)
    shared = unlabelled(tmp_path / "anchors", stored_size=20, cache_dir="off")
    for _ in range(2):
        decoded.clear()
        found = found_of(own, shared)
        assert len(found.train) + len(found.test) == 11
    assert decoded == []


def test_an_image_that_changes_into_an_anchor_is_found(tmp_path):
    own, shared = own_and_anchors(tmp_path)
    found_of(own, shared)
    shutil.copy(tmp_path / "anchors" / "5.png", tmp_path / "own" / "7.png")
    found = found_of(own, shared)
    assert len(found.train) + len(found.test) == 10


def test_anchors_from_elsewhere_are_compared_once(tmp_path, decoded):
    own, shared = own_and_anchors(tmp_path, cache_dir="off")
    settings = PartitionConfig(kind=PartitionKind.IID, anchors_from=shared)
    config = dataclasses.replace(compose_run(TINY), partition=settings)
    for _ in range(2):
        decoded.clear()
        others = other_anchors(config, dataset_with_test_part(own, 0.2))
        assert others is not None and "1 of 10 images of partition.anchors_from" in others.notes[-1]
    assert decoded == []


def test_what_is_stored_alike_is_compared_without_resizing(tmp_path, monkeypatch):
    own, shared = own_and_anchors(tmp_path)

    def resized(*_arguments, **_named):
        raise AssertionError("an image was resized")

    monkeypatch.setattr(torch.nn.functional, "interpolate", resized)
    found = found_of(own, shared)
    assert len(found.train) + len(found.test) == 11
