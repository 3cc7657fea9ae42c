"""Data sets saved to disk by Hugging Face's `datasets`, an extra: pip install 'dogo-fed[datasets]'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dogo_fed.data.files.label_table import class_order
from dogo_fed.data.files.parts import TEST_NAMES, not_used_note
from dogo_fed.data.files.pixel_options import PixelOptions, with_pixel_options
from dogo_fed.data.files.records import ImageRecord, dataset_from_records, side_of_records
from dogo_fed.data.source import NO_LABEL, DataSet
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.text import one_line

LABEL_NAMES = ("label", "labels", "class", "target")
"""What a column of classes is called that does not say of itself that it is one."""
_TEXTS = ("string", "large_string", "string_view")


@with_pixel_options
def hf_dataset(
    path: str,
    image_size: int = 64,
    stored_size: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    *,
    pixels: PixelOptions,
) -> DataSet:
    """Returns what `save_to_disk` has written: the split `train`, and `test` or `validation`.

    Args:
        path: the folder.
        image_size: side of the views in pixels.
        stored_size: side of the stored images, from which crops are taken. None stores what the
            images have, up to twice image_size.
        image_column: None takes the first column of images.
        label_column: a column of class labels, whole numbers or texts. None takes the first of class
            labels, or else a column of whole numbers that is called label, labels, class or target.
            Images without one have no class.
        pixels: options of their own, see `PixelOptions`.

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
        raise DataError(
            f"{path} has no split train; it has {', '.join(splits)}. Save one of them alone, and name "
            f"its folder: datasets.load_from_disk({path!r})[{next(iter(splits), 'train')!r}]"
            '.save_to_disk("<folder>")'
        )
    features = splits["train"].features
    image = _column(path, features, datasets.Image, image_column, "image")
    if image is None:
        raise DataError(f"{path} has no column of images; its columns are {', '.join(features)}")
    test = next((name for name in TEST_NAMES if name in splits), None)
    parts = {name: splits[name] for name in ("train", test) if name is not None}
    label = _column(path, features, datasets.ClassLabel, label_column, "label")
    notes = [*not_used_note([name for name in splits if name not in parts], path)]
    if label is None:
        label = _unmarked_label(features, notes)
    names = () if label is None else _class_names(path, list(parts.values()), label)
    records = {
        name: _records(datasets, name, split, image, label, names) for name, split in parts.items()
    }
    side, enlarged, training = side_of_records(stored_size, image_size, records["train"])
    return dataset_from_records(
        Path(path).name,
        training,
        records[test] if test is not None else [],
        image_size,
        how=pixels.decoding(side),
        class_names=names,
        notes=(*notes, *enlarged),
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
    return next((name for name, feature in features.items() if isinstance(feature, kind)), None)


def _unmarked_label(features: Mapping[str, object], notes: list[str]) -> str | None:
    """Returns a column of whole numbers that is called like one of classes, if there is one."""
    likely = [name for name in features if name.lower() in LABEL_NAMES]
    whole = next((name for name in likely if _is_whole(features[name])), None)
    if whole is None:
        notes += [
            f"the column {name} is not used; data.options.label_column={name} takes its texts as "
            "classes"
            if _is_text(features[name])
            else f"the column {name} is not used, since its values are neither whole numbers nor texts"
            for name in likely
        ]
    return whole


def _class_names(path: str, splits: Sequence[Any], label: str) -> tuple[str, ...]:
    """Returns the names of the classes of a column, in the order of the labels; none of numbers.

    Raises:
        DataError: its values are no classes.
    """
    kind = splits[0].features[label]
    names = getattr(kind, "names", None)
    if names is not None:
        return tuple(names)
    if _is_text(kind):
        there = [split for split in splits if label in split.features]
        texts = {text for split in there for text in split.unique(label) if text}
        return tuple(sorted(texts, key=class_order))
    if _is_whole(kind):
        return ()
    raise DataError(
        f"{path}: the column {label!r} has neither whole numbers nor texts ({one_line(kind, 80)}); set "
        "data.options.label_column to one of classes"
    )


def _is_whole(kind: object) -> bool:
    return _type_of_values(kind).startswith(("int", "uint", "bool"))


def _is_text(kind: object) -> bool:
    return _type_of_values(kind) in _TEXTS


def _type_of_values(kind: object) -> str:
    """Returns the type of a column's values; empty if each is an array."""
    return "" if hasattr(kind, "shape") else str(getattr(kind, "dtype", ""))


def _records(
    datasets: Any, part: str, split: Any, image: str, label: str | None, names: Sequence[str]
) -> Iterator[ImageRecord]:
    """Yields the images of a split; of a column of texts, `names` has the classes in order."""
    of_text = {text: number for number, text in enumerate(names)}
    if image not in split.features:
        raise DataError(
            f"split {part} has no column {image!r}; its columns are {', '.join(split.features)}. Give "
            "both parts the same columns"
        )
    try:
        undecoded = split.cast_column(image, datasets.Image(decode=False))
    except Exception as error:  # Arrow has many
        raise DataError(
            f"the column {image!r} has no images, but {one_line(split.features[image], 80)}; set "
            "data.options.image_column to one of images"
        ) from error
    for index, row in enumerate(undecoded):
        content = _content(row[image])
        name = f"{part}, {image} {index}"
        if isinstance(content, Path):
            name += f" ({content})"
        yield ImageRecord(name, content, _label(None if label is None else row.get(label), of_text))


def _content(cell: Mapping[str, Any] | None) -> bytes | Path | None:
    """Returns a cell's image: its bytes, or where it is; None if the cell is empty."""
    if cell is None:
        return None
    content: bytes | None = cell.get("bytes")
    place: str | None = cell.get("path")
    if content is None and place is not None:
        return Path(place)
    return content


def _label(value: Any, of_text: Mapping[str, int]) -> int:
    """Returns the class of a cell; -1 if it has none."""
    if value is None or value == "":
        return NO_LABEL
    return of_text[value] if isinstance(value, str) else int(value)
