"""A user's own images as a `DataSet`: from arrays, or from a pair of torch map-style data sets."""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from dogo_fed.data.colours import Colours, in_colours
from dogo_fed.data.source import NO_LABEL, DataSet, TensorImages
from dogo_fed.errors import DataError

UInt8Array: TypeAlias = npt.NDArray[np.uint8]
Pixels: TypeAlias = UInt8Array | torch.Tensor

_IMAGES_AT_A_TIME = 4096
"""Statistics and digests read this many images at a time, so a memory-mapped set stays on disk."""


class MapStyle(Protocol):
    """A torch map-style data set: of pairs of a PIL image, array or tensor and its class, or of images.

    A class may be None or -1: the image has none.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> object: ...


def dataset_from_arrays(
    name: str,
    train_images: Pixels,
    train_labels: npt.ArrayLike | torch.Tensor | None = None,
    test_images: Pixels | None = None,
    test_labels: npt.ArrayLike | torch.Tensor | None = None,
    num_classes: int | None = None,
    class_names: Sequence[str] = (),
) -> DataSet:
    """Returns a data set of images held in memory; mean, deviation and fingerprint are computed.

    Args:
        name: what reports call it.
        train_images: uint8, N x C x H x W, square.
        train_labels: classes from 0, of shape N; -1 for an image without a label. None: no image has
            one.
        test_images: uint8, of the same channels and size as the training images; None: there are
            none.
        test_labels: like those of the training images.
        num_classes: None counts up to the largest label.
        class_names: in the order of the labels, if they have names.

    Raises:
        DataError: the images or labels do not have the promised type, shape or range.
    """
    train_NCHW = _as_pixels(f"{name}: train images", train_images)
    if len(train_NCHW) == 0:
        raise DataError(f"{name}: train images: there are none")
    test_NCHW = train_NCHW[:0]
    if test_images is not None:
        test_NCHW = _as_pixels(f"{name}: test images", test_images)
    if train_NCHW.shape[1:] != test_NCHW.shape[1:]:
        raise DataError(
            f"{name}: train images are {tuple(train_NCHW.shape[1:])} but test images are "
            f"{tuple(test_NCHW.shape[1:])} (channels, height, width)"
        )
    train_N = _as_labels(f"{name}: train labels", train_labels, len(train_NCHW))
    test_N = _as_labels(f"{name}: test labels", test_labels, len(test_NCHW))
    largest = int(torch.cat([train_N, test_N]).max())  # -1 if no image has a class
    if num_classes is not None and largest >= num_classes:
        raise DataError(f"{name}: a label is {largest}, but there are only {num_classes} classes")
    mean, std = pixel_statistics(train_NCHW)
    return DataSet(
        name=name,
        train=TensorImages(train_NCHW, train_N),
        test=TensorImages(test_NCHW, test_N),
        num_classes=largest + 1 if num_classes is None else num_classes,
        image_size=train_NCHW.shape[-1],
        mean=mean,
        std=std,
        fingerprint=fingerprint(train_NCHW),
        test_fingerprint=fingerprint(test_NCHW),
        class_names=tuple(class_names),
    )


def dataset_from_map_style(name: str, train: MapStyle, test: MapStyle | None = None) -> DataSet:
    """Returns a data set made by reading every item of two map-style data sets once.

    Args:
        name: what reports call it.
        train: items are (image, class), or images. An image is a PIL image, an array H x W or
            H x W x C, or a tensor C x H x W; uint8, uint16, or floating point in 0..1. Grey images
            become three equal channels.
        test: the same; None or an empty one: there are no test images.

    Raises:
        DataError: an item is not such a pair, or the images differ in shape; names the item.
    """
    if len(train) == 0:
        raise DataError(f"{name}: train: the data set is empty")
    train_NCHW, train_N = _materialise(f"{name}: train", train)
    if test is None or len(test) == 0:
        return dataset_from_arrays(name, train_NCHW, train_N)
    test_NCHW, test_N = _materialise(f"{name}: test", test)
    return dataset_from_arrays(name, train_NCHW, train_N, test_NCHW, test_N)


def pixel_statistics(images_NCHW: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and deviation per channel of uint8 images, scaled to 0..1, with 4 decimals.

    The sums are of integers, so the result does not depend on machine or thread count.
    A constant channel gets the deviation 1, so that it can be divided by.
    """
    found = PixelStatistics(images_NCHW.shape[1])
    for chunk_NCHW in torch.split(images_NCHW, _IMAGES_AT_A_TIME):
        found.add(chunk_NCHW)
    return found.mean_and_std()


def fingerprint(images_NCHW: torch.Tensor) -> str:
    """Returns a hex digest of the shape and the pixels of uint8 images, in order."""
    found = PixelDigest(tuple(images_NCHW.shape))
    for chunk_NCHW in torch.split(images_NCHW, _IMAGES_AT_A_TIME):
        found.add(chunk_NCHW)
    return found.hexdigest()


class PixelStatistics:
    """`pixel_statistics` of images that come some at a time."""

    def __init__(self, channels: int) -> None:
        self._number = 0
        self._sums, self._squares = [0] * channels, [0] * channels

    def add(self, images_NCHW: torch.Tensor) -> None:
        """Counts uint8 images."""
        channels = len(self._sums)
        for channel in range(channels):
            counts = torch.bincount(images_NCHW[:, channel].reshape(-1), minlength=256).tolist()
            self._sums[channel] += sum(value * count for value, count in enumerate(counts))
            self._squares[channel] += sum(
                value * value * count for value, count in enumerate(counts)
            )
        self._number += images_NCHW.numel() // channels

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Returns mean and deviation per channel of what was counted; 0 and 1 of nothing."""
        number = self._number
        if not number:
            return (0.0,) * len(self._sums), (1.0,) * len(self._sums)
        variances = [
            (number * square - total * total) / number**2
            for total, square in zip(self._sums, self._squares, strict=True)
        ]
        mean = tuple(round(total / number / 255.0, 4) for total in self._sums)
        std = tuple(round(math.sqrt(variance) / 255.0, 4) or 1.0 for variance in variances)
        return mean, std


class PixelDigest:
    """`fingerprint` of images that come some at a time, in order."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Begins; `shape` is N x C x H x W of all of them."""
        self._hasher = hashlib.blake2b(str(shape).encode(), digest_size=16)

    def add(self, images_NCHW: torch.Tensor) -> None:
        """Takes the next images, uint8."""
        self._hasher.update(images_NCHW.contiguous().numpy().data)

    def hexdigest(self) -> str:
        """Returns the digest of what was taken."""
        return self._hasher.hexdigest()


def _as_pixels(what: str, images: Pixels) -> torch.Tensor:
    """Returns images as a uint8 tensor N x C x H x W, or raises DataError."""
    tensor = images if isinstance(images, torch.Tensor) else torch.from_numpy(images)
    if tensor.dtype != torch.uint8 or tensor.ndim != 4 or tensor.shape[2] != tensor.shape[3]:
        raise DataError(
            f"{what} must be uint8 of shape N x C x H x W with H = W, not {tensor.dtype} of shape "
            f"{tuple(tensor.shape)}"
        )
    return tensor


def _as_labels(what: str, labels: npt.ArrayLike | torch.Tensor | None, number: int) -> torch.Tensor:
    """Returns labels as an int64 tensor of shape N, or raises DataError."""
    if labels is None:
        return torch.full((number,), NO_LABEL)
    tensor = torch.as_tensor(labels)
    if tensor.shape != (number,) or tensor.is_floating_point():
        raise DataError(
            f"{what} must be {number} integers, not {tensor.dtype} of shape {tuple(tensor.shape)}"
        )
    if number and int(tensor.min()) < NO_LABEL:
        raise DataError(
            f"{what} must be classes from 0, or {NO_LABEL} for none, not {int(tensor.min())}"
        )
    return tensor.to(torch.int64)


def _materialise(what: str, source: MapStyle) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns all images (uint8, N x C x H x W) and classes (N) of a map-style data set."""
    first_CHW, _ = _read_item(what, source, 0)
    images_NCHW = torch.empty((len(source), *first_CHW.shape), dtype=torch.uint8)
    labels_N = torch.empty(len(source), dtype=torch.int64)
    for index in range(len(source)):
        image_CHW, label = _read_item(what, source, index)
        if image_CHW.shape != first_CHW.shape:
            raise DataError(
                f"{what} item {index} has shape {tuple(image_CHW.shape)}, but item 0 has "
                f"{tuple(first_CHW.shape)}; all images must be of one size"
            )
        images_NCHW[index] = image_CHW
        labels_N[index] = label
    return images_NCHW, labels_N


def _read_item(what: str, source: MapStyle, index: int) -> tuple[torch.Tensor, int]:
    """Returns one image (uint8, C x H x W) and its class."""
    try:
        item = source[index]
    except Exception as error:
        error.add_note(f"This was item {index} of {what}.")
        raise
    if isinstance(item, Image.Image | np.ndarray | torch.Tensor):
        item = (item, None)
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(
            f"{what} item {index} is a {type(item).__name__}, not (image, class) or an image"
        )
    image, label = item
    if label is None:
        label = NO_LABEL
    if isinstance(label, torch.Tensor | np.ndarray) and math.prod(label.shape) == 1:
        label = label.item()
    if isinstance(label, bool) or not isinstance(label, int | np.integer):
        raise DataError(f"{what} item {index} has the class {label!r}, which is not an integer")
    return _image_to_uint8(f"{what} item {index}", image), int(label)


def _image_to_uint8(what: str, image: object) -> torch.Tensor:
    """Returns a PIL image, array or tensor as uint8, C x H x W."""
    if isinstance(image, Image.Image):
        try:
            image = np.array(in_colours(image, Colours()))
        except DataError as error:
            raise DataError(f"{what}: {_without_setting(error)}") from error
    if isinstance(image, np.ndarray):
        array = image[:, :, None] if image.ndim == 2 else image
        image = torch.from_numpy(np.array(array, order="C")).movedim(-1, 0)
    if not isinstance(image, torch.Tensor):
        raise DataError(f"{what} is a {type(image).__name__}, not a PIL image, array or tensor")
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise DataError(
            f"{what} has shape {tuple(image.shape)}, not (1 or 3 channels, height, width)"
        )
    if image.dtype == torch.uint16:
        image = (image.to(torch.float32) / 257.0).round().to(torch.uint8)  # 65535 is white
    if image.is_floating_point():
        image = _float_to_uint8(what, image)
    if image.dtype != torch.uint8:
        raise DataError(f"{what} is {image.dtype}, not uint8, uint16 or floating point in 0..1")
    return image.expand(3, -1, -1)


def _without_setting(error: DataError) -> str:
    """Returns what is wrong with an image, without the setting of image files."""
    return str(error).partition(";")[0] + "; scale them to 0..1 as floating point, or to uint8"


def _float_to_uint8(what: str, image_CHW: torch.Tensor) -> torch.Tensor:
    """Returns an image in 0..1 as uint8; other values are an error: they were normalised."""
    if not image_CHW.isfinite().all():
        number = int((~image_CHW.isfinite()).sum())
        raise DataError(f"{what}: {number} of its values are NaN or infinite; put 0 in their place")
    low, high = float(image_CHW.min()), float(image_CHW.max())
    if not (low >= 0.0 and high <= 1.0):
        raise DataError(
            f"{what} has values from {low:.3g} to {high:.3g}; floating-point images must be in "
            "0..1, so leave the normalisation out of the data set's transform"
        )
    return (image_CHW * 255.0).round().to(torch.uint8)
