"""Random crop, flip and rotation of a batch of images, as one affine warp with one resampling."""

# B = images in the batch, C = channels, H, W = pixels, T = tries

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from dogo_fed.data.to_device import to_device

MAX_LOG_RATIO = math.log(4.0 / 3.0)
"""Crops have aspect ratios between 3:4 and 4:3."""
TRIES = 10
"""How many crops are drawn for an image before it is taken whole. As in torchvision."""


def random_warps(
    batch: int,
    side: int,
    *,
    min_scale: float = 1.0,
    redraw: bool = True,
    flip_probability: float = 0.0,
    max_rotation_degrees: float = 0.0,
) -> torch.Tensor:
    """Returns a random crop, flip and rotation for every image, as affine matrices B x 2 x 3.

    A matrix maps places in the view to places in the image, both spanning -1..1. A crop's area is
    drawn uniformly from [min_scale, 1] of the image's, its aspect ratio log-uniformly from [3/4,
    4/3] ("random resized crop", Szegedy et al. 2015, "Going deeper with convolutions"). Everything
    is drawn on the CPU, so it is the same for any device.

    Args:
        batch: B.
        side: of the square images, in pixels.
        min_scale: smallest area of a crop as a share of the image; 1 is no crop.
        redraw: a crop that is longer than the image is drawn again, and crops lie on whole pixels,
            as in torchvision. If not, it is cut at the image's side.
        flip_probability: of mirroring left and right.
        max_rotation_degrees: the image is turned by up to this much to either side.
    """
    sides_2B = (
        _redrawn_sides(batch, side, min_scale) if redraw else _clamped_sides(batch, min_scale)
    )
    if min_scale == 1.0:
        sides_2B = torch.ones(2, batch)
    mirror_B = torch.where(torch.rand(batch) < flip_probability, -1.0, 1.0)
    angle_B = torch.empty(batch).uniform_(-1.0, 1.0) * math.radians(max_rotation_degrees)
    place_2B = torch.empty(2, batch).uniform_(-1.0, 1.0)
    middle_2B = _on_pixels(place_2B, sides_2B, side) if redraw else place_2B * (1.0 - sides_2B)
    width_B, height_B = sides_2B
    across_B = width_B * mirror_B
    x_3B = [angle_B.cos() * across_B, -angle_B.sin() * height_B, middle_2B[0]]
    y_3B = [angle_B.sin() * across_B, angle_B.cos() * height_B, middle_2B[1]]
    return torch.stack([torch.stack(x_3B, dim=1), torch.stack(y_3B, dim=1)], dim=1)


def warp(images_BCHW: torch.Tensor, theta_B23: torch.Tensor, image_size: int) -> torch.Tensor:
    """Returns the images seen through the matrices, bilinearly; outside, the border continues.

    Of images that are larger than the view, every pixel of the view is the mean of several places,
    so that fine structure does not turn into noise.
    """
    finer = -(-images_BCHW.shape[-1] // image_size)
    grid_BHW2 = _places(to_device(theta_B23, images_BCHW.device), image_size * finer)
    seen_BCHW = F.grid_sample(images_BCHW, grid_BHW2, padding_mode="border", align_corners=False)
    return seen_BCHW if finer == 1 else F.avg_pool2d(seen_BCHW, finer)


def _places(theta_B23: torch.Tensor, side: int) -> torch.Tensor:
    """Returns where every pixel of a view lies in the image (B x H x W x 2), both spanning -1..1.

    These are the numbers of `F.affine_grid`, which multiplies matrices of three columns; on a CPU that
    takes longer than looking the pixels up.
    """
    middles_W = torch.arange(1, 2 * side, 2, device=theta_B23.device) / side - 1.0
    across_B211, down_B211, offset_B211 = theta_B23[..., None, None].unbind(2)
    places_B2HW = middles_W * across_B211 + (middles_W[:, None] * down_B211 + offset_B211)
    return places_B2HW.permute(0, 2, 3, 1)


def _redrawn_sides(batch: int, side: int, min_scale: float) -> torch.Tensor:
    """Returns width and height (2 x B) of a crop of each image, as shares of its side.

    The first of `TRIES` draws that fits is taken; if none does, the whole image is.
    """
    area_TB = torch.empty(TRIES, batch).uniform_(min_scale, 1.0)
    ratio_TB = torch.empty(TRIES, batch).uniform_(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    pixels_2TB = (side * torch.stack([area_TB * ratio_TB, area_TB / ratio_TB]).sqrt()).round()
    fits_TB = ((pixels_2TB >= 1) & (pixels_2TB <= side)).all(dim=0)
    first_B = fits_TB.int().argmax(dim=0)
    pixels_2B = pixels_2TB[:, first_B, torch.arange(batch)]
    return torch.where(fits_TB.any(dim=0), pixels_2B / side, 1.0)


def _clamped_sides(batch: int, min_scale: float) -> torch.Tensor:
    """Returns width and height (2 x B) of a crop of each image, cut where they are above 1."""
    area_B = torch.empty(batch).uniform_(min_scale, 1.0)
    ratio_B = torch.empty(batch).uniform_(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return torch.stack([area_B * ratio_B, area_B / ratio_B]).sqrt().clamp(max=1.0)


def _on_pixels(place_2B: torch.Tensor, sides_2B: torch.Tensor, side: int) -> torch.Tensor:
    """Returns the middles (-1..1) of crops that begin at a whole pixel, each equally likely.

    Args:
        place_2B: uniform draws from -1..1.
        sides_2B: width and height of the crops, as shares of the image's side.
        side: of the image, in pixels.
    """
    pixels_2B = (sides_2B * side).round()
    room_2B = side - pixels_2B
    first_2B = torch.minimum(((place_2B + 1.0) / 2.0 * (room_2B + 1.0)).floor(), room_2B)
    return (2.0 * first_2B + pixels_2B) / side - 1.0
