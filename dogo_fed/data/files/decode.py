"""One image file as pixels: the right way up, in its full range, on a stated ground."""

# C = channels, H, W = pixels

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError

from dogo_fed.data.map_style import UInt8Array
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.text import one_line

MOST_MEGAPIXELS = 179.0
"""Images above this size are refused unless asked for: a small file can hold a very large image."""
TYPE_RANGES = {"I;16": (0.0, 65535.0), "F": (0.0, 1.0)}
"""Black and white of the types with more than 8 bits. A 32-bit integer has no range of its own."""
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")

_limit = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How files become pixels.

    Attributes:
        side: of the square images, in pixels.
        channels: 3, or 1 for grey.
        value_range: what becomes black and white in images of more than 8 bits; None is the range
            of their type.
        ground: colour behind transparent pixels, by name or as "#rrggbb".
        max_megapixels: larger images are refused.
    """

    side: int
    channels: int = 3
    value_range: tuple[float, float] | None = None
    ground: str = "white"
    max_megapixels: float = MOST_MEGAPIXELS

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: one is impossible.
        """
        if self.side < 1:
            raise ConfigError(f"images must be at least 1 pixel wide, not {self.side}")
        if self.channels not in (1, 3):
            raise ConfigError(f"data.options.channels must be 1 or 3, not {self.channels}")
        if not self.max_megapixels > 0:
            raise ConfigError(
                f"data.options.max_megapixels must be above 0, not {self.max_megapixels}"
            )
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ConfigError(
                "data.options.value_range must be [black, white] with black below white, not "
                f"{list(self.value_range)}"
            )
        try:
            ImageColor.getrgb(self.ground)
        except ValueError as error:
            raise ConfigError(
                f"data.options.ground must be a colour such as white or '#808080', not "
                f"{self.ground!r}"
            ) from error

    @property
    def key(self) -> str:
        """What tells these pixels from those that are decoded in another way."""
        return f"{self.side} {self.channels} {self.value_range} {self.ground}"


def value_range_of(given: Sequence[float] | None) -> tuple[float, float] | None:
    """Returns the setting `value_range` as a pair.

    Raises:
        ConfigError: it is not two numbers.
    """
    if given is None:
        return None
    if isinstance(given, str) or len(given) != 2 or not all(map(_is_number, given)):
        raise ConfigError(f"data.options.value_range must be [black, white], not {given!r}")
    return float(given[0]), float(given[1])


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


def size_of(path: Path) -> tuple[int, int] | None:
    """Returns width and height as seen, from the file's head; None if it can't be read."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except Exception:  # `decode` will say what is wrong with it
        return None


def decode(path: Path, how: Decoding) -> UInt8Array:
    """Returns one image: uint8, C x side x side.

    The image is turned as its EXIF orientation says. It is resized so that the shorter side fits,
    then cropped to the centre. Of several frames the first is taken.

    Raises:
        DataError: it can't be decoded; the message does not name the file.
    """
    try:
        with Image.open(path) as opened:
            _check_size(opened, how)
            image = ImageOps.exif_transpose(opened)
            image = _as_colours(image, how)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        is_empty = path.stat().st_size == 0
        raise DataError("it is empty" if is_empty else "it is no image that can be read") from error
    except OSError as error:
        raise DataError(one_line(error.strerror or error, 200)) from error
    except Exception as error:  # plugins raise nearly anything on a broken file
        raise DataError(one_line(f"{type(error).__name__}: {error}", 200)) from error
    if image.size != (how.side, how.side):
        image = ImageOps.fit(image, (how.side, how.side), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _check_size(image: Image.Image, how: Decoding) -> None:
    megapixels = image.width * image.height / 1e6
    if megapixels > how.max_megapixels:
        raise DataError(
            f"{image.width} x {image.height} are {megapixels:.0f} megapixels, more than "
            f"data.options.max_megapixels={how.max_megapixels:g}; set it to {megapixels + 1:.0f} if "
            "you trust the file"
        )


def _as_colours(image: Image.Image, how: Decoding) -> Image.Image:
    """Returns an image in 8 bits, grey or RGB, without transparency."""
    image.load()
    if image.mode in (*SIXTEEN_BITS, "I", "F"):
        image = _in_eight_bits(image, how)
    has_alpha = image.mode in WITH_ALPHA or "transparency" in image.info
    if has_alpha:
        seen = image.convert("RGBA")
        ground = Image.new("RGBA", seen.size, (*ImageColor.getrgb(how.ground)[:3], 255))
        image = Image.alpha_composite(ground, seen)
    return image.convert("RGB" if how.channels == 3 else "L")


def _in_eight_bits(image: Image.Image, how: Decoding) -> Image.Image:
    """Returns an image of more than 8 bits as grey of 8, its range spread over all of them."""
    values: npt.NDArray[Any] = np.asarray(image).astype(np.float64)
    limits = how.value_range or _range_of_type(image, values)
    black, white = limits
    share = (values - black) / (white - black)
    return Image.fromarray(np.rint(np.clip(share, 0.0, 1.0) * 255.0).astype(np.uint8))


def _range_of_type(image: Image.Image, values: npt.NDArray[Any]) -> tuple[float, float]:
    """Returns the range of the image's type.

    Raises:
        DataError: it has none, or the values lie outside.
    """
    mode = "I;16" if image.mode in SIXTEEN_BITS else image.mode
    low, high = float(values.min()), float(values.max())
    if mode == "I" and image.format in ("PNG", "PPM"):  # 16 bits, which older Pillows read as 32
        mode = "I;16"
    limits = TYPE_RANGES.get(mode)
    if limits is None or not (limits[0] <= low and high <= limits[1]):
        kind = "32-bit integers" if mode == "I" else "floating-point numbers"
        raise DataError(
            f"its pixels are {kind} from {low:g} to {high:g}; say which are black and white, for "
            f"example data.options.value_range=[{low:g},{high:g}]"
        )
    return limits


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
