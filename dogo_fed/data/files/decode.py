"""One image file as pixels: the right way up, in its full range, on a stated ground."""

# C = channels, H, W = pixels

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dogo_fed.data.colours import Colours, in_colours
from dogo_fed.data.files.dicom import is_dicom, read_dicom, size_of_dicom
from dogo_fed.data.files.first_bytes import first_bytes
from dogo_fed.data.files.sixteen_bits import mend_planes, spread_colours
from dogo_fed.data.map_style import UInt8Array
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.text import one_line

MOST_MEGAPIXELS = 179.0
"""Images above this size are refused unless asked for: a small file can hold a very large image."""
_MORE_THAN_STORED = 2
"""A JPEG that is decoded smaller is still this many times as large as what is made of it."""
_HEAD = 64
_HEIF = (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
"""Of the first bytes of a file, those that stand behind "ftyp"."""
NO_FRAMES = ("MPO", "PSD")
"""Formats whose further frames are previews or layers of the same picture."""
_limit = threading.Lock()  # Pillow's limit is global: it is held for the whole pool of threads


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How files become pixels.

    Attributes:
        side: of the square images, in pixels.
        colours: what becomes of colours, ranges and transparency.
        max_megapixels: larger images are refused.
        skip_broken: whether images that can't be read, or are refused, are left out.
    """

    side: int
    colours: Colours = field(default_factory=Colours)
    max_megapixels: float = MOST_MEGAPIXELS
    skip_broken: bool = False

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: one is impossible.
        """
        if self.side < 1:
            raise ConfigError(f"images must be at least 1 pixel wide, not {self.side}")
        if not self.max_megapixels > 0:
            raise ConfigError(
                f"data.options.max_megapixels must be above 0, not {self.max_megapixels}"
            )

    @property
    def key(self) -> str:
        """What tells these pixels from those that are decoded in another way."""
        colours = self.colours
        return f"{self.side} {colours.channels} {colours.value_range} {colours.ground}"


@dataclass(frozen=True, slots=True)
class Decoded:
    """One image.

    Attributes:
        pixels: uint8, C x side x side.
        has_more_frames: whether they are the first of several frames.
    """

    pixels: UInt8Array
    has_more_frames: bool


def num_threads() -> int:
    """Returns in how many threads images are decoded: as many as there are cores for this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def without_pillows_limit() -> Iterator[None]:
    """Lets `decode` and `size_of` judge the size of images in place of Pillow, for all threads."""
    with _limit, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def size_of(file: Path | BinaryIO) -> tuple[int, int] | None:
    """Returns width and height as seen, from the file's head; None if it can't be read."""
    try:
        if isinstance(file, Path) and is_dicom(file):
            return size_of_dicom(file)
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except Exception:  # `decode` will say what is wrong with it
        return None


def decode(file: Path | BinaryIO, how: Decoding) -> Decoded:
    """Returns the pixels of one image.

    The image is turned as its EXIF orientation says. It is resized so that the shorter side fits,
    then cropped to the centre. Of several frames the first is taken. A JPEG of more than four times the
    side is decoded at a part of its size, which changes pixels by a few levels at most.

    Args:
        file: an image in a format that Pillow reads, or a DICOM file by its path.
        how: what becomes of it.

    Raises:
        DataError: it can't be decoded; the message does not name the file.
    """
    try:
        if isinstance(file, Path) and is_dicom(file):
            image, frames = read_dicom(file, how.colours.value_range)
            return Decoded(fitted(image, how), frames > 1)
        with Image.open(file) as opened:
            _check_size(opened, how)
            # A JPEG can be decoded at a half, a quarter or an eighth, which takes a fraction of the time.
            opened.draft(opened.mode, (_MORE_THAN_STORED * how.side, _MORE_THAN_STORED * how.side))
            mend_planes(opened)
            if how.colours.value_range is not None:
                spread_colours(opened, file, how.colours.value_range)
            return Decoded(fitted(opened, how), _has_more_frames(opened))
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(_unidentified(file)) from error
    except OSError as error:
        raise DataError(one_line(error.strerror or error, 200)) from error
    except Exception as error:  # plugins raise nearly anything on a broken file
        raise DataError(one_line(f"{type(error).__name__}: {error}", 200)) from error


def _unidentified(file: Path | BinaryIO) -> str:
    """Returns why a file is no image that Pillow knows, as far as its first bytes tell."""
    head = first_bytes(file, _HEAD)
    if not head:
        return "it is empty"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF:
        return "it is HEIC, whatever its name; pip install 'dogo-fed[heif]' reads it"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page and no image"
    return "it is no image that can be read"


def fitted(image: Image.Image, how: Decoding) -> UInt8Array:
    """Returns the pixels of an image as `decode` does: uint8, C x side x side.

    Raises:
        DataError: it is too large, or its pixels have no range; Pillow's errors if it is broken.
    """
    _check_size(image, how)
    image = in_colours(image, how.colours)
    if image.size != (how.side, how.side):
        image = ImageOps.fit(image, (how.side, how.side), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _has_more_frames(opened: Image.Image) -> bool:
    """Whether an open image, whose first frame is loaded, has others."""
    if opened.format in NO_FRAMES:
        return False
    try:
        return bool(getattr(opened, "is_animated", False))
    except Exception:  # what comes after the first frame is broken, and is not needed
        return False


def _check_size(image: Image.Image, how: Decoding) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > how.max_megapixels:
        raise DataError(
            f"{image.width} x {image.height} are {megapixels:.0f} megapixels, more than "
            f"data.options.max_megapixels={how.max_megapixels:g}; set it to {megapixels + 1:.0f} if "
            "you trust the file"
        )
