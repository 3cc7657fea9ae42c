"""Arrays in an .npz file, as MedMNIST distributes them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dogo_fed.data.colours import Colours
from dogo_fed.data.files.decode import Decoding
from dogo_fed.data.files.image_files import LARGER
from dogo_fed.data.files.records import ImageRecord, dataset_from_records
from dogo_fed.data.map_style import UInt8Array
from dogo_fed.data.source import DataSet
from dogo_fed.errors import DataError

TESTS = ("test", "val")


def npz(path: str, image_size: int | None = None, channels: int = 3) -> DataSet:
    """Returns the images of `train_images` and `test_images` (or `val_images`).

    Images are N x H x W or N x H x W x 3, uint8 or uint16. Labels are `train_labels` and so on: N, or
    N x 1. Those of several columns (several findings of one image) are not used.

    Source: Yang et al., "MedMNIST v2", Scientific Data 2023, for the layout.

    Args:
        path: the file.
        image_size: side of the views in pixels; None is that of the images.
        channels: 3, or 1 to keep grey images grey.

    Raises:
        ConfigError: an option is impossible.
        DataError: the file can't be read, or has no such arrays.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} can't be read as .npz: {error}") from error
    if "train_images" not in arrays:
        raise DataError(
            f"{path} has no array train_images; it has {', '.join(sorted(arrays)) or 'none'}"
        )
    notes: list[str] = []
    parts = ["train", *[part for part in TESTS if f"{part}_images" in arrays][:1]]
    labels = {part: _labels(path, arrays, part, notes) for part in parts}
    side = min(arrays["train_images"].shape[1:3])
    size = image_size or side
    test = parts[1] if len(parts) > 1 else None
    return dataset_from_records(
        Path(path).stem,
        _records(path, arrays, "train", labels["train"]),
        _records(path, arrays, test, labels[test]) if test else [],
        size,
        how=Decoding(side=min(max(side, size), LARGER * size), colours=Colours(channels=channels)),
        notes=notes,
    )


def _records(
    path: str, arrays: dict[str, UInt8Array], part: str, labels: list[int]
) -> Iterator[ImageRecord]:
    images = arrays[f"{part}_images"]
    is_image = images.ndim == 3 or (images.ndim == 4 and images.shape[-1] in (1, 3))
    if not is_image or images.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{path}: {part}_images must be uint8 or uint16, N x H x W or N x H x W x 3, not "
            f"{images.dtype} of shape {images.shape}"
        )
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        grey = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        yield ImageRecord(f"{path}, {part} {index}", Image.fromarray(grey), label)


def _labels(path: str, arrays: dict[str, UInt8Array], part: str, notes: list[str]) -> list[int]:
    """Returns the labels of a part; -1 for each image if there are none that can be used."""
    number = len(arrays[f"{part}_images"])
    found = arrays.get(f"{part}_labels")
    if found is None:
        return [-1] * number
    if found.size != number or not np.issubdtype(found.dtype, np.integer):
        notes.append(
            f"{part}_labels of shape {found.shape} are not one class for each image, so they are not used"
        )
        return [-1] * number
    return [int(label) for label in found.reshape(-1)]
