"""Arrays in an .npz file, as MedMNIST distributes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from dogo_fed.data.colours import TYPE_RANGES, eight_bits
from dogo_fed.data.files.image_files import LARGER, check_image_size, enlarged_note
from dogo_fed.data.files.parts import TEST_NAMES, not_used_note
from dogo_fed.data.files.pixel_options import PixelOptions, with_pixel_options
from dogo_fed.data.files.records import ImageRecord, dataset_from_records
from dogo_fed.data.source import NO_LABEL, DataSet
from dogo_fed.errors import DataError
from dogo_fed.text import one_line, some_of

TRAIN = "train"
_IMAGES, _LABELS = "_images", "_labels"
_MOST_NAMED = 8
_Array: TypeAlias = npt.NDArray[Any]


@with_pixel_options
def npz(path: str, image_size: int | None = None, *, pixels: PixelOptions) -> DataSet:
    """Returns the images of `train_images` and `test_images` (or `val_images`).

    Images are N x H x W or N x H x W x 3, uint8 or uint16. Labels are `train_labels` and so on: N, or
    N x 1. Those of several columns (several findings of one image) are not used.

    Source: Yang et al., "MedMNIST v2", Scientific Data 2023, for the layout.

    Args:
        path: the file.
        image_size: side of the views in pixels; None is that of the images.
        pixels: options of their own, see `PixelOptions`.

    Raises:
        ConfigError: an option is impossible.
        DataError: the file can't be read, or has no such arrays.
    """
    arrays, names = _read(path)
    there = [name.removesuffix(_IMAGES) for name in arrays if name.endswith(_IMAGES)]
    if TRAIN not in there:
        raise DataError(
            f"{path} has no array train_images; it has {some_of(sorted(names), _MOST_NAMED) or 'none'}. "
            "Set data.options.path to a file that has train_images, and test_images if there are some; "
            "their classes are train_labels and test_labels"
        )
    test = next((name for name in TEST_NAMES if name in there), None)
    parts = [TRAIN] if test is None else [TRAIN, test]
    for part in parts:
        _check_images(path, part, arrays[part + _IMAGES])
    notes: list[str] = []
    labels = {part: _labels(arrays, part, notes) for part in parts}
    notes += not_used_note([f"{name}{_IMAGES}" for name in there if name not in parts], path)
    side = min(arrays[TRAIN + _IMAGES].shape[1:3])
    size = side if image_size is None else image_size
    check_image_size("npz", size)
    notes += enlarged_note(side, size)
    how = pixels.decoding(min(max(side, size), LARGER * size))
    limits = how.colours.value_range
    return dataset_from_records(
        Path(path).stem,
        _records(path, arrays, TRAIN, labels[TRAIN], limits),
        _records(path, arrays, test, labels[test], limits) if test is not None else [],
        size,
        how=how,
        notes=notes,
    )


def _read(path: str) -> tuple[dict[str, _Array], list[str]]:
    """Returns the arrays of images and labels in a file by name, and the names of all arrays.

    Raises:
        DataError: it can't be read.
    """
    try:
        with Path(path).open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                raise ValueError("it is one array, as in an .npy file")
            with loaded as file:
                wanted = [name for name in file.files if name.endswith((_IMAGES, _LABELS))]
                return {name: file[name] for name in wanted}, list(file.files)
    except Exception as error:  # zipfile, zlib and numpy raise many kinds on a broken file
        reason = one_line(str(error) or type(error).__name__, 200)
        raise DataError(
            f"{path} can't be read as .npz: {reason}. Set data.options.path to a file of arrays"
        ) from error


def _check_images(path: str, part: str, images: _Array) -> None:
    """Raises DataError if an array is none of images."""
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if not is_image or images.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path}: {part}_images must be uint8 or uint16, N x H x W or N x H x W x 3, not "
            f"{images.dtype} of shape {images.shape}"
        )


def _records(
    path: str,
    arrays: Mapping[str, _Array],
    part: str,
    labels: list[int],
    value_range: tuple[float, float] | None,
) -> Iterator[ImageRecord]:
    for index, (image, label) in enumerate(zip(arrays[part + _IMAGES], labels, strict=True)):
        yield ImageRecord(f"{path}, {part} {index}", _image(image, value_range), label)


def _image(image: _Array, value_range: tuple[float, float] | None) -> Image.Image:
    """Returns one image; colours in 16 bits become 8 bits, since Pillow can't hold them."""
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim == 3 and image.dtype == np.uint16:
        image = eight_bits(image, *(value_range or TYPE_RANGES["I;16"]))
    return Image.fromarray(image)


def _labels(arrays: Mapping[str, _Array], part: str, notes: list[str]) -> list[int]:
    """Returns the labels of a part; -1 for each image if there are none that can be used."""
    number = len(arrays[part + _IMAGES])
    found = arrays.get(part + _LABELS)
    if found is None:
        return [NO_LABEL] * number
    is_whole = np.issubdtype(found.dtype, np.integer) or (
        np.issubdtype(found.dtype, np.floating)
        and bool(np.all(np.isfinite(found) & (found == np.round(found))))
    )
    if found.size != number or not is_whole:
        notes.append(
            f"{part}_labels ({found.dtype}, of shape {found.shape}) are not one class for each image, so "
            "they are not used"
        )
        return [NO_LABEL] * number
    return [int(label) for label in found.reshape(-1)]
