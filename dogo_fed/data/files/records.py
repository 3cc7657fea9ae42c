"""Images that come one after the other, out of archives or tables, as a `DataSet` in memory."""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dogo_fed.data.files.decode import Decoding, decode, fitted, without_pillows_limit
from dogo_fed.data.files.image_files import MOST_NAMED, broken_note
from dogo_fed.data.files.listing import Broken
from dogo_fed.data.map_style import UInt8Array, fingerprint, pixel_statistics
from dogo_fed.data.source import DataSet, TensorImages
from dogo_fed.errors import DataError
from dogo_fed.text import some_of

MOST_BYTES = 8 * 2**30
"""More pixels than these are not held in the memory of each process."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of an archive or a table.

    Attributes:
        name: what messages call it.
        content: a file's bytes, or an image.
        label: -1 if it has no class.
    """

    name: str
    content: bytes | Image.Image
    label: int


def dataset_from_records(
    name: str,
    train: Iterable[ImageRecord],
    test: Iterable[ImageRecord],
    image_size: int,
    *,
    how: Decoding,
    class_names: Sequence[str] = (),
    skip_broken: bool = False,
    notes: Sequence[str] = (),
) -> DataSet:
    """Returns images as a data set; each is decoded once, into memory.

    Args:
        name: what reports call it.
        train: the images, in the order of the sample ids.
        test: the same; may be empty.
        image_size: side of the views, in pixels.
        how: how they become pixels, and at which side they are stored.
        class_names: in the order of the labels; empty if they have no names.
        skip_broken: whether images that can't be read are left out.
        notes: what a user should know about how they were found.

    Raises:
        DataError: there is none, some can't be read, or they are too many for memory.
    """
    broken: list[Broken] = []
    train_NCHW, train_N = _decoded(name, train, how, broken)
    test_NCHW, test_N = _decoded(name, test, how, broken)
    if broken and not skip_broken:
        raise DataError(
            f"{name}: {len(broken)} images can't be read: {some_of(broken, MOST_NAMED)}. Leave them "
            "out with data.options.skip_broken=true"
        )
    if len(train_NCHW) == 0:
        raise DataError(f"{name}: there are no training images")
    mean, std = pixel_statistics(train_NCHW)
    largest = int(torch.cat([train_N, test_N]).max())
    return DataSet(
        name=name,
        train=TensorImages(train_NCHW, train_N),
        test=TensorImages(test_NCHW, test_N),
        num_classes=max(largest + 1, len(class_names)),
        image_size=image_size,
        mean=mean,
        std=std,
        fingerprint=fingerprint(train_NCHW),
        test_fingerprint=fingerprint(test_NCHW),
        class_names=tuple(class_names),
        notes=(*notes, *broken_note(broken)),
    )


def _decoded(
    name: str, records: Iterable[ImageRecord], how: Decoding, broken: list[Broken]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns pixels (uint8, N x C x side x side) and labels (int64, N) of those that can be read."""
    images = [np.empty((0, how.colours.channels, how.side, how.side), np.uint8)]
    labels: list[int] = []
    per_image = how.colours.channels * how.side * how.side
    for pixels, label in _readable(records, how, broken):
        images.append(pixels[None])
        labels.append(label)
        if len(labels) * per_image > MOST_BYTES:
            raise DataError(
                f"{name}: the images are more than {MOST_BYTES / 2**30:.0f} GiB of pixels; set "
                "data.options.image_size to less, or unpack them into a folder and use data=<folder>, "
                "which keeps them on disk"
            )
    return torch.from_numpy(np.concatenate(images)), torch.tensor(labels, dtype=torch.int64)


def _readable(
    records: Iterable[ImageRecord], how: Decoding, broken: list[Broken]
) -> Iterator[tuple[UInt8Array, int]]:
    """Yields pixels and label of the images that can be read; notes the others."""
    with without_pillows_limit():
        for record in records:
            try:
                if isinstance(record.content, bytes):
                    pixels = decode(io.BytesIO(record.content), how)
                else:
                    pixels = fitted(record.content, how)
            except (DataError, OSError, ValueError) as error:
                broken.append(Broken(Path(record.name), str(error)))
                continue
            yield pixels, record.label
