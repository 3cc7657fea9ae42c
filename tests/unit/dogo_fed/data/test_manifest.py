"""The manifest of an anchor set: what it says is true, and a copy that differs is told how."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.data.manifest import Manifest
from dogo_fed.data.source import TensorImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.run.prepare import notes_of, prepare
from tests.support.tiny_run import TINY

ANCHORS = synthetic(size=40, test_size=8)
PIXELS = ANCHORS.train.images(torch.arange(40))


def copy_with(images_NCHW):
    labels = torch.zeros(len(images_NCHW), dtype=torch.int64)
    train = TensorImages(images_NCHW, labels)
    return dataclasses.replace(ANCHORS, train=train, fingerprint="other")


@pytest.fixture
def manifest(tmp_path):
    path = tmp_path / "anchors.json"
    Manifest.of(ANCHORS, "CC-BY 4.0, from the partners' own archive").write(path)
    return Manifest.read(path)


def test_what_is_written_is_read(manifest):
    assert manifest == Manifest.of(ANCHORS, "CC-BY 4.0, from the partners' own archive")
    assert len(set(manifest.digests)) == manifest.num_images == 40
    assert manifest.differences(ANCHORS) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda x: torch.cat([x, x[:1] // 2]), ["num_images is 40", "0 images of the manifest are not"]),
        (lambda x: torch.cat([x[:5] // 2, x[5:]]), ["5 images of the manifest are not here, and 5"]),
        (lambda x: x.flip(0), ["in another order from image 0 on"]),
    ],
)  # fmt: skip
def test_a_copy_that_differs_is_told_how(manifest, change, told):
    found = "; ".join(manifest.differences(copy_with(change(PIXELS))))
    assert all(one in found for one in told), found


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", 2), ("num_images", 41), ("num_images", "many"), ("image_size", 10**7),
        ("std", [0.0, 1.0, 1.0]), ("mean", [0.5]), ("mean", [float("nan"), 0, 0]), ("digests", None),
    ],
)  # fmt: skip
def test_a_file_that_is_no_manifest_is_refused(manifest, tmp_path, key, value):
    content = {"format": 1, **dataclasses.asdict(manifest), key: value}
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"wrong.json is no manifest of anchors"):
        Manifest.read(path)
    with pytest.raises(DataError, match="can't be read"):
        Manifest.read(tmp_path / "nowhere.json")


def test_a_coordinator_without_images_knows_what_peers_with_images_know(manifest, tmp_path):
    path = tmp_path / "m.json"
    manifest.write(path)
    sizes = ("data.options.size=40", "data.options.test_size=8")
    settings = [*[one for one in TINY if not one.startswith(("data.", "host="))], *sizes]
    flower = compose_run([*settings, "host=flower", f"anchors={path}"])
    coordinator = prepare(flower)
    peer = prepare(compose_run([*settings, "host=local"]))
    ours = {k: v for k, v in coordinator.agreement.items() if k != "configuration_hash"}
    theirs = {k: v for k, v in peer.agreement.items() if k != "configuration_hash"}
    assert ours == theirs
    assert coordinator.schedule.digest(2) == peer.schedule.digest(2)
    assert coordinator.wire_format == peer.wire_format
    assert notes_of(coordinator) == ()
    with pytest.raises(DataError, match="images of synthetic are not here"):
        coordinator.images_of(coordinator.peer_ids[0], 0, with_labels=False)


def test_a_manifest_stands_for_images_at_sites_only(tmp_path):
    with pytest.raises(ConfigError, match="a Flower deployment, without a partition"):
        compose_run([*TINY, f"anchors={tmp_path}/m.json"])
