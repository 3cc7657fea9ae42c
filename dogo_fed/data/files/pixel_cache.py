"""Decoded pixels on disk, so that files are decoded once and every process maps the same bytes.

An entry is named after the files' names, sizes and times, and after how they are decoded. A changed
folder therefore gets a new entry, which takes over the pixels of all files that stayed as they were.
Entries can be deleted at any time.
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
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dogo_fed.data.files.decode import Decoding, decode, without_pillows_limit
from dogo_fed.data.files.listing import CACHE_FOLDER, Broken, ImageFile, Listing, Splits
from dogo_fed.data.map_style import UInt8Array, fingerprint, pixel_statistics
from dogo_fed.errors import DataError

_log = logging.getLogger(__name__)

CACHE_VERSION = 3
"""Raised whenever the meaning of the cached files changes."""
MANIFEST = "manifest.json"
PARTS = ("train", "test")
_DECODED_AT_ONCE = 2048
"""Images between two writes to the cache."""
MOST_BYTES_WITHOUT_CACHE = 4 * 2**30
"""More pixels than these are not decoded into the memory of each process."""

_Keys: TypeAlias = npt.NDArray[np.void]
_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is computed from the pixels once and kept next to them; of the images that can be read.

    Attributes:
        mean, std, fingerprint, test_fingerprint: see `DataSet`.
        broken_train, broken_test: row to the reason why the image can't be read.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    test_fingerprint: str
    broken_train: Mapping[int, str]
    broken_test: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class CachedPixels:
    """The pixels of both parts, uint8 N x C x H x W, a row for every file, and their description."""

    train_NCHW: torch.Tensor
    test_NCHW: torch.Tensor
    manifest: Manifest


def cached_pixels(splits: Splits, how: Decoding, cache_dir: str | None) -> CachedPixels:
    """Returns the pixels of files, from the cache if it has them.

    Args:
        splits: the files.
        how: how they are decoded.
        cache_dir: where pixels are kept; None is `.dogo_fed_cache` in the splits' root. If it can't
            be written to, nothing is kept, and every process decodes the images anew.

    Raises:
        DataError: there is no cache and the pixels are too many for memory, or no training image
            can be read.
    """
    cache = Path(cache_dir) if cache_dir is not None else splits.root / CACHE_FOLDER
    entry = cache / _entry_name(splits, how)
    if not _is_complete(entry) or _has_healed(entry, splits, how):
        _fill(entry, splits, how)
    if _is_complete(entry):
        train_NCHW, test_NCHW = (_mapped(entry / f"{part}.npy") for part in PARTS)
        return CachedPixels(train_NCHW, test_NCHW, _read_manifest(entry))
    _check_memory(entry, len(splits.train) + len(splits.test), how)
    train_NCHW, broken_train = _decode_all(splits.train, how)
    test_NCHW, broken_test = _decode_all(splits.test, how)
    return CachedPixels(
        train_NCHW, test_NCHW, _describe(train_NCHW, test_NCHW, broken_train, broken_test)
    )


def kept_rows(number: int, broken: Mapping[int, str]) -> torch.Tensor:
    """Returns the rows of the images that can be read: int64."""
    kept = torch.ones(number, dtype=torch.bool)
    kept[torch.tensor(sorted(broken), dtype=torch.int64)] = False
    return kept.nonzero()[:, 0]


def broken_files(files: Listing, broken: Mapping[int, str]) -> list[Broken]:
    """Returns the files of these rows with their reasons."""
    return [Broken(files[row].path, reason) for row, reason in sorted(broken.items())]


def _entry_name(splits: Splits, how: Decoding) -> str:
    """Returns a name for the decoded pixels of exactly these files."""
    head = f"{CACHE_VERSION} {how.key} {how.max_megapixels} {len(splits.train)}"
    hasher = hashlib.blake2b(head.encode(), digest_size=12)
    for one in splits.train + splits.test:
        hasher.update(_file_key(splits.root, one))
    return hasher.hexdigest()


def _file_key(root: Path, one: ImageFile) -> bytes:
    """Returns 16 bytes that change when the file, its place or its time does."""
    # A name on disk need not be UTF-8; Python then has it with surrogates.
    place = one.path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
    content = place + f"\0{one.num_bytes} {one.modified_ns}".encode()
    return hashlib.blake2b(content, digest_size=_KEY_BYTES).digest()


def _keys(root: Path, files: Listing) -> _Keys:
    """Returns the keys of files as an array, a row each."""
    joined = b"".join(_file_key(root, one) for one in files)
    return np.frombuffer(joined, dtype=f"V{_KEY_BYTES}")


def _is_complete(entry: Path) -> bool:
    """Tells whether a cache entry is there; it appears whole or not at all."""
    return (entry / MANIFEST).is_file()


def _has_healed(entry: Path, splits: Splits, how: Decoding) -> bool:
    """Tells whether an image can be read now that could not be when the entry was made.

    The file may be as it was then: it was not readable for this user, or the disk was away.
    """
    manifest = _read_manifest(entry)
    there = ((splits.train, manifest.broken_train), (splits.test, manifest.broken_test))
    broken = [files[row] for files, rows in there for row in rows]
    reasons = [one for _, one in _decode_chunks(broken, how, [None] * len(broken))]
    return sum(map(len, reasons)) < len(broken)


def _fill(entry: Path, splits: Splits, how: Decoding) -> None:
    """Decodes all images into a new cache entry; without write access it only logs a warning.

    The entry is made under another name and renamed, so a reader never sees half of it and two
    processes that do the same at the same time don't disturb each other. Who may read the folder of
    the images may read their pixels.
    """
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
        _check_room(unfinished, len(splits.train) + len(splits.test), how)
        _write_entry(unfinished, splits, how)
        for path in (*unfinished.iterdir(), unfinished):
            _share_like(splits.root, path)
        if entry.exists():  # an image has healed; who maps the old pixels keeps them
            entry.rename(unfinished / "earlier")
        unfinished.rename(entry)
        shutil.rmtree(entry / "earlier", ignore_errors=True)
    except OSError as error:
        if not _is_complete(entry):  # otherwise another process was faster, which is as good
            _log.warning("no image cache in %s (%s)", entry.parent, error)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_entry(folder: Path, splits: Splits, how: Decoding) -> None:
    """Writes pixels, keys and manifest of an entry."""
    earlier = _EarlierPixels(folder.parent, how)
    broken: list[dict[int, str]] = []
    for part, files in zip(PARTS, (splits.train, splits.test), strict=True):
        keys = _keys(splits.root, files)
        broken.append(_write_pixels(folder / f"{part}.npy", files, keys, how, earlier))
        np.save(folder / f"{part}.keys.npy", keys, allow_pickle=False)
    (folder / "how").write_text(how.key)
    train_NCHW, test_NCHW = (_mapped(folder / f"{part}.npy") for part in PARTS)
    manifest = _describe(train_NCHW, test_NCHW, *broken)
    (folder / MANIFEST).write_text(json.dumps(dataclasses.asdict(manifest), indent=2))


class _EarlierPixels:
    """The pixels that other entries of a cache have, by the key of their file."""

    def __init__(self, cache: Path, how: Decoding) -> None:
        self._rows: dict[bytes, tuple[UInt8Array, int]] = {}
        for entry in sorted(cache.iterdir()):
            try:
                self._take(entry, how)
            except (OSError, ValueError):  # being deleted, or of another version
                continue

    def get(self, key: bytes) -> UInt8Array | None:
        """Returns the image with this key, C x H x W; None if no entry has it."""
        found = self._rows.get(key)
        return None if found is None else found[0][found[1]]

    def _take(self, entry: Path, how: Decoding) -> None:
        if not _is_complete(entry) or (entry / "how").read_text() != how.key:
            return
        manifest = _read_manifest(entry)
        for part, broken in zip(PARTS, (manifest.broken_train, manifest.broken_test), strict=True):
            keys = np.load(entry / f"{part}.keys.npy", allow_pickle=False)
            pixels = np.load(entry / f"{part}.npy", mmap_mode="r", allow_pickle=False)
            for row, key in enumerate(keys):
                if row not in broken:
                    self._rows[key.tobytes()] = (pixels, row)


def _write_pixels(
    path: Path, files: Listing, keys: _Keys, how: Decoding, earlier: _EarlierPixels
) -> dict[int, str]:
    """Writes an .npy file, image by image; returns the reasons of those that can't be decoded."""
    shape = (len(files), how.colours.channels, how.side, how.side)
    broken: dict[int, str] = {}
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        known = [earlier.get(key.tobytes()) for key in keys]
        for chunk_NCHW, reasons in _decode_chunks(files, how, known):
            stream.write(chunk_NCHW.data)
            broken.update(reasons)
    return broken


def _decode_all(files: Listing, how: Decoding) -> tuple[torch.Tensor, dict[int, str]]:
    """Returns the pixels of files in memory, and the reasons of those that can't be decoded."""
    chunks, broken = [np.empty((0, how.colours.channels, how.side, how.side), np.uint8)], {}
    for chunk_NCHW, reasons in _decode_chunks(files, how, [None] * len(files)):
        chunks.append(chunk_NCHW)
        broken.update(reasons)
    return torch.from_numpy(np.concatenate(chunks)), broken


def _decode_chunks(
    files: Listing, how: Decoding, known: Sequence[UInt8Array | None]
) -> Iterator[tuple[UInt8Array, dict[int, str]]]:
    """Yields the images of files in order, uint8, up to _DECODED_AT_ONCE x C x H x W.

    Rows that can't be decoded are black, and named with the reason.
    """

    def pixels(row: int) -> UInt8Array | str:
        one = known[row]
        if one is not None:
            return one
        try:
            return decode(files[row].path, how)
        except DataError as error:
            return str(error)

    with without_pillows_limit(), ThreadPoolExecutor(_num_threads()) as pool:
        for start in range(0, len(files), _DECODED_AT_ONCE):
            rows = range(start, min(start + _DECODED_AT_ONCE, len(files)))
            chunk_NCHW = np.zeros((len(rows), how.colours.channels, how.side, how.side), np.uint8)
            reasons = {}
            for row, made in zip(rows, pool.map(pixels, rows), strict=True):
                if isinstance(made, str):
                    reasons[row] = made
                else:
                    chunk_NCHW[row - start] = made
            yield chunk_NCHW, reasons


def _num_threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _describe(
    train_NCHW: torch.Tensor,
    test_NCHW: torch.Tensor,
    broken_train: Mapping[int, str],
    broken_test: Mapping[int, str],
) -> Manifest:
    """Returns the description of the pixels of the images that can be read."""
    if broken_train:
        train_NCHW = train_NCHW[kept_rows(len(train_NCHW), broken_train)]
    if broken_test:
        test_NCHW = test_NCHW[kept_rows(len(test_NCHW), broken_test)]
    channels = train_NCHW.shape[1]
    mean, std = (0.0,) * channels, (1.0,) * channels
    if len(train_NCHW):
        mean, std = pixel_statistics(train_NCHW)
    return Manifest(
        mean, std, fingerprint(train_NCHW), fingerprint(test_NCHW), broken_train, broken_test
    )


def _read_manifest(entry: Path) -> Manifest:
    plain = json.loads((entry / MANIFEST).read_text())
    return Manifest(
        mean=tuple(plain["mean"]),
        std=tuple(plain["std"]),
        fingerprint=plain["fingerprint"],
        test_fingerprint=plain["test_fingerprint"],
        broken_train={int(row): reason for row, reason in plain["broken_train"].items()},
        broken_test={int(row): reason for row, reason in plain["broken_test"].items()},
    )


def _mapped(path: Path) -> torch.Tensor:
    """Returns an .npy file as a tensor that reads from disk what is looked at."""
    if np.load(path, mmap_mode="r", allow_pickle=False).size == 0:  # nothing to map
        return torch.from_numpy(np.load(path, allow_pickle=False))
    # Copy-on-write, since torch warns about read-only memory; nothing writes to it.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def _share_like(folder: Path, path: Path) -> None:
    """Lets those read a file or folder who may read another folder, whatever the umask says."""
    others = folder.stat().st_mode & (0o055 if path.is_dir() else 0o044)
    path.chmod(path.stat().st_mode & 0o700 | others)


def _num_bytes(num_images: int, how: Decoding) -> int:
    """Returns the size of decoded images."""
    return num_images * how.colours.channels * how.side * how.side


def _check_room(folder: Path, num_images: int, how: Decoding) -> None:
    """Raises OSError, before anything is decoded, if the pixels don't fit on a folder's disk."""
    needed, free = _num_bytes(num_images, how), shutil.disk_usage(folder).free
    if needed > free:
        raise OSError(
            errno.ENOSPC, f"{_gib(needed)} of decoded pixels do not fit, {_gib(free)} are free"
        )


def _check_memory(entry: Path, num_images: int, how: Decoding) -> None:
    """Raises DataError if there is no cache and decoded images are too many for memory."""
    needed = _num_bytes(num_images, how)
    if needed > MOST_BYTES_WITHOUT_CACHE:
        raise DataError(
            f"{num_images} images of {how.side} x {how.side} are {_gib(needed)} of pixels, and "
            f"{entry.parent} can't keep them (see the warning above); without a cache at most "
            f"{_gib(MOST_BYTES_WITHOUT_CACHE)} are held in memory. Set data.options.cache_dir to a "
            "folder with room, or data.options.image_size to less"
        )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
