"""DICOM files as Pillow images, by pydicom, which is an extra: pip install 'dogo-fed[dicom]'."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dogo_fed.data.colours import eight_bits
from dogo_fed.data.files.first_bytes import first_bytes
from dogo_fed.errors import DataError

SUFFIX = ".dcm"
CONTENTS = "DICOMDIR"
"""The file that says what is on a disc; it has no pixels."""
_MAGIC_AT, _MAGIC = 128, b"DICM"
_MAY_BE_EMPTY = (
    "ModalityLUTSequence", "RescaleIntercept", "RescaleSlope", "VOILUTSequence", "WindowCenter",
    "WindowWidth",
)  # fmt: skip
"""What says how grey is shown. A file may name it and leave its value empty."""


@functools.cache
def has_pydicom() -> bool:
    """Whether DICOM files can be read here."""
    return importlib.util.find_spec("pydicom") is not None


def is_dicom(path: Path) -> bool:
    """Whether a file is called one, or begins like one and is not called a picture.

    Scanners name files by numbers with dots, such as 1.2.840.113619.2.5, or with an ending of their
    own (.IMA).
    """
    ending = path.suffix.lower()
    if ending == SUFFIX:
        return True
    if ending in Image.registered_extensions() or path.name.upper() == CONTENTS:
        return False
    try:
        return first_bytes(path, _MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


def size_of_dicom(path: Path) -> tuple[int, int]:
    """Returns width and height as the head of a DICOM file says; its pixels are not read.

    Raises whatever pydicom raises on a file that is broken.
    """
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"])
    return int(header.Columns), int(header.Rows)


def read_dicom(
    path: Path, value_range: tuple[float, float] | None = None
) -> tuple[Image.Image, int]:
    """Returns the first frame of a DICOM file, grey or RGB in 8 bits, and how many frames it has.

    Grey is shown as a radiologist sees it. Stored values become those of the modality (Hounsfield
    units, for example). What is black and white among them says, in this order: `value_range`, the
    file's own lookup table or window, the range of its stored bits (DICOM PS3.3, C.11). MONOCHROME1
    is turned over, so that low values are bright.

    Colours of every kind become RGB. In more than 8 bits, `value_range` or the range of the stored
    bits says what is black and white. A palette has a range of its own.

    Raises:
        DataError: it has no pixels, or they are stored in a way that can't be read here.
    """
    import pydicom
    from pydicom.pixels.decoders.base import get_decoder

    try:
        header = pydicom.dcmread(path)
        _drop_empty(header)
        decoder = get_decoder(header.file_meta.TransferSyntaxUID)
        stored, became = decoder.as_array(header, index=0)
        kind = str(became["photometric_interpretation"])  # the header has what it was before
        if kind == "PALETTE COLOR":
            shown = _from_palette(stored, header)
        elif stored.ndim == 3:
            shown = _in_colour(stored, kind, header, value_range)
        else:
            shown = _in_grey(stored, kind, header, value_range)
        return Image.fromarray(shown), int(header.get("NumberOfFrames", 1) or 1)
    except Exception as error:  # pydicom raises many kinds, and so do its decoders
        first_line = next(iter(str(error).splitlines()), "")
        needs = "; pip install 'pylibjpeg[all]' reads it" if _lacks_decoder(error) else ""
        raise DataError(f"DICOM: {type(error).__name__}: {first_line}{needs}") from error


def _lacks_decoder(error: Exception) -> bool:
    """Whether pydicom says that libraries for this compression are not installed."""
    return "missing dependencies" in str(error)


def _drop_empty(header: Any) -> None:
    """Removes what a file names without a value, which then means the same as not naming it."""
    for name in _MAY_BE_EMPTY:
        if name in header and header[name].is_empty:
            delattr(header, name)


def _from_palette(stored: npt.NDArray[Any], header: Any) -> npt.NDArray[np.uint8]:
    """Returns the colours that stored numbers stand for: H x W x 3."""
    from pydicom.pixels.processing import apply_color_lut

    colours = apply_color_lut(stored, header)[..., :3]  # a fourth is transparency
    bits = int(header.RedPaletteColorLookupTableDescriptor[2])
    return eight_bits(colours, 0.0, 2.0**bits - 1.0)


def _in_colour(
    stored: npt.NDArray[Any], kind: str, header: Any, value_range: tuple[float, float] | None
) -> npt.NDArray[np.uint8]:
    """Returns colours in 8 bits: H x W x 3.

    Raises:
        ValueError: they are no RGB, and the decoder has not made them RGB.
    """
    if kind != "RGB":
        raise ValueError(f"colours of the kind {kind} can't be read; store the file as RGB")
    bits = int(header.BitsStored)
    if bits == 8 and stored.dtype == np.uint8:
        return np.ascontiguousarray(stored)
    white = 2.0**bits - 1.0
    return eight_bits(stored, *(value_range if value_range and bits > 8 else (0.0, white)))


def _in_grey(
    stored: npt.NDArray[Any], kind: str, header: Any, value_range: tuple[float, float] | None
) -> npt.NDArray[np.uint8]:
    """Returns grey in 8 bits: H x W."""
    from pydicom.pixels.processing import apply_modality_lut

    values = np.asarray(apply_modality_lut(stored, header), dtype=np.float64)
    if value_range is None:
        values, value_range = _as_shown(values, header)
    low, high = value_range
    share = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    if kind == "MONOCHROME1":
        share = 1.0 - share
    return np.rint(np.nan_to_num(share, nan=0.0) * 255.0).astype(np.uint8)


def _as_shown(
    values: npt.NDArray[np.float64], header: Any
) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """Returns values as the file wants them shown, and which are black and white among these."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing

    if "VOILUTSequence" in header:
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        shown = apply_voi_lut(values.astype(np.int64), header)
        return np.asarray(shown, dtype=np.float64), (0.0, float(2**bits - 1))
    if "WindowWidth" in header and "WindowCenter" in header:
        ends = apply_windowing(np.array([-1e30, 1e30]), header)  # what lies below and above
        return apply_windowing(values, header), (float(ends[0]), float(ends[1]))
    bits, is_signed = int(header.BitsStored), header.PixelRepresentation == 1
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if is_signed else [0, 2**bits - 1])
    low, high = np.asarray(apply_modality_lut(ends, header), dtype=np.float64)
    return values, (float(low), float(high))
