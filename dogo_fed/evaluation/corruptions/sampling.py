"""What several corruptions share: draws per image, convolution, shifted sampling, smooth noise."""

# B = images, C = channels, H, W = pixels, K = side of a kernel

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F

Draws: TypeAlias = Sequence[torch.Generator]
"""A random generator for each image, so that its neighbours in the batch do not matter."""


def at(table: Sequence[float], severity: int) -> float:
    """Returns the value for a severity from 1 to 5."""
    return table[severity - 1]


def normal(draws: Draws, *shape: int) -> torch.Tensor:
    """Returns standard normal numbers, B x shape; image b's come from its own generator."""
    return torch.stack([torch.randn(shape, generator=generator) for generator in draws])


def uniform(draws: Draws, *shape: int) -> torch.Tensor:
    """Returns uniform numbers in 0..1, B x shape; image b's come from its own generator."""
    return torch.stack([torch.rand(shape, generator=generator) for generator in draws])


def filtered(images_BCHW: torch.Tensor, kernel_KK: torch.Tensor) -> torch.Tensor:
    """Returns images convolved with a kernel of odd side, every channel alike; edges are repeated."""
    half = kernel_KK.shape[-1] // 2
    channels = images_BCHW.shape[1]
    padded_BCHW = F.pad(images_BCHW, (half, half, half, half), mode="replicate")
    weight = kernel_KK.expand(channels, 1, -1, -1).contiguous()
    return F.conv2d(padded_BCHW, weight, groups=channels)


def gaussian_kernel(sigma: float) -> torch.Tensor:
    """Returns a Gaussian of this standard deviation (pixels), cut off after 3 of them."""
    half = max(1, math.ceil(3 * sigma))
    places = torch.arange(-half, half + 1, dtype=torch.float32)
    line = torch.exp(-0.5 * (places / sigma).square())
    kernel = line[:, None] * line
    return kernel / kernel.sum()


def disk_kernel(radius: float) -> torch.Tensor:
    """Returns a disk of this radius (pixels); a pixel counts by how much of it the disk covers."""
    half = math.ceil(radius)
    fine = 8  # sub-pixels a side
    places = (torch.arange((2 * half + 1) * fine) + 0.5) / fine - half - 0.5
    inside = (places[:, None].square() + places.square() <= radius * radius).float()
    kernel = F.avg_pool2d(inside[None, None], fine)[0, 0]
    return kernel / kernel.sum()


def place_grid(size: int) -> torch.Tensor:
    """Returns the places (x, y) of the pixels of a square image, H x W x 2, in -1..1."""
    line = (2 * torch.arange(size) + 1) / size - 1
    y_HW, x_HW = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x_HW, y_HW], dim=-1)


def looked_up(images_BCHW: torch.Tensor, places_BHW2: torch.Tensor) -> torch.Tensor:
    """Returns the images read at these places (x, y in -1..1), bilinearly; edges are repeated."""
    return F.grid_sample(
        images_BCHW, places_BHW2, mode="bilinear", padding_mode="border", align_corners=False
    )


def mean_over(
    images_BCHW: torch.Tensor, number: int, places: Callable[[float], torch.Tensor]
) -> torch.Tensor:
    """Returns the mean of `number` readings; `places(t)` gives those of time t from -0.5 to 0.5."""
    total = torch.zeros_like(images_BCHW)
    for index in range(number):
        total += looked_up(images_BCHW, places(index / (number - 1) - 0.5))
    return total / number


def streaked(images_BCHW: torch.Tensor, length: float, angle_B: torch.Tensor) -> torch.Tensor:
    """Returns images smeared along a line of `length` pixels in each image's own direction."""
    size = images_BCHW.shape[-1]
    grid_HW2 = place_grid(size)
    step_B2 = torch.stack([angle_B.cos(), angle_B.sin()], dim=1) * (2 * length / size)
    return mean_over(
        images_BCHW, 2 * math.ceil(length) + 1, lambda t: grid_HW2 + t * step_B2[:, None, None, :]
    )


def fractal_noise(draws: Draws, size: int, persistence: float) -> torch.Tensor:
    """Returns cloudy noise, B x size x size, from 0 to 1 in every image.

    A sum of random grids of 2, 3, 5, 9... points a side, enlarged smoothly, each weaker than the
    coarser one by `persistence`.
    """
    total = torch.zeros(len(draws), 1, size, size)
    points, weight = 2, 1.0
    while points <= size:
        grid = uniform(draws, 1, points, points)
        total += weight * F.interpolate(
            grid, size=(size, size), mode="bilinear", align_corners=True
        )
        points, weight = 2 * points - 1, weight * persistence
    low = total.amin(dim=(2, 3), keepdim=True)
    high = total.amax(dim=(2, 3), keepdim=True)
    return ((total - low) / (high - low).clamp_min(1e-6))[:, 0]
