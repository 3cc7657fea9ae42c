"""Images that come one after the other, out of archives or tables, as a `DataSet` in memory."""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import io
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from dogo_fed.data.files.decode import (
    Decoded,
    Decoding,
    decode,
    fitted,
    size_of,
    without_pillows_limit,
)
from dogo_fed.data.files.image_files import (
    MOST_NAMED,
    SIZES_READ,
    broken_note,
    checked_side,
    frames_note,
    left_out_note,
    typical_side,
)
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
        content: a file's bytes, where the file is, or an image; None if there is none, which
            counts as broken.
        label: -1 if it has no class.
    """

    name: str
    content: bytes | Path | Image.Image | None
    label: int


def side_of_records(
    given: int | None, image_size: int, records: Iterator[ImageRecord]
) -> tuple[int, tuple[str, ...], Iterator[ImageRecord]]:
    """Returns the side at which images are stored, a note if it is more than theirs, and all records.

    Args:
        given: the setting `stored_size`; None stores what the first images have, up to twice the views.
        image_size: side of the views.
        records: the training images.

    Raises:
        ConfigError: the setting is below the side of the views.
    """
    if given is not None:
        return checked_side(given, image_size), (), records
    first = deque(islice(records, SIZES_READ))
    with without_pillows_limit():
        side, note = typical_side((_size(record.content) for record in first), image_size)
    return side, note, chain(_taken(first), records)


def _taken(records: deque[ImageRecord]) -> Iterator[ImageRecord]:
    """Yields records and lets go of them."""
    while records:
        yield records.popleft()


def _size(content: bytes | Path | Image.Image | None) -> tuple[int, int] | None:
    if content is None or isinstance(content, Image.Image):
        return None if content is None else content.size
    return size_of(io.BytesIO(content) if isinstance(content, bytes) else content)


@dataclass(slots=True)
class _Told:
    """What reading the images of both parts tells beside their pixels.

    Attributes:
        broken: those that can't be read.
        num_several: how many of the others have more than one frame.
    """

    broken: list[Broken] = field(default_factory=list)
    num_several: int = 0


def dataset_from_records(
    name: str,
    train: Iterable[ImageRecord],
    test: Iterable[ImageRecord],
    image_size: int,
    *,
    how: Decoding,
    class_names: Sequence[str] = (),
    notes: Sequence[str] = (),
    left_out: Counter[str] | None = None,
) -> DataSet:
    """Returns images as a data set; each is decoded once, into memory.

    Args:
        name: what reports call it.
        train: the images, in the order of the sample ids.
        test: the same; may be empty.
        image_size: side of the views, in pixels.
        how: how they become pixels, at which side they are stored, and whether images that can't be
            read are left out.
        class_names: in the order of the labels; empty if they have no names.
        notes: what a user should know about how they were found.
        left_out: what was passed over, by reason; may be counted while the images are read.

    Raises:
        DataError: there is none, some can't be read, or they are too many for memory.
    """
    told = _Told()
    train_NCHW, train_N = _decoded(name, train, how, told)
    test_NCHW, test_N = _decoded(name, test, how, told)
    passed_over = left_out_note(left_out or Counter())
    if told.broken and not how.skip_broken:
        raise DataError(
            f"{name}: {len(told.broken)} images can't be read: {some_of(told.broken, MOST_NAMED)}. "
            "Leave them out with data.options.skip_broken=true"
        )
    if len(train_NCHW) == 0:
        raise DataError("; ".join([f"{name}: there are no training images", *passed_over]))
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
        notes=(
            *notes,
            *passed_over,
            *frames_note(told.num_several),
            *broken_note(told.broken),
        ),
    )


def _decoded(
    name: str, records: Iterable[ImageRecord], how: Decoding, told: _Told
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns pixels (uint8, N x C x side x side) and labels (int64, N) of those that can be read."""
    images = [np.empty((0, how.colours.channels, how.side, how.side), np.uint8)]
    labels: list[int] = []
    per_image = how.colours.channels * how.side * how.side
    for pixels, label in _readable(records, how, told):
        images.append(pixels[None])
        labels.append(label)
        if len(labels) * per_image > MOST_BYTES:
            raise DataError(
                f"{name}: the images are more than {MOST_BYTES / 2**30:.0f} GiB of pixels at a side of "
                f"{how.side}; set data.options.stored_size or image_size to less, or unpack them into a "
                "folder and use data=<folder>, which keeps them on disk"
            )
    return torch.from_numpy(np.concatenate(images)), torch.tensor(labels, dtype=torch.int64)


def _readable(
    records: Iterable[ImageRecord], how: Decoding, told: _Told
) -> Iterator[tuple[UInt8Array, int]]:
    """Yields pixels and label of the images that can be read; notes the others."""
    with without_pillows_limit():
        for record in records:
            try:
                image = _image(record.content, how)
            except (DataError, OSError, ValueError) as error:
                told.broken.append(Broken(Path(record.name), str(error)))
                continue
            told.num_several += image.has_more_frames
            yield image.pixels, record.label


def _image(content: bytes | Path | Image.Image | None, how: Decoding) -> Decoded:
    """Returns the image of a record.

    Raises:
        DataError: there is none, or it can't be decoded; Pillow's errors if it is broken.
    """
    if content is None:
        raise DataError("there is no image")
    if isinstance(content, Image.Image):
        return Decoded(fitted(content, how), has_more_frames=False)
    return decode(io.BytesIO(content) if isinstance(content, bytes) else content, how)
