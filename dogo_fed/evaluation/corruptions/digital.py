"""Digital: contrast, elastic warps, large pixels, and JPEG's quantisation."""

# B = images, C = channels, H, W = pixels, Y, X = blocks of 8 pixels

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from dogo_fed.evaluation.corruptions.sampling import Draws, at, looked_up, place_grid, uniform

_CONTRAST = (0.75, 0.6, 0.45, 0.3, 0.18)
_ELASTIC = (0.03, 0.045, 0.06, 0.08, 0.1)
"""Farthest that a pixel moves, as a share of the side."""
_ELASTIC_POINTS = 5
_PIXELATE = (0.62, 0.5, 0.38, 0.3, 0.22)
"""New side as a share of the old."""
_JPEG_QUALITY = (50, 30, 18, 11, 7)

_BLOCK = 8
# Tables K.1 and K.2 of ITU-T T.81 (the JPEG standard), quality 50.
_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
) + (99,) * 32  # fmt: skip


def contrast(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Moves every pixel towards its channel's mean over the image."""
    mean_BC11 = images_BCHW.mean(dim=(2, 3), keepdim=True)
    return mean_BC11 + at(_CONTRAST, severity) * (images_BCHW - mean_BC11)


def elastic_transform(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Warps smoothly: a coarse grid of random displacements, enlarged with cubic splines."""
    size = images_BCHW.shape[-1]
    coarse = 2.0 * uniform(draws, 2, _ELASTIC_POINTS, _ELASTIC_POINTS) - 1.0
    shift_B2HW = F.interpolate(coarse, size=(size, size), mode="bicubic", align_corners=True)
    places_BHW2 = place_grid(size) + 2.0 * at(_ELASTIC, severity) * shift_B2HW.movedim(1, -1)
    return looked_up(images_BCHW, places_BHW2)


def pixelate(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Makes the picture smaller by area means, and larger again by repeating pixels."""
    size = images_BCHW.shape[-1]
    smaller = max(1, round(at(_PIXELATE, severity) * size))
    small = F.interpolate(images_BCHW, size=(smaller, smaller), mode="area")
    return F.interpolate(small, size=(size, size), mode="nearest-exact")


def jpeg_compression(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Does what JPEG loses: rounds the cosine transform of 8 x 8 blocks in luma and chroma.

    Without subsampling of the colours. Entropy coding loses nothing and is left out.
    """
    size = images_BCHW.shape[-1]
    padding = -size % _BLOCK
    padded_BCHW = F.pad(images_BCHW * 255.0, (0, padding, 0, padding), mode="replicate")
    is_colour = images_BCHW.shape[1] == 3
    levels_BCHW = _mixed(padded_BCHW, _RGB_TO_YCC) if is_colour else padded_BCHW - 128.0
    steps_C88 = _quantisation(_JPEG_QUALITY[severity - 1], levels_BCHW.shape[1], is_colour)
    dct_88 = _cosine_transform()
    blocks_BCYX88 = levels_BCHW.unfold(2, _BLOCK, _BLOCK).unfold(3, _BLOCK, _BLOCK)
    steps_C1188 = steps_C88[:, None, None]
    coefficients = dct_88 @ blocks_BCYX88 @ dct_88.T
    kept = (coefficients / steps_C1188).round() * steps_C1188
    decoded_BCYX88 = dct_88.T @ kept @ dct_88
    decoded_BCHW = decoded_BCYX88.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    rgb = _mixed(decoded_BCHW, _YCC_TO_RGB) if is_colour else decoded_BCHW + 128.0
    return rgb[:, :, :size, :size] / 255.0


# JFIF: luma and two colour differences, all centred at 0.
_RGB_TO_YCC = (
    ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312)),
    (-128.0, 0.0, 0.0),
)
_YCC_TO_RGB = (
    ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0)),
    (128.0, 128.0, 128.0),
)


def _mixed(
    images_BCHW: torch.Tensor, change: tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]
) -> torch.Tensor:
    """Returns the channels mixed by a 3 x 3 matrix, and shifted."""
    matrix, shift = change
    mixed = torch.einsum("dc,bchw->bdhw", torch.tensor(matrix), images_BCHW)
    return mixed + torch.tensor(shift)[:, None, None]


def _quantisation(quality: int, channels: int, is_colour: bool) -> torch.Tensor:
    """Returns the step sizes of every channel, C x 8 x 8, scaled for a quality from 1 to 100."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    chroma = _CHROMA if is_colour else _LUMA
    tables = torch.tensor([_LUMA, *[chroma] * (channels - 1)], dtype=torch.float32)
    steps = ((tables * scale + 50) / 100).floor().clamp(1, 255)
    return steps.view(channels, _BLOCK, _BLOCK)


def _cosine_transform() -> torch.Tensor:
    """Returns the orthonormal cosine transform (DCT-II) of 8 points, 8 x 8."""
    places = torch.arange(_BLOCK, dtype=torch.float32)
    angles = math.pi / _BLOCK * (places + 0.5) * places[:, None]
    matrix = torch.cos(angles) * math.sqrt(2 / _BLOCK)
    matrix[0] /= math.sqrt(2)
    return matrix
