"""What a data set is to the rest of the code: images by id, labels for evaluation only, a fingerprint."""

# B = images asked for, C = channels, H, W = pixels, N = images in the source

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from dogo_fed.data.to_device import to_device

NO_LABEL = -1
"""Label of an image that has no class, or none that is known."""
_LARGEST_IMAGE, _MOST_CHANNELS = 65536, 4096


class ImageSource(Protocol):
    """Images by sample id. Labels are for evaluation on the peer's own machine and are never sent."""

    @property
    def labels(self) -> torch.Tensor:
        """Class of every image: int64, shape N; -1 if it has none."""
        ...

    def __len__(self) -> int: ...

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the images with these ids, in this order: uint8, B x C x H x W, on the CPU."""
        ...


def takes_time(source: ImageSource) -> bool:
    """Whether images are decoded whenever a batch needs them.

    A source tells so by an attribute `takes_time`. One that has none is taken for one that has its
    images ready.
    """
    return bool(getattr(source, "takes_time", False))


@dataclass(frozen=True, slots=True)
class DataSet:
    """A training and a test source that belong together; the test source may have no images.

    It has two names. `name` names random streams (those of subsets and noise) and is a part of what
    a run is known by, so it may not change: any folder of images has the same one, wherever it lies.
    People need to tell two folders apart, and read `title`.

    Attributes:
        name: what it is, for the code.
        image_size: side of the views and of what is evaluated, in pixels. The images may be larger;
            then crops are taken from them as they are.
        mean, std: per channel, of pixel values scaled to 0..1; used to normalise.
        fingerprint: hex digest of the training images in order; equal at every peer of a run.
        test_fingerprint: the same of the test images; empty if it is not known.
        num_classes: 0 if no image has a class.
        class_names: in the order of the labels; empty if they have no names.
        notes: what a user should know about how the images were read, a sentence each.
        title: what reports, files and messages call it; its name if nothing else is given.
    """

    name: str
    train: ImageSource
    test: ImageSource
    num_classes: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    test_fingerprint: str = ""
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    title: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name)


class TensorImages:
    """An `ImageSource` held in memory."""

    def __init__(self, images_NCHW: torch.Tensor, labels_N: torch.Tensor) -> None:
        if images_NCHW.dtype != torch.uint8 or images_NCHW.ndim != 4:
            raise ValueError(
                f"images must be uint8 of shape N x C x H x W, not {images_NCHW.dtype} of shape "
                f"{tuple(images_NCHW.shape)}"
            )
        if labels_N.shape != (len(images_NCHW),):
            raise ValueError(
                f"{len(images_NCHW)} images but labels of shape {tuple(labels_N.shape)}"
            )
        self._images_NCHW = images_NCHW.contiguous()
        self._labels_N = labels_N.to(torch.int64)

    @property
    def labels(self) -> torch.Tensor:
        """Class of every image: int64, shape N."""
        return self._labels_N

    def __len__(self) -> int:
        return len(self._images_NCHW)

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the images with these ids, in this order: uint8, B x C x H x W."""
        there = self._images_NCHW.device
        return self._images_NCHW[ids if there.type == "cpu" else to_device(ids, there)]


class Subset:
    """Some images of a source, under new ids from 0."""

    def __init__(self, source: ImageSource, ids_N: torch.Tensor) -> None:
        self._source = source
        self._ids_N = ids_N

    @property
    def whole(self) -> ImageSource:
        """The source that they are of."""
        return self._source

    @property
    def takes_time(self) -> bool:
        """Whether they are decoded whenever a batch needs them."""
        return takes_time(self._source)

    @property
    def ids(self) -> torch.Tensor:
        """Their ids there, in order: int64, shape N."""
        return self._ids_N

    @property
    def labels(self) -> torch.Tensor:
        """Class of every image: int64, shape N."""
        return self._source.labels[self._ids_N]

    def __len__(self) -> int:
        return len(self._ids_N)

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the images with these ids, in this order: uint8, B x C x H x W."""
        return self._source.images(self._ids_N[ids])


def check_image_facts(image_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Checks what somebody says of images.

    Args:
        image_size: side in pixels.
        mean: per channel, of pixel values scaled to 0..1.
        std: the same of their deviation.

    Raises:
        ValueError: no images are like that.
    """
    if not 1 <= image_size <= _LARGEST_IMAGE:
        raise ValueError(f"image_size must be from 1 to {_LARGEST_IMAGE}, not {image_size}")
    if not 1 <= len(mean) == len(std) <= _MOST_CHANNELS:
        raise ValueError(
            "mean and std must have a number for each channel (1 to "
            f"{_MOST_CHANNELS}), not {len(mean)} and {len(std)}"
        )
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise ValueError(
            f"mean and std must be finite and std above 0, not {list(mean)} and {list(std)}"
        )


def fingerprint_of_part(fingerprint: str, ids_N: torch.Tensor) -> str:
    """Returns the fingerprint of some of the images of a source that has this one."""
    ids = ids_N.numpy().astype("<i8").tobytes()
    return hashlib.blake2b(fingerprint.encode() + ids, digest_size=16).hexdigest()


class MappedImages:
    """The images of a source, changed whenever they are asked for; ids and labels stay."""

    def __init__(
        self, source: ImageSource, change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> None:
        """Wraps a source.

        Args:
            source: the images.
            change: from uint8 images B x C x H x W and their ids to other such images.
        """
        self._source = source
        self._change = change

    @property
    def takes_time(self) -> bool:
        """Whether they are decoded whenever a batch needs them."""
        return takes_time(self._source)

    @property
    def labels(self) -> torch.Tensor:
        """Class of every image: int64, shape N."""
        return self._source.labels

    def __len__(self) -> int:
        return len(self._source)

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the changed images with these ids, in this order: uint8, B x C x H x W."""
        return self._change(self._source.images(ids), ids)
