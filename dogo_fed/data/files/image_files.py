"""Lists of image files as a `DataSet`: decoded once and kept as bytes on disk.

Decoding is slow, so the pixels are written to a cache folder, and every process maps them into
memory from there. The cache is named after the files' names, sizes and times, so a changed folder
is read again. It can be deleted at any time.
"""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps

from dogo_fed.data.map_style import UInt8Array, fingerprint, pixel_statistics
from dogo_fed.data.source import DataSet, TensorImages
from dogo_fed.errors import ConfigError, DataError

_log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png")
CACHE_FOLDER = ".dogo_fed_cache"
CACHE_VERSION = 2
"""Raised whenever the meaning of the cached files changes."""
MANIFEST = "manifest.json"
_DECODED_AT_ONCE = 2048
"""Images between two writes to the cache."""
MOST_BYTES_WITHOUT_CACHE = 4 * 2**30
"""More pixels than these are not decoded into the memory of each process."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image on disk: where it is, its class, and what changes when it changes."""

    path: Path
    label: int
    num_bytes: int
    modified_ns: int


Listing: TypeAlias = list[ImageFile]


@dataclass(frozen=True, slots=True)
class Splits:
    """The image files of a data set, below one folder.

    Attributes:
        root: folder that all files are in; where they lie below it is part of the cache's name.
        train, test: in the order of the sample ids.
        num_classes: labels are below it.
        class_names: in the order of the labels; empty if they have no names.
    """

    root: Path
    train: Listing
    test: Listing
    num_classes: int
    class_names: tuple[str, ...] = ()


def dataset_from_files(
    name: str, splits: Splits, image_size: int, cache_dir: str | None
) -> DataSet:
    """Returns image files as a data set, RGB, image_size x image_size.

    Images of another size are resized so that the shorter side fits, then cropped to the centre.

    Args:
        name: what reports call it.
        splits: the files.
        image_size: side in pixels.
        cache_dir: where decoded pixels are kept; None is `.dogo_fed_cache` in the splits' root. If
            it can't be written to, nothing is kept, and every process decodes the images anew.

    Raises:
        DataError: an image can't be decoded, or there is no cache and the pixels are too many for
            memory.
    """
    train_files, test_files = splits.train, splits.test
    cache = Path(cache_dir) if cache_dir is not None else splits.root / CACHE_FOLDER
    entry = cache / _cache_key(splits, image_size)
    if not _is_complete(entry):
        _fill_cache(entry, splits, image_size)
    if not _is_complete(entry):
        _check_memory(entry, len(train_files) + len(test_files), image_size)
    train_NCHW = _pixels(entry, "train", train_files, image_size)
    test_NCHW = _pixels(entry, "test", test_files, image_size)
    found = _description(entry, train_NCHW, test_NCHW)
    return DataSet(
        name=name,
        train=TensorImages(train_NCHW, _labels(train_files)),
        test=TensorImages(test_NCHW, _labels(test_files)),
        num_classes=splits.num_classes,
        image_size=image_size,
        mean=found.mean,
        std=found.std,
        fingerprint=found.fingerprint,
        test_fingerprint=found.test_fingerprint,
        class_names=splits.class_names,
    )


def check_image_size(name: str, image_size: int) -> None:
    """Raises ConfigError if the size is below 1."""
    if image_size < 1:
        raise ConfigError(f"{name}: image_size must be at least 1, not {image_size}")


def class_folders(folder: Path) -> list[str]:
    """Returns the names of the folders in a folder in alphabetical order, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(one.name for one in entries if one.is_dir() and not one.name.startswith("."))


def images_in(folder: Path, label: int) -> Listing:
    """Returns the image files in a folder by name, all of one class, hidden ones left out.

    Raises:
        DataError: one of them is a link to nothing, or can't be looked at.
    """
    with os.scandir(folder) as entries:
        images = [
            one
            for one in entries
            if one.name.lower().endswith(SUFFIXES) and not one.name.startswith(".")
        ]
        listing = []
        for one in sorted(images, key=lambda one: one.name):
            try:
                listing.append(_image_file(Path(one.path), label, one.stat()))
            except OSError as error:
                kind = "a link to nothing" if one.is_symlink() else "not to be read"
                raise DataError(
                    f"{one.path} is {kind} ({error.strerror}); remove it, or put the image there"
                ) from error
        return listing


def image_at(path: Path, label: int) -> ImageFile:
    """Returns what is remembered of the image at a path.

    Raises:
        OSError: there is none.
    """
    return _image_file(path, label, path.stat())


def _image_file(path: Path, label: int, status: os.stat_result) -> ImageFile:
    return ImageFile(path, label, status.st_size, status.st_mtime_ns)


def _labels(files: Listing) -> torch.Tensor:
    """Returns the classes of files: int64, shape N."""
    return torch.tensor([one.label for one in files], dtype=torch.int64)


def _cache_key(splits: Splits, image_size: int) -> str:
    """Returns a name for the decoded pixels of exactly these files at this size."""
    format_and_sizes = f"{CACHE_VERSION} {image_size} {len(splits.train)}"
    hasher = hashlib.blake2b(format_and_sizes.encode(), digest_size=12)
    for one in splits.train + splits.test:
        place = one.path.relative_to(splits.root).as_posix()
        # A name on disk need not be UTF-8; Python then has it with surrogates.
        name = place.encode("utf-8", "surrogateescape")
        hasher.update(b"\0" + name + f"\0{one.num_bytes} {one.modified_ns}".encode())
    return hasher.hexdigest()


def _is_complete(entry: Path) -> bool:
    """Tells whether a cache entry is there; it appears whole or not at all."""
    return (entry / MANIFEST).is_file()


def _fill_cache(entry: Path, splits: Splits, image_size: int) -> None:
    """Decodes all images into a new cache entry; without write access it only logs a warning.

    The entry is made under another name and renamed, so a reader never sees half of it and two
    processes that do the same at the same time don't disturb each other. Who may read the folder of
    the images may read their pixels.
    """
    train, test = splits.train, splits.test
    try:
        is_new = not entry.parent.exists()
        entry.parent.mkdir(parents=True, exist_ok=True)
        if is_new:
            _share_like(splits.root, entry.parent)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=entry.parent))
    except OSError as error:
        _log.warning(
            "no image cache in %s (%s); images are decoded every time", entry.parent, error
        )
        return
    try:
        _check_room(unfinished, len(train) + len(test), image_size)
        _write_pixels(unfinished / "train.npy", train, image_size)
        _write_pixels(unfinished / "test.npy", test, image_size)
        _write_manifest(unfinished)
        for path in (*unfinished.iterdir(), unfinished):
            _share_like(splits.root, path)
        unfinished.rename(entry)
    except OSError as error:
        if not _is_complete(entry):  # otherwise another process was faster, which is as good
            _log.warning("no image cache in %s (%s)", entry.parent, error)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _share_like(folder: Path, path: Path) -> None:
    """Lets those read a file or folder who may read another folder, whatever the umask says."""
    others = folder.stat().st_mode & (0o055 if path.is_dir() else 0o044)
    path.chmod(path.stat().st_mode & 0o700 | others)


def _num_bytes(num_images: int, image_size: int) -> int:
    """Returns the size of decoded images."""
    return num_images * 3 * image_size * image_size


def _check_room(folder: Path, num_images: int, image_size: int) -> None:
    """Raises OSError, before anything is decoded, if the pixels don't fit on a folder's disk."""
    needed, free = _num_bytes(num_images, image_size), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{_gib(needed)} of decoded pixels do not fit, {_gib(free)} are free"
        )


def _check_memory(entry: Path, num_images: int, image_size: int) -> None:
    """Raises DataError if there is no cache and decoded images are too many for memory."""
    needed = _num_bytes(num_images, image_size)
    if needed > MOST_BYTES_WITHOUT_CACHE:
        raise DataError(
            f"{num_images} images of {image_size} x {image_size} are {_gib(needed)} of pixels, and "
            f"{entry.parent} can't keep them (see the warning above); without a cache at most "
            f"{_gib(MOST_BYTES_WITHOUT_CACHE)} are held in memory. Set data.options.cache_dir to a "
            "folder with room, or data.options.image_size to less"
        )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"


def _write_pixels(path: Path, files: Listing, image_size: int) -> None:
    """Writes the pixels of files as one .npy file, a chunk at a time."""
    shape = (len(files), 3, image_size, image_size)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        for chunk_NCHW in _decode_chunks(files, image_size):
            stream.write(chunk_NCHW.data)


@dataclass(frozen=True, slots=True)
class _Description:
    """What is computed from the pixels once and kept next to them; see `DataSet`."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    test_fingerprint: str

    @classmethod
    def of(cls, train_NCHW: torch.Tensor, test_NCHW: torch.Tensor) -> _Description:
        return cls(*pixel_statistics(train_NCHW), fingerprint(train_NCHW), fingerprint(test_NCHW))


def _write_manifest(entry: Path) -> None:
    """Writes the description of the pixels next to them."""
    pixels = (_map_pixels(entry / f"{which}.npy") for which in ("train", "test"))
    manifest = dataclasses.asdict(_Description.of(*pixels))
    (entry / MANIFEST).write_text(json.dumps(manifest, indent=2))


def _pixels(entry: Path, which: str, files: Listing, image_size: int) -> torch.Tensor:
    """Returns pixels from the cache if it has them, otherwise from the files."""
    if _is_complete(entry):
        return _map_pixels(entry / f"{which}.npy")
    return torch.from_numpy(np.concatenate(list(_decode_chunks(files, image_size))))


def _map_pixels(path: Path) -> torch.Tensor:
    """Returns an .npy file as a tensor that reads from disk what is looked at."""
    # Copy-on-write, since torch warns about read-only memory; nothing writes to it.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _description(entry: Path, train_NCHW: torch.Tensor, test_NCHW: torch.Tensor) -> _Description:
    """Returns the description of the pixels, from the cache if it has one."""
    if not _is_complete(entry):
        return _Description.of(train_NCHW, test_NCHW)
    manifest = json.loads((entry / MANIFEST).read_text())
    return _Description(
        tuple(manifest["mean"]),
        tuple(manifest["std"]),
        manifest["fingerprint"],
        # A cache of an earlier version does not have it, and reading all pixels takes long.
        manifest.get("test_fingerprint", ""),
    )


def _decode_chunks(files: Listing, image_size: int) -> Iterator[UInt8Array]:
    """Yields the images of files in order, uint8, up to _DECODED_AT_ONCE x C x H x W."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), _DECODED_AT_ONCE):
            chunk = files[start : start + _DECODED_AT_ONCE]
            paths = [one.path for one in chunk]
            yield np.stack(list(pool.map(_decode, paths, [image_size] * len(chunk))))


def _decode(path: Path, image_size: int) -> UInt8Array:
    """Returns one image as uint8, C x H x W, or raises DataError."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} can't be decoded as an image: {error}") from error
    if image.size != (image_size, image_size):
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))
