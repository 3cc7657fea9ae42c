"""Colours of 16 bits that Pillow reads in part, or not as they are stored.

Pillow has no mode for such colours. It keeps the upper byte of each number, which is right for the
range of the type and for no other.
"""

# H, W = pixels, C = channels

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from dogo_fed.data.colours import eight_bits
from dogo_fed.data.files.first_bytes import first_bytes
from dogo_fed.errors import DataError

_STORED = re.compile(r"(RGB|RGBA|RGBX|R|G|B|A);16([BLN])")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_GREY_AND_ALPHA = "LA;16B"
_BITS_PER_SAMPLE, _PLANAR, _IN_PLANES = 258, 284, 2
_CODE_STREAM, _BITS_AT, _HEAD = b"\xff\x4f\xff\x51", 42, 2**16
"""How JPEG 2000 begins, how far from there the bits of a colour are named, and where to look."""


def mend_planes(opened: Image.Image) -> None:
    """Says of a TIFF file that has colours in planes of 16 bits that they have so many.

    Pillow takes them for 8 bits if they are not compressed, and shows noise.

    Args:
        opened: not loaded yet.
    """
    tags = _tags(opened)
    if tags.get(_PLANAR) == _IN_PLANES and set(tags.get(_BITS_PER_SAMPLE, ())) == {16}:
        order = "L" if tags.prefix == b"II" else "B"
        _store_as(opened, {band: f"{band};16{order}" for band in "RGBA"})


def spread_colours(opened: Image.Image, file: Path | BinaryIO, limits: tuple[float, float]) -> None:
    """Spreads a range over the 8 bits that an open image has of each colour.

    Images of 8 bits, and those in a mode of Pillow's for more, stay as they are.

    Args:
        opened: not loaded yet.
        file: where it comes from.
        limits: what becomes black and white.

    Raises:
        DataError: it has more than 8 bits, which can't be read here.
    """
    if opened.mode.startswith(("I", "F")) or not _has_more_bits(opened, file):
        return
    values_HWC = _all_bits(opened, file)
    if values_HWC is None:
        raise DataError(
            f"its colours have more than 8 bits, of which 8 can be read from such a {opened.format} "
            "file, so data.options.value_range can't be kept; save it as PNG with 16 bits, or leave "
            "value_range out"
        )
    shown_HWC = eight_bits(np.arange(2**16), *limits)[values_HWC]
    if shown_HWC.shape[-1] == 4:
        shown_HWC[..., 3] = values_HWC[..., 3] >> 8  # the range is not that of transparency
    hidden = opened.info.pop("transparency", None)
    opened.frombytes(shown_HWC.tobytes())
    if hidden is not None:
        is_seen_HW = (values_HWC != np.asarray(hidden)).any(axis=-1)
        opened.putalpha(Image.fromarray(is_seen_HW.astype(np.uint8) * 255))


def _has_more_bits(opened: Image.Image, file: Path | BinaryIO) -> bool:
    """Whether a file has more than 8 bits of each colour."""
    for codec, _, _, given in _tiles(opened):
        if codec == "jpeg2k":
            return _bits_of_jpeg_2000(file) > 8
        if codec in ("ppm", "ppm_plain"):
            return bool(given[-1] > 255)
        if codec == "SGI16" or (codec == "sgi_rle" and given[-1] == 2):
            return True
    return any(";16" in kind for kind in _kinds(opened))


def _all_bits(opened: Image.Image, file: Path | BinaryIO) -> npt.NDArray[np.uint16] | None:
    """Returns the colours of an image in 16 bits, H x W x C; None if they can't be had.

    The file is decoded twice, the second time as numbers whose bytes are the other way round. Of
    these Pillow keeps the byte that it has dropped before.
    """
    swapped: dict[str, str] = {}
    for kind in _kinds(opened):
        found = _STORED.fullmatch(kind)
        if found is not None:
            swapped[kind] = f"{found[1]};16{_OTHER_ORDER[found[2]]}"
        elif kind == _GREY_AND_ALPHA and opened.mode == "RGBA":
            swapped[kind] = "RGBA"  # the four bytes of a pixel
    is_in_planes = _tags(opened).get(_PLANAR) == _IN_PLANES
    if is_in_planes and _tiles(opened)[0][0] == "libtiff":  # it has a way of its own with them
        return None
    if not swapped:
        return None
    high_HWC = np.asarray(opened).astype(np.uint16)
    with Image.open(file) as again:
        mend_planes(again)
        _store_as(again, swapped)
        low_HWC: npt.NDArray[Any] = np.asarray(again)
    if _GREY_AND_ALPHA in swapped:
        low_HWC = low_HWC[..., [1, 1, 1, 3]]
    values_HWC: npt.NDArray[np.uint16] = (high_HWC << 8) | low_HWC
    return values_HWC


def _tags(opened: Any) -> Any:
    """Returns the tags of a TIFF file; none of another."""
    return getattr(opened, "tag_v2", {})


def _tiles(opened: Any) -> list[Any]:
    """Returns the parts of an open file: codec, place, offset, and what the codec is given."""
    return getattr(opened, "tile", [])


def _kinds(opened: Image.Image) -> list[str]:
    """Returns Pillow's words for the kinds of pixels that are stored in the parts of a file."""
    given = [tile[3] for tile in _tiles(opened)]
    kinds = [one[0] if isinstance(one, tuple) and one else one for one in given]
    return [kind for kind in kinds if isinstance(kind, str)]


def _store_as(opened: Image.Image, kinds: Mapping[str, str]) -> None:
    """Puts other words for the kinds of pixels that are stored in the parts of a file."""
    tiles = _tiles(opened)
    for number, tile in enumerate(tiles):
        kind, *others = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        kind = kinds.get(kind, kind)
        changed = (*tile[:3], (kind, *others) if isinstance(tile[3], tuple) else kind)
        tiles[number] = tile._make(changed) if hasattr(tile, "_make") else changed


def _bits_of_jpeg_2000(file: Path | BinaryIO) -> int:
    """Returns the bits of the first colour of a JPEG 2000 file."""
    head = first_bytes(file, _HEAD)
    at = head.find(_CODE_STREAM) + _BITS_AT
    return (head[at] & 0x7F) + 1 if _BITS_AT <= at < len(head) else 8
