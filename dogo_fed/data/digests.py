"""Digests of single images, by which the same image is found again in another data set."""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from typing import Protocol

import torch

from dogo_fed.data.adapt import resized
from dogo_fed.data.source import ImageSource, Subset, takes_time

logger = logging.getLogger(__name__)

DIGEST_BYTES = 16
_PIXELS_AT_A_TIME = 2**24
"""Pixels that are looked at together. Resized ones are floating-point numbers: 64 MiB a channel."""
_TOLD_EVERY_S = 5.0


class KeptDigests(Protocol):
    """Where the digests of a source's images stay between two starts: `DIGEST_BYTES` each, in order."""

    def read(self) -> bytes | None:
        """Returns the digests of these images; None if they are not there."""
        ...

    def write(self, digests: bytes) -> None:
        """Keeps the digests, if that is possible."""
        ...


class DigestedImages:
    """An `ImageSource` whose images' digests are made once and kept.

    They are of the pixels as they are stored, which are the same wherever they are read. Resized pixels
    are not: they come out of floating-point numbers.
    """

    def __init__(self, source: ImageSource, side: int, kept: KeptDigests) -> None:
        """Wraps a source.

        Args:
            source: the images.
            side: at which they are stored, in pixels.
            kept: where their digests are kept.
        """
        self.side = side
        self._source = source
        self._kept = kept
        self._digests: bytes | None = None

    @property
    def takes_time(self) -> bool:
        """Whether the images are decoded whenever a batch needs them."""
        return takes_time(self._source)

    @property
    def labels(self) -> torch.Tensor:
        """Class of every image: int64, shape N."""
        return self._source.labels

    def __len__(self) -> int:
        return len(self._source)

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the images with these ids, in this order: uint8, B x C x side x side."""
        return self._source.images(ids)

    def digests(self, what: str) -> list[bytes]:
        """Returns a digest of each image as it is stored; images are read only if none are kept.

        Args:
            what: the images, for the log.
        """
        if self._digests is None:
            found = self._kept.read()
            if found is None:
                found = b"".join(_made(self._source, self.side, what))
                self._kept.write(found)
            self._digests = found
        ends = range(DIGEST_BYTES, len(self._digests) + 1, DIGEST_BYTES)
        return [self._digests[end - DIGEST_BYTES : end] for end in ends]


def image_digests(source: ImageSource, side: int, what: str = "a data set") -> list[bytes]:
    """Returns a digest of each image's pixels, at one side, by which the same image is found again.

    Args:
        source: the images.
        side: in pixels; images that are stored at another side are resized.
        what: the images, for the log, which says from time to time how many are done.
    """
    known = _known(source, side, what)
    return list(_made(source, side, what)) if known is None else known


def stored_side(source: ImageSource) -> int:
    """Returns the side at which the images are stored, in pixels; 0 of no image."""
    if len(source) == 0:
        return 0
    while isinstance(source, Subset):
        source = source.whole
    if isinstance(source, DigestedImages):
        return source.side
    return source.images(torch.tensor([0])).shape[-1]


def _known(source: ImageSource, side: int, what: str) -> list[bytes] | None:
    """Returns the digests of a source that keeps them, or of a part of it; None of other sources."""
    if isinstance(source, Subset):
        of_whole = _known(source.whole, side, what)
        return None if of_whole is None else [of_whole[row] for row in source.ids.tolist()]
    if isinstance(source, DigestedImages) and source.side == side:
        return source.digests(what)
    return None


def _made(source: ImageSource, side: int, what: str) -> Iterator[bytes]:
    """Yields a digest of each image, of its pixels now."""
    number, told_at = len(source), time.monotonic()
    if number == 0:
        return
    largest = max(side, stored_side(source))
    for ids_N in torch.split(torch.arange(number), max(1, _PIXELS_AT_A_TIME // largest**2)):
        if time.monotonic() - told_at >= _TOLD_EVERY_S:
            told_at = time.monotonic()
            logger.info("digests of %s: %d of %d images are done", what, int(ids_N[0]), number)
        for image_CHW in resized(source.images(ids_N), side):
            pixels = image_CHW.contiguous().numpy()
            yield hashlib.blake2b(pixels, digest_size=DIGEST_BYTES).digest()
