"""Tiny-ImageNet and ImageNet as they are distributed, with labels in the order of the WordNet ids.

A wnid is the letter n and eight digits. Labels count the wnids in alphabetical order, whatever the
order in which a file or a folder lists them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from dogo_fed.data.files.file_lists import Row, label_below, list_images, read_rows
from dogo_fed.data.files.image_files import (
    check_image_size,
    dataset_from_files,
    left_out_note,
    side_to_store,
)
from dogo_fed.data.files.image_folder import list_classes
from dogo_fed.data.files.listing import Found, Splits, class_folders, images_in, used
from dogo_fed.data.files.pixel_options import PixelOptions, with_pixel_options
from dogo_fed.data.source import NO_LABEL, DataSet
from dogo_fed.errors import DataError

TINY_FOLDER = "tiny-imagenet-200"
VAL_ANNOTATIONS = (
    "val_annotations.txt",
    "val/val_annotations.txt",
    "val.txt",
    "LOC_val_solution.csv",
)
"""Where the classes of a flat val/ are looked for, below the root."""
CSV_HEADER = "ImageId"
DEFAULT_SUFFIX = ".JPEG"
"""Of images that a list names without one."""
_WNID = re.compile(r"n[0-9]{8}")


@with_pixel_options
def tiny_imagenet(
    root: str = "data",
    image_size: int = 64,
    cache_dir: str | None = None,
    *,
    pixels: PixelOptions,
) -> DataSet:
    """Returns Tiny-ImageNet: 100,000 and 10,000 images of 64 x 64, 200 classes.

    The test images are those of val/; the distribution's own test/ has no labels and is not read.

    Args:
        root: folder that has `tiny-imagenet-200`, or that folder itself.
        image_size: side in pixels.
        cache_dir: where decoded pixels are kept; None is `.dogo_fed_cache` in the data set's folder;
            see `pixel_cache.cached_pixels`.
        pixels: options of their own, see `PixelOptions`.

    Raises:
        ConfigError: an option is impossible.
        DataError: files are missing, do not fit together or can't be decoded; names which.
    """
    check_image_size("tiny_imagenet", image_size)
    inner = Path(root) / TINY_FOLDER
    folder = inner if inner.is_dir() else Path(root)
    wnids = _read_wnids(folder / "wnids.txt")
    _check_folder("tiny_imagenet", folder / "train", "train/<wnid>/images/*.JPEG")
    _check_folder("tiny_imagenet", folder / "val" / "images", "val/images/*.JPEG")
    strangers = sorted(set(class_folders(folder / "train")) - set(wnids))
    if strangers:
        raise DataError(
            f"{folder / 'train' / strangers[0]} is of no class: wnids.txt has no {strangers[0]!r}"
        )
    found = [_class(folder, f"{wnid}/images", label) for label, wnid in enumerate(wnids)]
    annotations = folder / "val" / "val_annotations.txt"
    test = _annotated(folder / "val" / "images", annotations, _label_of(wnids))
    splits = _splits(folder, wnids, found, test)
    how = pixels.decoding(image_size)
    return dataset_from_files("tiny_imagenet", splits, image_size, cache_dir, how=how)


@with_pixel_options
def imagenet(
    root: str,
    image_size: int = 224,
    val_annotations: str | None = None,
    stored_size: int | None = None,
    cache_dir: str | None = None,
    *,
    pixels: PixelOptions,
) -> DataSet:
    """Returns ImageNet, or a part of its classes, from its folders; the test images are val/'s.

    Args:
        root: folder with train/<wnid>/*.JPEG and with val/<wnid>/*.JPEG or val/*.JPEG.
        image_size: side of the views in pixels.
        val_annotations: text file with the classes of a flat val/, a line per image: its name, and
            its wnid or its label. None looks for VAL_ANNOTATIONS in root. The development kit's
            list of numbers is no such file: it counts the classes in another order.
        stored_size: side of the stored images, from which crops are taken. None stores what the
            images have, up to twice image_size.
        cache_dir: where decoded pixels are kept; None is `.dogo_fed_cache` in root; see
            `pixel_cache.cached_pixels`.
        pixels: options of their own, see `PixelOptions`.

    Raises:
        ConfigError: an option is impossible.
        DataError: files are missing, do not fit together or can't be decoded; names which.
    """
    check_image_size("imagenet", image_size)
    folder = Path(root)
    for part in ("train", "val"):
        _check_folder("imagenet", folder / part, f"{part}/<wnid>/*.JPEG")
    wnids = class_folders(folder / "train")
    for wnid in wnids:
        _check_wnid(str(folder / "train"), wnid)
    if not wnids:
        raise DataError(f"imagenet expects train/<wnid>/*.JPEG, but {folder / 'train'} is empty")
    found = [_class(folder, wnid, label) for label, wnid in enumerate(wnids)]
    if class_folders(folder / "val"):
        test = list_classes(folder / "val", wnids)
    else:
        annotations = _find_annotations(folder, val_annotations)
        test = _annotated(folder / "val", annotations, _label_of(wnids))
    splits = _splits(folder, wnids, found, test)
    side, splits = side_to_store(stored_size, image_size, splits)
    how = pixels.decoding(side)
    return dataset_from_files("imagenet", splits, image_size, cache_dir, how=how)


def _splits(
    folder: Path,
    wnids: Sequence[str],
    found: Sequence[Found],
    test: Found,
) -> Splits:
    """Returns the files of both parts."""
    left_out = sum((of_class.left_out for of_class in found), test.left_out)
    return Splits(
        root=folder,
        train=[file for of_class in found for file in of_class.files],
        test=test.files,
        num_classes=len(wnids),
        class_names=tuple(wnids),
        broken=(*(file for of_class in found for file in of_class.broken), *test.broken),
        notes=left_out_note(left_out),
    )


def _read_wnids(path: Path) -> list[str]:
    """Returns the wnids of a file with one a line, sorted, or raises DataError."""
    try:
        words = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"tiny_imagenet expects {TINY_FOLDER}/ with wnids.txt, train/ and val/, but {path} can't "
            f"be read ({error}); set data.options.root"
        ) from error
    for word in words:
        _check_wnid(str(path), word)
    twice = [wnid for wnid, number in Counter(words).items() if number > 1]
    if twice or not words:
        raise DataError(f"{path} lists {twice[0]} twice" if twice else f"{path} is empty")
    return sorted(words)


def _check_wnid(where: str, word: str) -> None:
    if not _WNID.fullmatch(word):
        raise DataError(f"{where}: {word!r} is no wnid (n and 8 digits)")


def _check_folder(name: str, folder: Path, layout: str) -> None:
    if not folder.is_dir():
        raise DataError(
            f"{name} expects {layout}, but there is no folder {folder}; set data.options.root"
        )


def _class(folder: Path, below: str, label: int) -> Found:
    """Returns the training images of a class, or raises DataError if there are none."""
    place = folder / "train" / below
    found = images_in(place, label) if place.is_dir() else Found()
    if not found.files:
        what = "has no images" if place.is_dir() else "is missing"
        raise DataError(f"the class folder {place} {what}")
    inside = len(class_folders(place))
    if inside:
        found.left_out["folders in class folders"] += inside
    return found


def _label_of(wnids: Sequence[str]) -> Callable[[str], int]:
    """Returns a reader of classes that are given as wnids or as labels."""
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    as_number = label_below(len(wnids))

    def read(text: str) -> int:
        if text.isdigit():
            return as_number(text)
        if text not in labels:
            raise ValueError(f"unknown wnid {text!r}; the training images have no such class")
        return labels[text]

    return read


def _find_annotations(folder: Path, named: str | None) -> Path:
    """Returns the file with the classes of a flat val/, or raises DataError."""
    if named is not None:
        return Path(named)
    for name in VAL_ANNOTATIONS:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"imagenet: {folder / 'val'} has no class folders, and none of {', '.join(VAL_ANNOTATIONS)} is "
        f"in {folder}; set data.options.val_annotations to a file with lines '<image> <wnid>'. The "
        "development kit's ground truth does not do: its numbers are in another order"
    )


def _annotated(folder: Path, annotations: Path, to_label: Callable[[str], int]) -> Found:
    """Returns the images of a flat folder by name, with the classes that a file gives them.

    Raises:
        DataError: see `read_rows` and `list_images`; or an image is not in the file.
    """
    rows = [
        Row(row.where, _with_suffix(row.image), row.class_name)
        for row in read_rows(annotations, lambda line: line.replace(",", " ").split())
        if row.image != CSV_HEADER
    ]
    files = sorted(list_images(rows, folder, to_label), key=lambda file: file.path)
    annotated = {file.path.name for file in files}
    there = images_in(folder, NO_LABEL)
    used(annotations, folder, there.left_out)
    for file in there.files:
        if file.path.name not in annotated:
            raise DataError(f"the image {file.path} has no line in {annotations}")
    return Found(files, there.broken, there.left_out)


def _with_suffix(name: str) -> str:
    return name if Path(name).suffix else name + DEFAULT_SUFFIX
