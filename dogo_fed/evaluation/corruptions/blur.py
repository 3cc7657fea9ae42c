"""Blur: out of focus, through frosted glass, by moving, by zooming."""

# B = images, C = channels, H, W = pixels, I = iterations

from __future__ import annotations

import math

import torch

from dogo_fed.evaluation.corruptions.sampling import (
    Draws,
    at,
    disk_kernel,
    filtered,
    gaussian_kernel,
    mean_over,
    place_grid,
    streaked,
    uniform,
)

# Shares of the image's side, except where said.
_RADIUS = (0.025, 0.04, 0.055, 0.075, 0.1)
_GLASS_REACH = (0.02, 0.025, 0.035, 0.05, 0.06)
_GLASS_SIGMA = (0.0125, 0.016, 0.019, 0.022, 0.025)
_GLASS_ITERATIONS = (1, 2, 3, 2, 3)
_MOTION = (0.1, 0.15, 0.2, 0.27, 0.35)
_ZOOM = (0.08, 0.14, 0.2, 0.27, 0.35)
"""Largest magnification minus 1."""
_ZOOM_READINGS = 9


def defocus_blur(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Convolves with a disk, the image of a point that is out of focus."""
    return filtered(images_BCHW, disk_kernel(at(_RADIUS, severity) * images_BCHW.shape[-1]))


def glass_blur(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Blurs, lets every pixel look at a random neighbour a few times, and blurs again."""
    size = images_BCHW.shape[-1]
    reach = max(1, round(at(_GLASS_REACH, severity) * size))
    kernel = gaussian_kernel(at(_GLASS_SIGMA, severity) * size)
    draw_BI2HW = uniform(draws, max(_GLASS_ITERATIONS), 2, size, size)
    shift_BI2HW = (draw_BI2HW * (2 * reach + 1)).floor().long().clamp_max(2 * reach) - reach
    line = torch.arange(size)
    blurred_BCHW = filtered(images_BCHW, kernel)
    for index in range(_GLASS_ITERATIONS[severity - 1]):
        row_BHW = (line[:, None] + shift_BI2HW[:, index, 0]).clamp(0, size - 1)
        column_BHW = (line + shift_BI2HW[:, index, 1]).clamp(0, size - 1)
        source_BC = (row_BHW * size + column_BHW).flatten(1)[:, None]
        flat = blurred_BCHW.flatten(2)
        blurred_BCHW = flat.gather(2, source_BC.expand_as(flat)).view_as(images_BCHW)
    return filtered(blurred_BCHW, kernel)


def motion_blur(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Smears along a line in a random direction."""
    angle_B = math.pi * uniform(draws)
    return streaked(images_BCHW, at(_MOTION, severity) * images_BCHW.shape[-1], angle_B)


def zoom_blur(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Takes the mean over magnifications from 1 upwards, as if zooming while the shutter is open."""
    grid_HW2 = place_grid(images_BCHW.shape[-1])
    most = at(_ZOOM, severity)
    number = len(images_BCHW)

    def places(t: float) -> torch.Tensor:
        return (grid_HW2 / (1.0 + most * (t + 0.5))).expand(number, -1, -1, -1)

    return mean_over(images_BCHW, _ZOOM_READINGS, places)
