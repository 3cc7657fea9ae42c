"""Data sets saved to disk by Hugging Face's `datasets`, an extra: pip install 'dogo-fed[datasets]'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dogo_fed.data.colours import Colours
from dogo_fed.data.files.decode import Decoding
from dogo_fed.data.files.records import ImageRecord, dataset_from_records
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError, DataError

TESTS = ("test", "validation", "val", "valid")


def hf_dataset(
    path: str,
    image_size: int = 64,
    channels: int = 3,
    stored_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    skip_broken: bool = False,
) -> DataSet:
    """Returns what `save_to_disk` has written: the split `train`, and `test` or `validation`.

    Args:
        path: the folder.
        image_size: side of the views in pixels.
        channels: 3, or 1 to keep grey images grey.
        stored_size: side of the stored images; None is that of the views.
        image_column: None takes the first column of images.
        label_column: None takes the first column of class labels; images without one have no class.
        skip_broken: whether images that can't be read are left out.

    Raises:
        ConfigError: the library is missing, or an option is impossible.
        DataError: the folder is no such data set, or has no images.
    """
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            "data=hf_dataset needs the library: pip install 'dogo-fed[datasets]'"
        ) from error
    if not Path(path).is_dir():
        raise DataError(f"there is no folder {path}; set data.options.path")
    try:
        loaded: Any = datasets.load_from_disk(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} is not what `save_to_disk` of Hugging Face's datasets writes ({error})"
        ) from error
    splits: Mapping[str, Any] = loaded if isinstance(loaded, Mapping) else {"train": loaded}
    if "train" not in splits:
        raise DataError(f"{path} has no split train; it has {', '.join(splits)}")
    features = splits["train"].features
    image = _column(path, features, datasets.Image, image_column, "image")
    if image is None:
        raise DataError(f"{path} has no column of images; its columns are {', '.join(features)}")
    label = _column(path, features, datasets.ClassLabel, label_column, "label")
    test = next((name for name in TESTS if name in splits), None)
    names = list(getattr(features[label], "names", [])) if label is not None else []
    return dataset_from_records(
        Path(path).name,
        _records(datasets, splits["train"], image, label),
        _records(datasets, splits[test], image, label) if test is not None else [],
        image_size,
        how=Decoding(side=max(stored_size or 0, image_size), colours=Colours(channels=channels)),
        class_names=names,
        skip_broken=skip_broken,
    )


def _column(
    path: str, features: Mapping[str, object], kind: type, named: str | None, what: str
) -> str | None:
    """Returns the name of a column, the one that is named or the first of its kind."""
    if named is not None:
        if named not in features:
            raise DataError(
                f"{path} has no column {named!r} (data.options.{what}_column); its columns are "
                f"{', '.join(features)}"
            )
        return named
    return next((name for name, one in features.items() if isinstance(one, kind)), None)


def _records(datasets: Any, split: Any, image: str, label: str | None) -> Iterator[ImageRecord]:
    undecoded = split.cast_column(image, datasets.Image(decode=False))
    for index, row in enumerate(undecoded):
        cell, name = row[image], f"{image} {index}"
        content = cell.get("bytes")
        if content is None:
            content = Path(cell["path"]).read_bytes()
        value = None if label is None else row[label]
        yield ImageRecord(name, content, -1 if value is None else int(value))
