"""Tar shards of the webdataset library, which is an extra: pip install 'dogo-fed[webdataset]'."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from dogo_fed.data.files.listing import is_hidden, suffixes
from dogo_fed.data.files.parts import TEST_NAMES, not_used_note, words_of
from dogo_fed.data.files.pixel_options import PixelOptions, with_pixel_options
from dogo_fed.data.files.records import ImageRecord, dataset_from_records, side_of_records
from dogo_fed.data.source import NO_LABEL, DataSet
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.text import one_line, some_of

SAMPLES, NONE = "samples", "none"
_LABELS = ("cls", "label", "class")
_JSON_LABELS = ("label", "cls", "class")


@with_pixel_options
def webdataset(
    root: str,
    image_size: int = 64,
    labels: str = SAMPLES,
    stored_size: int | None = None,
    *,
    pixels: PixelOptions,
) -> DataSet:
    """Returns the images of a folder of .tar shards, in the order of the shards' names.

    Shards that have the word test in their names, or else val, valid or validation, are test images.
    Words end at everything that is no letter. A sample is an image file and, beside it under the same
    name, `.cls` with a number or `.json` with a number under "label". Nothing else of a sample is
    decoded: the library's own decoder would run pickles.

    A sample's name ends at its first dot. So `cat.0.jpg` and `cat.1.jpg` are one sample with two
    images, and both are taken. Beside `1.jpg`, the image `1.mask.png` is not.

    Args:
        root: the folder, or one shard.
        image_size: side of the views in pixels.
        labels: `samples`, or `none` to train without classes.
        stored_size: side of the stored images, from which crops are taken. None stores what the
            images have, up to twice image_size.
        pixels: options of their own, see `PixelOptions`.

    Raises:
        ConfigError: the library is missing, or an option is impossible.
        DataError: there are no shards, a shard can't be read, or images can't be.
    """
    if labels not in (SAMPLES, NONE):
        raise ConfigError(
            f"data.options.labels of webdataset must be {SAMPLES} or {NONE}, not {labels!r}"
        )
    place = Path(root)
    shards = [place] if place.is_file() else sorted(place.glob("*.tar"))
    if not shards:
        raise DataError(_no_shards(place))
    trains, tests, others = (shards, [], []) if place.is_file() else _parts(shards)
    if not trains:
        raise DataError(
            f"all {len(shards)} shards in {root} are test shards by their names; rename those to train "
            f"with, or train with one alone by data.options.root={shards[0]}"
        )
    left_out: Counter[str] = Counter()
    has_labels = labels == SAMPLES
    side, enlarged, training = side_of_records(
        stored_size, image_size, _records(trains, left_out, has_labels)
    )
    return dataset_from_records(
        place.stem,
        training,
        _records(tests, left_out, has_labels),
        image_size,
        how=pixels.decoding(side),
        notes=(*not_used_note([shard.name for shard in others], root), *enlarged),
        left_out=left_out,
    )


def _no_shards(place: Path) -> str:
    """Returns what is where shards were looked for."""
    if not place.is_dir():
        return f"there is no folder {place}; set data.options.root to a folder of .tar shards"
    below = Counter(str(shard.parent) for shard in place.rglob("*.tar"))
    if below:
        found = some_of([f"{folder} ({number})" for folder, number in sorted(below.items())], 4)
        return (
            f"there are no .tar shards in {place} itself, but in folders of it: {found}; set "
            "data.options.root to one of them"
        )
    endings = Counter(
        one_line(path.suffix or path.name, 40) for path in place.iterdir() if path.is_file()
    )
    found = some_of([f"{ending} ({number})" for ending, number in sorted(endings.items())], 6)
    return f"there are no .tar shards in {place} (found there: {found or 'no files'}); set data.options.root"


def _parts(shards: list[Path]) -> tuple[list[Path], list[Path], list[Path]]:
    """Returns the shards to train with, those to test with, and those of a second test part."""
    words = {shard: words_of(shard.stem) for shard in shards}
    there = {word for shard in shards for word in words[shard]}
    chosen = next((name for name in TEST_NAMES if name in there), None)
    trains = [shard for shard in shards if words[shard].isdisjoint(TEST_NAMES)]
    tests = [shard for shard in shards if chosen in words[shard]]
    return trains, tests, [shard for shard in shards if shard not in trains and shard not in tests]


def _records(shards: list[Path], left_out: Counter[str], has_labels: bool) -> Iterator[ImageRecord]:
    """Yields the images of shards; counts what is no part of a sample with an image."""
    try:
        from webdataset import tariterators
    except ImportError as error:
        raise ConfigError(
            "data=webdataset needs the library: pip install 'dogo-fed[webdataset]'"
        ) from error

    def key_and_ending(name: str) -> tuple[str | None, str | None]:
        if any(map(is_hidden, PurePosixPath(name).parts)):
            left_out["hidden"] += 1
            return None, None
        key, ending = tariterators.base_plus_ext(name)
        if key is None:
            left_out["files without an ending"] += 1
        return key, ending

    for shard in shards:
        try:
            with shard.open("rb") as stream:
                opened = [{"url": str(shard), "stream": stream}]
                files = tariterators.tar_file_expander(opened)
                for sample in tariterators.group_by_keys(files, keys=key_and_ending):
                    yield from _images(shard, sample, left_out, has_labels)
        except (OSError, ValueError, EOFError, tarfile.TarError) as error:
            raise DataError(f"the shard {shard} can't be read: {error}") from error


def _images(
    shard: Path, sample: Mapping[str, object], left_out: Counter[str], has_labels: bool
) -> Iterator[ImageRecord]:
    """Yields the image of a sample, or all if none has the sample's own name."""
    found = {
        ending: content
        for ending, content in sample.items()
        if isinstance(content, bytes) and f".{ending.rpartition('.')[2]}" in suffixes()
    }
    own = [ending for ending in found if "." not in ending][:1]
    if not found:
        left_out["samples without an image"] += 1
    if own and len(found) > 1:
        left_out["images beside the one of their sample"] += len(found) - 1
    for ending in own or found:
        stem = ending.rpartition(".")[0]
        name = f"{shard}, {sample.get('__key__')}" + (f".{stem}" if stem else "")
        label = _label(name, sample, stem) if has_labels else NO_LABEL
        yield ImageRecord(name, found[ending], label)


def _label(name: str, sample: Mapping[str, object], stem: str) -> int:
    """Returns the class of an image, or of its whole sample; -1 if it has none."""
    try:
        for before in (f"{stem}.", "") if stem else ("",):
            for ending in _LABELS:
                content = sample.get(before + ending)
                if isinstance(content, bytes):
                    return int(content.decode().strip())
            content = sample.get(f"{before}json")
            if isinstance(content, bytes):
                described = json.loads(content)
                values = described if isinstance(described, dict) else {}
                label = next((int(values[key]) for key in _JSON_LABELS if key in values), None)
                if label is not None:
                    return label
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{name}: the class is no whole number ({error}); data.options.labels=none trains without "
            "classes"
        ) from error
    return NO_LABEL
