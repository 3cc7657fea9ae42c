"""Kept digests are of the images that are there now, or they are made again."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest
import torch

from dogo_fed.data import digests
from dogo_fed.data.digests import image_digests
from dogo_fed.data.files.digests_file import DigestsFile
from dogo_fed.data.source import TensorImages
from tests.support.image_folders import draw, load_folder, write_folder


def made_of(images: torch.Tensor) -> list[bytes]:
    return image_digests(TensorImages(images, torch.zeros(len(images))), 8)


def digests_of(root: Path, **options: object) -> list[bytes]:
    return image_digests(load_folder(root, **options).train, 8)


def files_in(root: Path) -> dict[str, Path]:
    return {path.name: path for path in (root / ".dogo_fed_cache").rglob("*.digests")}


@pytest.fixture
def made(monkeypatch):
    """How many images each making of digests was about."""
    numbers = []
    original = digests._made
    monkeypatch.setattr(
        digests, "_made", lambda *given: numbers.append(len(given[0])) or original(*given)
    )
    return numbers


@pytest.fixture(params=[{}, {"cache_dir": "off"}], ids=["cached", "on demand"])
def options(request):
    return request.param


def test_digests_lie_beside_the_facts_and_are_those_of_the_pixels(tmp_path, made, options):
    images = write_folder(tmp_path)
    for _ in range(2):
        assert digests_of(tmp_path, **options) == made_of(images[:4])
    assert made.count(4) == 1 + 2, "once for the folder, and twice for the test"
    (name,) = files_in(tmp_path)
    facts = files_in(tmp_path)[name].with_name(name.replace("train.digests", "manifest.json"))
    assert facts.exists()


def test_an_image_that_has_changed_has_another_digest(tmp_path, options):
    write_folder(tmp_path)
    before = digests_of(tmp_path, **options)
    draw(tmp_path / "train" / "cat" / "1.png", 7)
    after = digests_of(tmp_path, **options)
    assert [one == other for one, other in zip(before, after, strict=True)] == [
        True,
        False,
        True,
        True,
    ]


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-16],
        lambda content: content + content[-16:],
        lambda content: bytes(len(content)),
        lambda content: content[:16] + content[32:] + content[16:32],
        flipped,
    ],
    ids=["empty", "short", "long", "zeros", "other order", "a bit"],
)
def test_a_damaged_file_is_made_again(tmp_path, caplog, damage):
    images = write_folder(tmp_path)
    digests_of(tmp_path)
    (path,) = files_in(tmp_path).values()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert digests_of(tmp_path) == made_of(images[:4])
    assert f"{path} is damaged, or of other images, and is made again" in caplog.text
    assert path.read_bytes() == whole


def test_a_file_of_other_images_is_not_trusted(tmp_path, caplog):
    """Of as many, which are as large, in a folder that is alike."""
    write_folder(tmp_path / "a")
    images = write_folder(tmp_path / "b")
    for number in range(2):
        draw(tmp_path / "a" / "train" / "cat" / f"{number}.png", number)
    digests_of(tmp_path / "a")
    digests_of(tmp_path / "b")
    (theirs,), (mine,) = files_in(tmp_path / "a").values(), files_in(tmp_path / "b").values()
    mine.write_bytes(theirs.read_bytes())
    assert digests_of(tmp_path / "b") == made_of(images[:4])
    assert f"{mine} is damaged, or of other images" in caplog.text


def test_an_image_that_can_be_read_again_gets_its_digest(tmp_path, options):
    """The cache's name stays, since size and time of the file are as they were."""
    images = write_folder(tmp_path)
    path = tmp_path / "train" / "dog" / "1.png"
    status, whole = path.stat(), path.read_bytes()
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    for _ in range(2):
        assert digests_of(tmp_path, skip_broken=True, **options) == made_of(images[:3])
    path.write_bytes(whole)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests_of(tmp_path, **options) == made_of(images[:4])


def test_where_nothing_can_be_written_they_are_made_at_every_start(tmp_path, made, caplog):
    images = write_folder(tmp_path / "images")
    (tmp_path / "file").write_text("a cache folder can't be made below this")
    for _ in range(2):
        made.clear()
        data = load_folder(tmp_path / "images", cache_dir=str(tmp_path / "file" / "cache"))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = [image_digests(data.train, 8) for _ in range(2)]
        assert made == [4], "within a process they are made once"
        assert "digests of images are made anew at every start" in caplog.text
        assert found == [made_of(images[:4])] * 2


def test_who_may_read_the_images_may_read_their_digests(tmp_path):
    write_folder(tmp_path)
    tmp_path.chmod(0o750)
    digests_of(tmp_path)
    (path,) = files_in(tmp_path).values()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_can_not_be_read_is_said(tmp_path, caplog):
    kept = DigestsFile(tmp_path / ("x" * 300), tmp_path, "of nothing", 4)
    assert kept.read() is None
    assert "can't be read (File name too long), and is made again" in caplog.text
