"""DICOM files as Pillow images, by pydicom, which is an extra: pip install 'dogo-fed[dicom]'."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from dogo_fed.errors import DataError

SUFFIX = ".dcm"
_MAGIC_AT, _MAGIC = 128, b"DICM"


@functools.cache
def has_pydicom() -> bool:
    """Whether DICOM files can be read here."""
    return importlib.util.find_spec("pydicom") is not None


def is_dicom(path: Path) -> bool:
    """Whether a file is called one, or has no ending and begins like one."""
    if path.suffix:
        return path.suffix.lower() == SUFFIX
    try:
        with path.open("rb") as file:
            return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC
    except OSError:
        return False


def read_dicom(path: Path, value_range: tuple[float, float] | None = None) -> Image.Image:
    """Returns the first frame of a DICOM file, as a radiologist sees it, grey or RGB in 8 bits.

    Stored values become those of the modality (Hounsfield units, for example). What is black and
    white among them says, in this order: `value_range`, the file's own lookup table or window, the
    range of its stored bits (DICOM PS3.3, C.11). MONOCHROME1 is turned over, so that low values are
    bright.

    Raises:
        DataError: it has no pixels, or they are compressed in a way that can't be read here.
    """
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut, convert_color_space
    from pydicom.pixels.utils import pixel_array

    try:
        header = pydicom.dcmread(path)
        frames = int(header.get("NumberOfFrames", 1) or 1)
        stored = pixel_array(header, index=0) if frames > 1 else pixel_array(header)
        kind = str(header.PhotometricInterpretation)
        if stored.ndim == 3:
            if kind.startswith("YBR"):
                stored = convert_color_space(stored, kind, "RGB")
            return Image.fromarray(np.ascontiguousarray(stored.astype(np.uint8)))
        values = np.asarray(apply_modality_lut(stored, header), dtype=np.float64)
        if value_range is None:
            values, value_range = _as_shown(values, header)
    except Exception as error:  # pydicom raises many kinds, and so do its decoders
        raise DataError(f"DICOM: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    low, high = value_range
    share = np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)
    if kind == "MONOCHROME1":
        share = 1.0 - share
    return Image.fromarray(np.rint(share * 255.0).astype(np.uint8))


def _as_shown(
    values: npt.NDArray[np.float64], header: Any
) -> tuple[npt.NDArray[np.float64], tuple[float, float]]:
    """Returns values as the file wants them shown, and which are black and white among these."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut, apply_windowing

    if "VOILUTSequence" in header:
        bits = int(header.VOILUTSequence[0].LUTDescriptor[2])
        shown = apply_voi_lut(values.astype(np.int64), header)
        return np.asarray(shown, dtype=np.float64), (0.0, float(2**bits - 1))
    if "WindowWidth" in header:
        ends = apply_windowing(np.array([-1e30, 1e30]), header)  # what lies below and above
        return apply_windowing(values, header), (float(ends[0]), float(ends[1]))
    bits, is_signed = int(header.BitsStored), header.PixelRepresentation == 1
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if is_signed else [0, 2**bits - 1])
    low, high = np.asarray(apply_modality_lut(ends, header), dtype=np.float64)
    return values, (float(low), float(high))
