"""Decoded pixels on disk, so that files are decoded once and every process maps the same bytes.

An entry is named after the files' names, sizes and times, and after how they are decoded. A changed
folder therefore gets a new entry, which takes over the pixels of all files that stayed as they were.
Entries can be deleted at any time. Digests of single images are kept beside what else is known of
them (`digests_file.py`). Where there is no room for an entry, images are decoded on demand
(`on_demand.py`), and only what is known of them is kept here.
"""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dogo_fed.atomic import atomic_path, partial_folder, remove_partials, write_atomic
from dogo_fed.data.files.decode import (
    Decoded,
    Decoding,
    decode,
    num_threads,
    without_pillows_limit,
)
from dogo_fed.data.files.listing import (
    CACHE_FOLDER,
    Broken,
    ImageFile,
    Listing,
    Splits,
    labels_of,
)
from dogo_fed.data.files.on_demand import FileImages
from dogo_fed.data.map_style import (
    PixelDigest,
    PixelStatistics,
    UInt8Array,
    fingerprint,
    pixel_statistics,
)
from dogo_fed.data.source import ImageSource, TensorImages
from dogo_fed.errors import DataError

logger = logging.getLogger(__name__)

CACHE_VERSION = 7
"""Raised whenever the meaning of the cached files, or what is decoded from a file, changes."""
FACTS_FILE = "manifest.json"
PARTS = ("train", "test")
NO_PIXELS = "off"
"""In place of the cache's folder: files are decoded whenever their images are asked for."""
NO_PIXELS_SETTING = f"data.options.cache_dir={NO_PIXELS}"
_DECODED_AT_ONCE = 2048
"""Images between two writes to the cache."""
MOST_BYTES_WITHOUT_CACHE = 4 * 2**30
"""More pixels than these are not decoded into the memory of each process, but on demand."""

_UNREADABLE = (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError)
"""What reading an entry may raise that a power cut has left, or another version."""

_Keys: TypeAlias = npt.NDArray[np.void]
_KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class PixelFacts:
    """What is computed from the pixels once and kept next to them; of the images that can be read.

    Attributes:
        mean, std, fingerprint, test_fingerprint: see `DataSet`.
        broken_train, broken_test: row to the reason why the image can't be read.
        several_train, several_test: rows of the images that have more than one frame.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    test_fingerprint: str
    broken_train: Mapping[int, str]
    broken_test: Mapping[int, str]
    several_train: Sequence[int]
    several_test: Sequence[int]

    @property
    def num_several(self) -> int:
        """How many images have more than one frame."""
        return len(self.several_train) + len(self.several_test)


@dataclass(slots=True)
class _Told:
    """What decoding tells of the files of a part beside their pixels; see `PixelFacts`."""

    broken: dict[int, str] = field(default_factory=dict)
    several: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FilePixels:
    """The images of both parts, one for every file, black if it can't be read.

    Attributes:
        train, test: the images.
        facts: their description.
        train_digests, test_digests: files beside the facts for the digests of the images that can be
            read.
        notes: what a user should know about where the pixels are, a sentence each.
    """

    train: ImageSource
    test: ImageSource
    facts: PixelFacts
    train_digests: Path
    test_digests: Path
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a cache entry has: the pixels of both parts and their description."""

    train_NCHW: torch.Tensor
    test_NCHW: torch.Tensor
    facts: PixelFacts


def cached_pixels(splits: Splits, how: Decoding, cache_dir: str | None) -> FilePixels:
    """Returns the pixels of files, from the cache if it has them.

    Where the cache can't keep them, they are decoded into the memory of this process. If they are too
    many for that, each is decoded whenever it is asked for, and what is known of them is kept.

    Args:
        splits: the files.
        how: how they are decoded.
        cache_dir: where pixels are kept; None is `.dogo_fed_cache` in the splits' root, and "off" keeps
            none.
    """
    is_usual = cache_dir in (None, NO_PIXELS)
    cache = splits.root / CACHE_FOLDER if is_usual else Path(str(cache_dir))
    entry = cache / _entry_name(splits, how)
    if cache_dir == NO_PIXELS:
        return _on_demand(entry, splits, how, f"as {NO_PIXELS_SETTING} asks")
    found = _opened(entry)
    if found is None or _has_healed(found.facts, splits, how):
        _fill(entry, splits, how)
        found = _opened(entry)
    facts_file = entry / FACTS_FILE
    if found is None:
        needed = _num_bytes(len(splits.train) + len(splits.test), how)
        if needed > MOST_BYTES_WITHOUT_CACHE:
            why = (
                f"since {cache} has no room for {_gib(needed)} of pixels; data.options.cache_dir=<a folder "
                "with room> decodes them once, and less of data.options.stored_size needs less room"
            )
            return _on_demand(entry, splits, how, why)
        train_NCHW, told_train = _decode_all(splits.train, how)
        test_NCHW, told_test = _decode_all(splits.test, how)
        facts = _describe(train_NCHW, test_NCHW, told_train, told_test)
        found, facts_file = _Entry(train_NCHW, test_NCHW, facts), _facts_beside(entry)
    train_digests, test_digests = _digest_files(facts_file)
    return FilePixels(
        train=TensorImages(found.train_NCHW, labels_of(splits.train)),
        test=TensorImages(found.test_NCHW, labels_of(splits.test)),
        facts=found.facts,
        train_digests=train_digests,
        test_digests=test_digests,
    )


def _on_demand(entry: Path, splits: Splits, how: Decoding, why: str) -> FilePixels:
    """Returns images that are decoded whenever they are asked for; their description is kept."""
    note = f"{len(splits.train) + len(splits.test)} images are decoded anew for every pass, {why}"
    facts_file = _facts_beside(entry)
    train_digests, test_digests = _digest_files(facts_file)
    return FilePixels(
        train=FileImages(splits.train, how),
        test=FileImages(splits.test, how),
        facts=_kept_facts(facts_file, splits, how),
        train_digests=train_digests,
        test_digests=test_digests,
        notes=(note,),
    )


def _facts_beside(entry: Path) -> Path:
    """Returns where the facts of images are whose pixels are not kept."""
    return entry.with_name(f"{entry.name}.{FACTS_FILE}")


def _digest_files(facts_file: Path) -> list[Path]:
    """Returns where the digests of images are kept, of both parts, beside what else is known of them."""
    before = facts_file.name.removesuffix(FACTS_FILE)
    return [facts_file.with_name(f"{before}{part}.digests") for part in PARTS]


def _kept_facts(path: Path, splits: Splits, how: Decoding) -> PixelFacts:
    """Returns the description of images that are decoded on demand: from a file, which is made if need be."""
    try:
        facts = _read_facts(path)
        if not _has_healed(facts, splits, how):
            return facts
    except FileNotFoundError:
        pass
    except _UNREADABLE as error:
        logger.warning("%s can't be read (%r)", path, error)
    facts = _described_by_chunks(splits, how)
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            share_like(splits.root, path.parent)
        write_atomic(path, json.dumps(dataclasses.asdict(facts), indent=2))
        share_like(splits.root, path)
    except OSError as error:
        logger.warning("all images are looked through at every start: %s", error)
    return facts


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
    head = f"{_way(how)} {how.max_megapixels} {len(splits.train)}"
    hasher = hashlib.blake2b(head.encode(), digest_size=12)
    for file in splits.train + splits.test:
        hasher.update(_file_key(splits.root, file))
    return hasher.hexdigest()


def _way(how: Decoding) -> str:
    """Returns what entries have in common that may take over pixels of each other."""
    return f"{CACHE_VERSION} {how.key}"


def _file_key(root: Path, file: ImageFile) -> bytes:
    """Returns 16 bytes that change when the file, its place or its time does."""
    # A name on disk need not be UTF-8; Python then has it with surrogates.
    place = file.path.relative_to(root).as_posix().encode("utf-8", "surrogateescape")
    content = place + f"\0{file.num_bytes} {file.modified_ns}".encode()
    return hashlib.blake2b(content, digest_size=_KEY_BYTES).digest()


def _keys(root: Path, files: Listing) -> _Keys:
    """Returns the keys of files as an array, a row each."""
    joined = b"".join(_file_key(root, file) for file in files)
    return np.frombuffer(joined, dtype=f"V{_KEY_BYTES}")


def _opened(entry: Path) -> _Entry | None:
    """Returns what a cache entry has; None if it is not there, or can't be read.

    An entry appears whole or not at all. One that can't be read all the same is made anew.
    """
    try:
        facts = _read_facts(entry / FACTS_FILE)
        train_NCHW, test_NCHW = (_mapped(entry / f"{part}.npy") for part in PARTS)
    except FileNotFoundError:
        return None
    except _UNREADABLE as error:
        logger.warning("the image cache %s can't be read (%r)", entry, error)
        return None
    return _Entry(train_NCHW, test_NCHW, facts)


def _has_healed(facts: PixelFacts, splits: Splits, how: Decoding) -> bool:
    """Tells whether an image can be read now that could not be when the entry was made.

    The file may be as it was then: it was not readable for this user, or the disk was away.
    """
    there = ((splits.train, facts.broken_train), (splits.test, facts.broken_test))
    broken = [files[row] for files, rows in there for row in rows]
    told = _Told()
    for _ in _decode_chunks(broken, how, [None] * len(broken), told):
        pass
    return len(told.broken) < len(broken)


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
            share_like(splits.root, entry.parent)
        remove_partials(entry.parent)  # of a process that was killed, gigabytes maybe
        unfinished = partial_folder(entry)
    except OSError as error:
        logger.warning(
            "no image cache in %s (%s); images are decoded every time", entry.parent, error
        )
        return
    try:
        _check_room(unfinished, len(splits.train) + len(splits.test), how)
        _write_entry(unfinished, splits, how)
        for path in (*unfinished.iterdir(), unfinished):
            share_like(splits.root, path)
        if entry.exists():  # healed, or not readable; who maps the old pixels keeps them
            entry.rename(unfinished / "earlier")
        unfinished.rename(entry)
        shutil.rmtree(entry / "earlier", ignore_errors=True)
    except OSError as error:
        if _opened(entry) is None:  # otherwise another process was faster, which is as good
            logger.warning("no image cache in %s (%s)", entry.parent, error)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write_entry(folder: Path, splits: Splits, how: Decoding) -> None:
    """Writes pixels, keys and facts of an entry, each onto the disk before the next.

    So an entry that has its name after a power cut has its content too.
    """
    earlier = _EarlierPixels(folder.parent, how)
    told: list[_Told] = []
    for part, files in zip(PARTS, (splits.train, splits.test), strict=True):
        keys = _keys(splits.root, files)
        with atomic_path(folder / f"{part}.npy") as path:
            told.append(_write_pixels(path, files, keys, how, earlier))
        with atomic_path(folder / f"{part}.keys.npy") as path:
            np.save(path, keys, allow_pickle=False)
    write_atomic(folder / "how", _way(how))
    train_NCHW, test_NCHW = (_mapped(folder / f"{part}.npy") for part in PARTS)
    facts = _describe(train_NCHW, test_NCHW, *told)
    write_atomic(folder / FACTS_FILE, json.dumps(dataclasses.asdict(facts), indent=2))


class _EarlierPixels:
    """The pixels that other entries of a cache have, by the key of their file."""

    def __init__(self, cache: Path, how: Decoding) -> None:
        self._rows: dict[bytes, tuple[UInt8Array, int, bool]] = {}
        for entry in sorted(cache.iterdir()):
            try:
                self._take(entry, how)
            except _UNREADABLE:  # being deleted, for example
                continue

    def get(self, key: bytes) -> Decoded | None:
        """Returns the image with this key; None if no entry has it."""
        found = self._rows.get(key)
        if found is None:
            return None
        pixels, row, has_more_frames = found
        return Decoded(pixels[row], has_more_frames)

    def _take(self, entry: Path, how: Decoding) -> None:
        if (entry / "how").read_text() != _way(how):
            return
        facts = _read_facts(entry / FACTS_FILE)
        told = (
            (facts.broken_train, set(facts.several_train)),
            (facts.broken_test, set(facts.several_test)),
        )
        for part, (broken, several) in zip(PARTS, told, strict=True):
            keys = np.load(entry / f"{part}.keys.npy", allow_pickle=False)
            pixels = np.load(entry / f"{part}.npy", mmap_mode="r", allow_pickle=False)
            for row, key in enumerate(keys):
                if row not in broken:
                    self._rows[key.tobytes()] = (pixels, row, row in several)


def _write_pixels(
    path: Path, files: Listing, keys: _Keys, how: Decoding, earlier: _EarlierPixels
) -> _Told:
    """Writes an .npy file, image by image; returns what decoding has told beside the pixels."""
    shape = (len(files), how.colours.channels, how.side, how.side)
    told = _Told()
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
        )
        known = [earlier.get(key.tobytes()) for key in keys]
        for chunk_NCHW in _decode_chunks(files, how, known, told):
            stream.write(chunk_NCHW.data)
    return told


def _decode_all(files: Listing, how: Decoding) -> tuple[torch.Tensor, _Told]:
    """Returns the pixels of files in memory, and what decoding has told beside them."""
    told = _Told()
    none_yet = np.empty((0, how.colours.channels, how.side, how.side), np.uint8)
    chunks: list[UInt8Array] = [none_yet, *_decode_chunks(files, how, [None] * len(files), told)]
    return torch.from_numpy(np.concatenate(chunks)), told


def _decode_chunks(
    files: Listing, how: Decoding, known: Sequence[Decoded | None], told: _Told
) -> Iterator[UInt8Array]:
    """Yields the images of files in order, uint8, up to _DECODED_AT_ONCE x C x H x W.

    Rows that can't be decoded are black.

    Args:
        files: the images.
        how: how they are decoded.
        known: those that were decoded before; None stands for the others.
        told: takes what is to say about the rows.
    """

    def decoded(row: int) -> Decoded | str:
        image = known[row]
        if image is not None:
            return image
        try:
            return decode(files[row].path, how)
        except DataError as error:
            return str(error)

    with without_pillows_limit(), ThreadPoolExecutor(num_threads()) as pool:
        for start in range(0, len(files), _DECODED_AT_ONCE):
            rows = range(start, min(start + _DECODED_AT_ONCE, len(files)))
            chunk_NCHW = np.zeros((len(rows), how.colours.channels, how.side, how.side), np.uint8)
            for row, made in zip(rows, pool.map(decoded, rows), strict=True):
                if isinstance(made, str):
                    told.broken[row] = made
                    continue
                chunk_NCHW[row - start] = made.pixels
                if made.has_more_frames:
                    told.several.append(row)
            yield chunk_NCHW


def _describe(
    train_NCHW: torch.Tensor,
    test_NCHW: torch.Tensor,
    told_train: _Told,
    told_test: _Told,
) -> PixelFacts:
    """Returns the description of the pixels of the images that can be read."""
    if told_train.broken:
        train_NCHW = train_NCHW[kept_rows(len(train_NCHW), told_train.broken)]
    if told_test.broken:
        test_NCHW = test_NCHW[kept_rows(len(test_NCHW), told_test.broken)]
    mean, std = pixel_statistics(train_NCHW)
    return PixelFacts(
        mean=mean,
        std=std,
        fingerprint=fingerprint(train_NCHW),
        test_fingerprint=fingerprint(test_NCHW),
        broken_train=told_train.broken,
        broken_test=told_test.broken,
        several_train=told_train.several,
        several_test=told_test.several,
    )


def _described_by_chunks(splits: Splits, how: Decoding) -> PixelFacts:
    """Returns what `_describe` does, of images of which only some are in memory at a time."""
    told_train, statistics, digest = _looked_through(splits.train, how)
    told_test, _, test_digest = _looked_through(splits.test, how)
    mean, std = statistics.mean_and_std()
    return PixelFacts(
        mean=mean,
        std=std,
        fingerprint=digest,
        test_fingerprint=test_digest,
        broken_train=told_train.broken,
        broken_test=told_test.broken,
        several_train=told_train.several,
        several_test=told_test.several,
    )


def _looked_through(files: Listing, how: Decoding) -> tuple[_Told, PixelStatistics, str]:
    """Returns what there is to say of files, and statistics and digest of those that can be read."""
    told, channels = _Told(), how.colours.channels
    statistics = PixelStatistics(channels)
    digest = PixelDigest((len(files), channels, how.side, how.side))
    for chunk_NCHW in _decode_chunks(files, how, [None] * len(files), told):
        images_NCHW = torch.from_numpy(chunk_NCHW)
        statistics.add(images_NCHW)
        digest.add(images_NCHW)
    if not told.broken:
        return told, statistics, digest.hexdigest()
    # The digest begins with the number of images, so the others are looked through again.
    kept = kept_rows(len(files), told.broken).tolist()
    again, statistics, found = _looked_through([files[row] for row in kept], how)
    told.broken |= {kept[row]: reason for row, reason in again.broken.items()}
    return told, statistics, found


def _read_facts(path: Path) -> PixelFacts:
    plain = json.loads(path.read_text())
    return PixelFacts(
        mean=tuple(plain["mean"]),
        std=tuple(plain["std"]),
        fingerprint=plain["fingerprint"],
        test_fingerprint=plain["test_fingerprint"],
        broken_train={int(row): reason for row, reason in plain["broken_train"].items()},
        broken_test={int(row): reason for row, reason in plain["broken_test"].items()},
        several_train=plain["several_train"],
        several_test=plain["several_test"],
    )


def _mapped(path: Path) -> torch.Tensor:
    """Returns an .npy file as a tensor that reads from disk what is looked at."""
    if np.load(path, mmap_mode="r", allow_pickle=False).size == 0:  # nothing to map
        return torch.from_numpy(np.load(path, allow_pickle=False))
    # Copy-on-write, since torch warns about read-only memory; nothing writes to it.
    return torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))


def share_like(folder: Path, path: Path) -> None:
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


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
