"""The cache of decoded pixels: decoded once, never half, and what stayed the same is kept."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.files import pixel_cache
from dogo_fed.data.map_style import fingerprint
from dogo_fed.errors import DataError
from tests.support.command_line import REPOSITORY
from tests.support.image_folders import (
    all_images,
    draw,
    levels,
    listing_decoded,
    load_folder,
    random_images,
    write_folder,
)


@pytest.fixture
def decoded(monkeypatch):
    return listing_decoded(monkeypatch, pixel_cache)


def entries(root: Path) -> list[Path]:
    return list((root / ".dogo_fed_cache").iterdir())


def test_images_are_decoded_once(tmp_path, decoded):
    write_folder(tmp_path)
    first, second = load_folder(tmp_path), load_folder(tmp_path)
    assert len(decoded) == 6
    assert torch.equal(all_images(first.train), all_images(second.train))
    assert (first.mean, first.std, first.fingerprint) == (
        second.mean,
        second.std,
        second.fingerprint,
    )


def test_after_a_change_only_what_has_changed_is_decoded(tmp_path, decoded):
    images = write_folder(tmp_path)
    load_folder(tmp_path)
    os.utime(tmp_path / "train" / "cat" / "1.png", ns=(1, 1))
    draw(tmp_path / "train" / "cat" / "2.png", 7)
    decoded.clear()
    data = load_folder(tmp_path)
    assert [path.name for path in decoded] == ["1.png", "2.png"]
    assert torch.equal(all_images(data.train)[[0, 1, 3, 4]], images[:4])
    assert not list((tmp_path / ".dogo_fed_cache").glob(".*.partial*"))


def test_other_ways_of_decoding_do_not_share_pixels(tmp_path, decoded):
    write_folder(tmp_path)
    sides = [
        load_folder(tmp_path, image_size=4, stored_size=stored).train.images(torch.tensor([0]))
        for stored in (8, 4)
    ]
    assert [one.shape[-1] for one in sides] == [8, 4]
    grey = load_folder(tmp_path, channels=1).train.images(torch.tensor([0]))
    assert grey.shape == (1, 1, 8, 8)
    assert len(decoded) == 18


def test_two_places_have_one_fingerprint(tmp_path):
    for site in ("a", "b"):
        write_folder(tmp_path / site)
    first = load_folder(tmp_path / "a", cache_dir=str(tmp_path / "cache"))
    second = load_folder(tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    assert not (tmp_path / "a" / ".dogo_fed_cache").exists()


def test_without_a_writable_cache_it_warns_and_works(tmp_path, caplog):
    images = write_folder(tmp_path / "images")
    (tmp_path / "file").write_text("a cache folder can't be made below this")
    with caplog.at_level(logging.WARNING):
        data = load_folder(tmp_path / "images", cache_dir=str(tmp_path / "file" / "cache"))
    assert torch.equal(all_images(data.train), images[:4])
    assert data.fingerprint == fingerprint(images[:4])
    assert "no image cache" in caplog.text


def test_a_full_disk_is_survived(tmp_path, monkeypatch, caplog):
    images = write_folder(tmp_path)

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pixel_cache, "_write_pixels", full)
    with caplog.at_level(logging.WARNING):
        data = load_folder(tmp_path)
    assert torch.equal(all_images(data.test), images[4:])
    assert "No space left" in caplog.text
    assert not entries(tmp_path)


def test_what_does_not_fit_on_the_disk_is_not_started(tmp_path, monkeypatch, caplog, decoded):
    images = write_folder(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=6 * 3 * 8 * 8 - 1)
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda path: usage)
    with caplog.at_level(logging.WARNING):
        data = load_folder(tmp_path)
    assert "do not fit" in caplog.text
    assert len(decoded) == 6  # once, for memory
    assert torch.equal(all_images(data.train), images[:4])
    assert not entries(tmp_path)


@pytest.fixture
def no_room(tmp_path, monkeypatch):
    """A disk on which six small images do not fit, and that are too many for memory."""
    usage = shutil.disk_usage(tmp_path)._replace(free=6 * 3 * 8 * 8 - 1)
    monkeypatch.setattr(pixel_cache.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(pixel_cache, "MOST_BYTES_WITHOUT_CACHE", 6 * 3 * 8 * 8 - 1)


def facts_of(data):
    return data.mean, data.std, data.fingerprint, data.test_fingerprint


def test_what_fits_neither_on_disk_nor_in_memory_is_decoded_on_demand(tmp_path, no_room, decoded):
    images = write_folder(tmp_path / "images")
    kept = load_folder(tmp_path / "images", cache_dir=str(tmp_path / "cache"))
    decoded.clear()
    data = load_folder(tmp_path / "images", cache_dir=str(tmp_path / "cache"))
    assert decoded == [], "what is known of the images is kept"
    assert facts_of(data) == facts_of(kept)
    assert data.fingerprint == fingerprint(images[:4]), "it is the same data set with a cache"
    assert torch.equal(data.train.images(torch.tensor([3, 0, 3])), images[[3, 0, 3]])
    assert torch.equal(all_images(data.test), images[4:])
    assert len(data.train.images(torch.empty(0, dtype=torch.int64))) == 0
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    (note,) = [note for note in data.notes if "decoded anew" in note]
    assert "data.options.cache_dir=" in note


def test_on_demand_can_be_asked_for(tmp_path, decoded):
    images = write_folder(tmp_path)
    kept = load_folder(tmp_path)
    assert not any("decoded anew" in note for note in kept.notes)
    data = load_folder(tmp_path, cache_dir="off")
    (note,) = [note for note in data.notes if "decoded anew" in note]
    assert "data.options.cache_dir=off" in note and facts_of(data) == facts_of(kept)
    decoded.clear()
    assert torch.equal(all_images(load_folder(tmp_path, cache_dir="off").train), images[:4])
    assert decoded == [] and not Path("off").exists()
    assert torch.equal(all_images(load_folder(tmp_path).train), images[:4]), "what is there stays"


def test_images_on_demand_are_those_that_can_be_read(tmp_path, no_room):
    images = write_folder(tmp_path)
    (tmp_path / "train" / "cat" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"1\.png"):
        load_folder(tmp_path)
    data = load_folder(tmp_path, skip_broken=True)
    assert torch.equal(all_images(data.train), images[[0, 2, 3]])
    assert data.fingerprint == fingerprint(images[[0, 2, 3]])
    draw(tmp_path / "train" / "cat" / "1.png", 7)
    assert len(load_folder(tmp_path, skip_broken=True).train) == 4


@pytest.mark.parametrize("change", ["touched", "removed", "broken"])
def test_a_file_that_changes_while_it_is_decoded_on_demand_is_named(tmp_path, no_room, change):
    write_folder(tmp_path)
    data = load_folder(tmp_path)
    file = tmp_path / "train" / "cat" / "1.png"
    before = file.stat()
    if change == "removed":
        file.unlink()
    elif change == "touched":
        os.utime(file, ns=(1, 1))
    else:
        file.write_bytes(b"x" * before.st_size)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    data.train.images(torch.tensor([0, 2]))
    with pytest.raises(DataError, match=r"1\.png: .* It could be read when"):
        data.train.images(torch.tensor([0, 1]))


def test_without_any_cache_images_on_demand_are_looked_through_at_every_start(
    tmp_path, no_room, decoded, caplog
):
    images = write_folder(tmp_path / "images")
    (tmp_path / "file").write_text("a cache folder can't be made below this")
    for _ in range(2):
        decoded.clear()
        data = load_folder(tmp_path / "images", cache_dir=str(tmp_path / "file" / "cache"))
        assert len(decoded) == 6 and data.fingerprint == fingerprint(images[:4])
    assert "looked through at every start" in caplog.text


def test_a_file_that_moves_from_test_to_train_is_another_data_set(tmp_path):
    """The same files in the same order, so only the place of the border tells them apart."""
    for number, image in enumerate(random_images(3)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{number}.png")
    options = {"root": str(tmp_path), "domain": "d", "image_size": 8, "num_classes": None}
    sizes = []
    for border in (1, 2):
        lines = [f"{number}.png 0\n" for number in range(3)]
        (tmp_path / "d_train.txt").write_text("".join(lines[:border]))
        (tmp_path / "d_test.txt").write_text("".join(lines[border:]))
        sizes.append(len(all_images(build_dataset("domainnet", options).train)))
    assert sizes == [1, 2]


def test_a_faster_process_does_not_disturb(tmp_path, monkeypatch, caplog):
    images = write_folder(tmp_path)
    original = pixel_cache._write_entry
    raced = []

    def lose_the_race(*arguments):
        original(*arguments)
        if not raced:
            raced.append(True)
            load_folder(tmp_path)  # another process finishes first

    monkeypatch.setattr(pixel_cache, "_write_entry", lose_the_race)
    with caplog.at_level(logging.WARNING):
        data = load_folder(tmp_path)
    assert raced and not caplog.text
    assert torch.equal(all_images(data.train), images[:4])
    assert len(entries(tmp_path)) == 1


def test_what_a_killed_decoding_has_left_is_removed_by_the_next(tmp_path):
    write_folder(tmp_path)
    program = (
        "import os, signal; from dogo_fed.data.files import pixel_cache; "
        "from tests.support.image_folders import load_folder; from pathlib import Path; "
        "pixel_cache.decode = lambda *given: os.kill(os.getpid(), signal.SIGKILL); "
        f"load_folder(Path({str(tmp_path)!r}))"
    )
    killed = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False)
    (left,) = entries(tmp_path)
    assert killed.returncode == -signal.SIGKILL and ".partial" in left.name
    load_folder(tmp_path)
    (entry,) = entries(tmp_path)
    assert entry != left and (entry / "train.npy").exists()


def test_an_entry_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power cut would leave the right fingerprint over blocks of zeros."""
    write_folder(tmp_path)
    flushed, named = set(), []
    flush, rename = os.fsync, Path.rename

    def fsync(descriptor):
        flush(descriptor)
        flushed.add(os.fstat(descriptor).st_ino)

    def checked(path, target):
        named.append(path.name)
        assert {one.stat().st_ino for one in (path, *path.iterdir())} <= flushed
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", checked)
    load_folder(tmp_path)
    (entry,) = entries(tmp_path)
    assert len(named) == 1 and not [path for path in entry.iterdir() if "partial" in path.name]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", b""),
        ("manifest.json", bytes(200)),
        ("manifest.json", b"[]"),
        ("train.npy", b""),
        ("test.npy", b"torn"),
    ],
)
def test_an_entry_that_can_not_be_read_is_made_anew(tmp_path, caplog, name, content):
    images = write_folder(tmp_path)
    load_folder(tmp_path)
    (entry,) = entries(tmp_path)
    (entry / name).write_bytes(content)
    for _ in range(2):
        data = load_folder(tmp_path)
        assert torch.equal(all_images(data.train), images[:4])
        assert torch.equal(all_images(data.test), images[4:])
    assert len(entries(tmp_path)) == 1
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert f"the image cache {entry} can't be read" in caplog.text


def test_broken_images_cost_nothing_that_was_decoded(tmp_path, decoded):
    write_folder(tmp_path)
    broken = tmp_path / "train" / "dog" / "1.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"train/dog/1\.png"):
        load_folder(tmp_path)
    assert len(decoded) == 6
    broken.write_bytes(whole)
    decoded.clear()
    assert len(load_folder(tmp_path).train) == 4
    assert [path.name for path in decoded] == ["1.png"]


def test_an_image_that_can_be_read_again_is_read_again(tmp_path):
    """It was not readable for a while; its size and time are as before."""
    write_folder(tmp_path)
    path = tmp_path / "train" / "dog" / "1.png"
    status, whole = path.stat(), path.read_bytes()
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(load_folder(tmp_path, skip_broken=True).train) == 3
    path.write_bytes(whole)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    data = load_folder(tmp_path)
    assert len(data.train) == 4 and not any("broken" in note for note in data.notes)
    assert len(entries(tmp_path)) == 1


def test_which_images_have_more_frames_is_kept_and_taken_over(tmp_path, decoded):
    first, second = (Image.new("RGB", (8, 8), (value, value, value)) for value in (10, 200))
    first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
    note = "1 images have more than one frame; the first is taken"
    for name in ("b.png", "b.png", "c.png"):
        if not (tmp_path / name).exists():
            draw(tmp_path / name, 7)
        assert load_folder(tmp_path).notes == (note,)
    assert sorted(path.name for path in decoded) == ["a.gif", "b.png", "c.png"]


def test_pixels_that_another_version_has_decoded_are_not_taken_over(tmp_path, monkeypatch, decoded):
    write_folder(tmp_path)
    load_folder(tmp_path)
    monkeypatch.setattr(pixel_cache, "CACHE_VERSION", pixel_cache.CACHE_VERSION + 1)
    load_folder(tmp_path)
    assert len(decoded) == 12


def test_an_empty_test_part_is_kept_too(tmp_path, decoded):
    draw(tmp_path / "a.png", 10)
    for _ in range(2):
        data = load_folder(tmp_path)
        assert levels(data.train) == [10] and len(data.test) == 0
    assert len(decoded) == 1
