"""Images in class folders, decoded once and kept as bytes on disk.

The layout is `train/<class>/*.jpg` and `test/<class>/*.jpg` (or `val/`). Decoding is slow, so the
pixels are written to a cache folder, and every process maps them into memory from there. The cache
is named after the files' names, sizes and times, so a changed folder is read again. It can be
deleted at any time.
"""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
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
TEST_FOLDERS = ("test", "val")
LAYOUT = "train/<class>/*.jpg (or jpeg, png) and test/<class>/ (or val/<class>/)"
CACHE_FOLDER = ".dogo_fed_cache"
CACHE_VERSION = 1
"""Raised whenever the meaning of the cached files changes."""
MANIFEST = "manifest.json"
CHUNK_IMAGES = 2048
"""Images decoded between two writes to the cache."""


@dataclass(frozen=True, slots=True)
class _ImageFile:
    """One image on disk: where it is, its class, and what changes when it changes."""

    path: Path
    label: int
    num_bytes: int
    modified_ns: int


_Listing: TypeAlias = list[_ImageFile]


def image_folder(root: str, image_size: int = 32, cache_dir: str | None = None) -> DataSet:
    """Returns the images of a folder as RGB, image_size x image_size.

    Images of another size are resized so that the shorter side fits, then cropped to the centre.

    Args:
        root: folder with train/<class>/ and test/<class>/ (or val/<class>/).
        image_size: side in pixels.
        cache_dir: where decoded pixels are kept; None is `.dogo_fed_cache` in root. If it can't be
            written to, nothing is kept, and every process decodes the images anew.

    Raises:
        ConfigError: image_size is below 1.
        DataError: the layout is not as expected, or an image can't be decoded.
    """
    if image_size < 1:
        raise ConfigError(f"image_folder: image_size must be at least 1, not {image_size}")
    train_folder, test_folder = _find_splits(Path(root))
    classes = _class_names(train_folder)
    train_files = _list_images(train_folder, classes)
    test_files = _list_images(test_folder, classes)
    cache = Path(cache_dir) if cache_dir is not None else Path(root) / CACHE_FOLDER
    entry = cache / _cache_key(Path(root), train_files + test_files, image_size)
    if not _is_complete(entry):
        _fill_cache(entry, train_files, test_files, image_size)
    train_NCHW = _pixels(entry, "train", train_files, image_size)
    mean, std, digest = _description(entry, train_NCHW)
    return DataSet(
        name="image_folder",
        train=TensorImages(train_NCHW, _labels(train_files)),
        test=TensorImages(_pixels(entry, "test", test_files, image_size), _labels(test_files)),
        num_classes=len(classes),
        image_size=image_size,
        mean=mean,
        std=std,
        fingerprint=digest,
    )


def _find_splits(root: Path) -> tuple[Path, Path]:
    """Returns the training and the test folder, or raises DataError."""
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not (root / "train").is_dir() or not tests:
        there = "that folder does not exist" if not root.is_dir() else "one of the two is missing"
        raise DataError(
            f"image_folder expects {LAYOUT} in {root}, but {there}; set data.options.root"
        )
    return root / "train", tests[0]


def _class_names(folder: Path) -> list[str]:
    """Returns the names of the class folders in alphabetical order, or raises DataError."""
    names = sorted(
        entry.name
        for entry in folder.iterdir()
        if entry.is_dir() and not entry.name.startswith(".")
    )
    if not names:
        raise DataError(f"image_folder expects {LAYOUT}, but {folder} has no class folders")
    return names


def _list_images(folder: Path, classes: Sequence[str]) -> _Listing:
    """Returns the image files of a split, by class and then by name, or raises DataError."""
    strangers = set(_class_names(folder)) - set(classes)
    if strangers:
        raise DataError(
            f"{folder} has the class {min(strangers)!r}, which the train folder has not"
        )
    files = []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            files += [_image_file(entry, label) for entry in _image_entries(folder / name)]
    if not files:
        raise DataError(f"image_folder expects {LAYOUT}, but {folder} has no images")
    return files


def _image_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Returns the directory entries of a folder's images, by name."""
    with os.scandir(folder) as entries:
        images = [
            entry
            for entry in entries
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
        ]
    return sorted(images, key=lambda entry: entry.name)


def _image_file(entry: os.DirEntry[str], label: int) -> _ImageFile:
    """Returns what is remembered of a directory entry."""
    status = entry.stat()
    return _ImageFile(Path(entry.path), label, status.st_size, status.st_mtime_ns)


def _labels(files: _Listing) -> torch.Tensor:
    """Returns the classes of files: int64, shape N."""
    return torch.tensor([one.label for one in files], dtype=torch.int64)


def _cache_key(root: Path, files: _Listing, image_size: int) -> str:
    """Returns a name for the decoded pixels of exactly these files at this size."""
    hasher = hashlib.blake2b(f"{CACHE_VERSION} {image_size}".encode(), digest_size=12)
    for one in files:
        place = one.path.relative_to(root).as_posix()
        hasher.update(f"\0{place}\0{one.num_bytes} {one.modified_ns}".encode())
    return hasher.hexdigest()


def _is_complete(entry: Path) -> bool:
    """Tells whether a cache entry is there; it appears whole or not at all."""
    return (entry / MANIFEST).is_file()


def _fill_cache(entry: Path, train: _Listing, test: _Listing, image_size: int) -> None:
    """Decodes all images into a new cache entry; without write access it only logs a warning.

    The entry is made under another name and renamed, so a reader never sees half of it and two
    processes that do the same at the same time don't disturb each other.
    """
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=entry.parent))
    except OSError as error:
        _log.warning(
            "no image cache in %s (%s); images are decoded every time", entry.parent, error
        )
        return
    try:
        _write_pixels(unfinished / "train.npy", train, image_size)
        _write_pixels(unfinished / "test.npy", test, image_size)
        _write_manifest(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(entry)
    except OSError as error:
        if not _is_complete(entry):  # otherwise another process was faster, which is as good
            _log.warning("no image cache in %s (%s)", entry.parent, error)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_pixels(path: Path, files: _Listing, image_size: int) -> None:
    """Writes the pixels of files as one .npy file, a chunk at a time."""
    shape = (len(files), 3, image_size, image_size)
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        for chunk_NCHW in _decode_chunks(files, image_size):
            stream.write(chunk_NCHW.data)


def _write_manifest(entry: Path) -> None:
    """Writes mean, deviation and fingerprint of the training pixels next to them."""
    mean, std, digest = _describe(_map_pixels(entry / "train.npy"))
    manifest = {"mean": mean, "std": std, "fingerprint": digest}
    (entry / MANIFEST).write_text(json.dumps(manifest, indent=2))


def _pixels(entry: Path, which: str, files: _Listing, image_size: int) -> torch.Tensor:
    """Returns pixels from the cache if it has them, otherwise from the files."""
    if _is_complete(entry):
        return _map_pixels(entry / f"{which}.npy")
    return torch.from_numpy(np.concatenate(list(_decode_chunks(files, image_size))))


def _map_pixels(path: Path) -> torch.Tensor:
    """Returns an .npy file as a tensor that reads from disk what is looked at."""
    # Copy-on-write, since torch warns about read-only memory; nothing writes to it.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def _description(
    entry: Path, train_NCHW: torch.Tensor
) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Returns mean, deviation and fingerprint, from the cache if it has them."""
    if not _is_complete(entry):
        return _describe(train_NCHW)
    manifest = json.loads((entry / MANIFEST).read_text())
    return tuple(manifest["mean"]), tuple(manifest["std"]), manifest["fingerprint"]


def _describe(images_NCHW: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...], str]:
    """Returns mean, deviation and fingerprint of images."""
    return *pixel_statistics(images_NCHW), fingerprint(images_NCHW)


def _decode_chunks(files: _Listing, image_size: int) -> Iterator[UInt8Array]:
    """Yields the images of files in order, uint8, up to CHUNK_IMAGES x C x H x W."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), CHUNK_IMAGES):
            chunk = files[start : start + CHUNK_IMAGES]
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
