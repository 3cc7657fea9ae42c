"""A Pillow image in 8 bits, grey or RGB: the right way up, its full range, on a stated ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageOps

from dogo_fed.errors import ConfigError, DataError

TYPE_RANGES = {"I;16": (0.0, 65535.0), "F": (0.0, 1.0)}
"""Black and white of the types with more than 8 bits. A 32-bit integer has no range of its own."""
_BITS_PER_SAMPLE = 258
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours:
    """What becomes of colours, ranges and transparency.

    Attributes:
        channels: 3, or 1 for grey.
        value_range: what becomes black and white in images of more than 8 bits; None is the range
            of their type.
        ground: colour behind transparent pixels, by name or as "#rrggbb".
    """

    channels: int = 3
    value_range: tuple[float, float] | None = None
    ground: str = "white"

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: one is impossible.
        """
        if self.channels not in (1, 3):
            raise ConfigError(f"data.options.channels must be 1 or 3, not {self.channels}")
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


def in_colours(image: Image.Image, how: Colours) -> Image.Image:
    """Returns an image as its EXIF orientation says it is seen, in 8 bits, without transparency.

    Raises:
        DataError: its pixels have no range, or lie outside it; the message asks for one.
    """
    stored_as, bits = image.format, _bits_of(image)
    image = ImageOps.exif_transpose(image)  # which loads it
    if image.mode in (*SIXTEEN_BITS, "I", "F"):
        image = _in_eight_bits(image, stored_as, bits, how)
    has_alpha = image.mode in WITH_ALPHA or "transparency" in image.info
    if has_alpha:
        seen = image.convert("RGBA")
        ground = Image.new("RGBA", seen.size, (*ImageColor.getrgb(how.ground)[:3], 255))
        image = Image.alpha_composite(ground, seen)
    return image.convert("RGB" if how.channels == 3 else "L")


def eight_bits(values: npt.NDArray[Any], black: float, white: float) -> npt.NDArray[np.uint8]:
    """Returns numbers in 8 bits: black and what is below it become 0, white and above 255.

    NaN becomes 0 as well.
    """
    share = (values.astype(np.float64) - black) / (white - black)
    share = np.nan_to_num(np.clip(share, 0.0, 1.0), nan=0.0)
    return np.rint(share * 255.0).astype(np.uint8)


def _bits_of(image: Image.Image) -> int | None:
    """Returns how many bits a TIFF file has for each grey, as microscopes write them; else None."""
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
    return bits[0] if isinstance(bits, tuple) and len(bits) == 1 else None


def _in_eight_bits(
    image: Image.Image, stored_as: str | None, bits: int | None, how: Colours
) -> Image.Image:
    """Returns an image of more than 8 bits as grey of 8, its range spread over all of them.

    A number that stands for transparent pixels becomes a channel of its own, since two numbers may
    become one grey.
    """
    values: npt.NDArray[Any] = np.asarray(image).astype(np.float64)
    black, white = how.value_range or _range_of_type(image.mode, stored_as, bits, values)
    grey = Image.fromarray(eight_bits(values, black, white))
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        grey.putalpha(Image.fromarray((values != hidden).astype(np.uint8) * 255))
    return grey


def _range_of_type(
    mode: str, stored_as: str | None, bits: int | None, values: npt.NDArray[Any]
) -> tuple[float, float]:
    """Returns the range of the type of an image's pixels.

    Raises:
        DataError: it has none, or the values lie outside, or are no numbers.
    """
    mode = "I;16" if mode in SIXTEEN_BITS else mode
    numbers = values[np.isfinite(values)]
    if not numbers.size:
        raise DataError("none of its pixels is a number (all are NaN or infinite)")
    low, high = float(numbers.min()), float(numbers.max())
    without = values.size - numbers.size
    if mode == "I" and stored_as in ("PNG", "PPM"):  # 16 bits, which older Pillows read as 32
        mode = "I;16"
    limits = TYPE_RANGES.get(mode)
    if mode == "I;16" and bits is not None and bits < 16:
        limits = (0.0, 2.0**bits - 1.0)
    if limits is None or without or not (limits[0] <= low and high <= limits[1]):
        kind = "32-bit integers" if mode == "I" else "floating-point numbers"
        no_numbers = f", and {without} of them are NaN or infinite" if without else ""
        white = high if high > low else low + 1.0
        raise DataError(
            f"its pixels are {kind} from {low:g} to {high:g}{no_numbers}; say which are black and "
            f"white, for example data.options.value_range=[{low:g},{white:g}]"
            + (" (NaN becomes black)" if without else "")
        )
    return limits


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
