"""Tar shards of the webdataset library, which is an extra: pip install 'dogo-fed[webdataset]'."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from dogo_fed.data.colours import Colours
from dogo_fed.data.files.decode import Decoding
from dogo_fed.data.files.listing import suffixes
from dogo_fed.data.files.records import ImageRecord, dataset_from_records
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError, DataError

TEST_WORDS = ("test", "val", "valid", "validation")
_LABELS = ("cls", "label", "class")
_JSON_LABELS = ("label", "cls", "class")


def webdataset(
    root: str,
    image_size: int = 64,
    channels: int = 3,
    stored_size: int | None = None,
    skip_broken: bool = False,
) -> DataSet:
    """Returns the images of a folder of .tar shards, in the order of the shards' names.

    Shards whose name has test, val, valid or validation in it are test images, all others training
    images. A sample is an image file and, beside it under the same name, `.cls` with a number or
    `.json` with a number under "label". Nothing else of a sample is decoded: the library's own decoder
    would run pickles.

    Args:
        root: the folder, or one shard.
        image_size: side of the views in pixels.
        channels: 3, or 1 to keep grey images grey.
        stored_size: side of the stored images; None is that of the views.
        skip_broken: whether images that can't be read are left out.

    Raises:
        ConfigError: the library is missing, or an option is impossible.
        DataError: there are no shards, a shard can't be read, or images can't be.
    """
    place = Path(root)
    shards = [place] if place.is_file() else sorted(place.glob("*.tar"))
    if not shards:
        raise DataError(f"there are no .tar shards in {root}; set data.options.root")
    tests = [one for one in shards if any(word in one.stem.lower() for word in TEST_WORDS)]
    trains = [one for one in shards if one not in tests]
    if not trains:
        raise DataError(f"all {len(shards)} shards in {root} are test shards by their names")
    return dataset_from_records(
        place.stem,
        _records(trains),
        _records(tests),
        image_size,
        how=Decoding(side=max(stored_size or 0, image_size), colours=Colours(channels=channels)),
        skip_broken=skip_broken,
    )


def _records(shards: list[Path]) -> Iterator[ImageRecord]:
    try:
        from webdataset import tariterators
    except ImportError as error:
        raise ConfigError(
            "data=webdataset needs the library: pip install 'dogo-fed[webdataset]'"
        ) from error
    for shard in shards:
        try:
            with shard.open("rb") as stream:
                opened = [{"url": str(shard), "stream": stream}]
                files = tariterators.tar_file_expander(opened)
                for sample in tariterators.group_by_keys(files):
                    yield from _record(shard, sample)
        except (OSError, ValueError, EOFError, tarfile.TarError) as error:
            raise DataError(f"the shard {shard} can't be read: {error}") from error


def _record(shard: Path, sample: Mapping[str, object]) -> Iterator[ImageRecord]:
    """Yields the image of a sample; nothing if it has none."""
    name = f"{shard}, {sample.get('__key__')}"
    for ending, content in sample.items():
        if f".{ending.lower().rpartition('.')[2]}" in suffixes() and isinstance(content, bytes):
            yield ImageRecord(name, content, _label(name, sample))
            return


def _label(name: str, sample: Mapping[str, object]) -> int:
    """Returns the class of a sample; -1 if it has none."""
    try:
        for ending in _LABELS:
            content = sample.get(ending)
            if isinstance(content, bytes):
                return int(content.decode().strip())
        content = sample.get("json")
        if isinstance(content, bytes):
            described = json.loads(content)
            values = described if isinstance(described, dict) else {}
            return next((int(values[key]) for key in _JSON_LABELS if key in values), -1)
    except (ValueError, TypeError) as error:
        raise DataError(f"{name}: the class is no whole number ({error})") from error
    return -1
