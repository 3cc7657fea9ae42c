"""Weather: snow, frost and fog as simple procedures, and brightness.

The paper overlays photographs of frost; these have none, so frost is drawn as bright veins.
"""

# B = images, C = channels, H, W = pixels

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from dogo_fed.evaluation.corruptions.sampling import Draws, at, fractal_noise, streaked, uniform

_SNOW_FLAKES = (0.02, 0.035, 0.055, 0.08, 0.11)
"""Share of the cells of the flake grid that hold one."""
_SNOW_WHITENING = (0.1, 0.16, 0.22, 0.29, 0.36)
_SNOW_CELLS = 48
"""Most cells a side; larger images get larger flakes."""
_FLAKE_STREAK = 0.08
_FLAKE_BRIGHTNESS = 2.5
"""Before the streak spreads it out."""
_FROST = (0.2, 0.32, 0.43, 0.53, 0.62)
_FROST_COLOUR = (0.8, 0.9, 1.0)
_FOG = (0.25, 0.5, 0.8, 1.2, 1.8)
_FOG_PERSISTENCE = 0.6
_BRIGHTER = (0.1, 0.17, 0.24, 0.32, 0.4)


def snow(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Lightens the picture and adds flakes that fall in one slanting direction per image."""
    size = images_BCHW.shape[-1]
    angle_B = math.pi * (0.25 + 0.5 * uniform(draws))
    cells = min(size, _SNOW_CELLS)
    draw_B1HW = uniform(draws, 1, cells, cells)
    flakes_B1HW = (draw_B1HW > 1 - at(_SNOW_FLAKES, severity)).float()
    flakes_B1HW = F.interpolate(
        flakes_B1HW, size=(size, size), mode="bilinear", align_corners=False
    )
    flakes_B1HW = _FLAKE_BRIGHTNESS * streaked(flakes_B1HW, _FLAKE_STREAK * size, angle_B)
    grey_B1HW = images_BCHW.mean(dim=1, keepdim=True)
    whitened_BCHW = torch.maximum(images_BCHW, 0.5 + 0.5 * grey_B1HW)
    lighter_BCHW = torch.lerp(images_BCHW, whitened_BCHW, at(_SNOW_WHITENING, severity))
    return lighter_BCHW + flakes_B1HW


def frost(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Covers the picture partly with bright bluish veins."""
    ice_BHW = fractal_noise(draws, images_BCHW.shape[-1], persistence=0.8)
    veins_B1HW = (1.0 - (2.0 * ice_BHW - 1.0).abs()).square()[:, None]
    colour = torch.tensor(_FROST_COLOUR)
    channels = images_BCHW.shape[1]
    tint_C11 = (colour if channels == 3 else colour.mean().expand(channels))[:, None, None]
    return torch.lerp(images_BCHW, veins_B1HW * tint_C11, at(_FROST, severity))


def fog(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Mixes the picture with clouds of fractal noise, half bright and half cloud."""
    clouds_BHW = fractal_noise(draws, images_BCHW.shape[-1], _FOG_PERSISTENCE)
    fog_B1HW = (0.5 + 0.5 * clouds_BHW)[:, None]
    thickness = at(_FOG, severity)
    return (images_BCHW + thickness * fog_B1HW) / (1.0 + thickness)


def brightness(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Raises the value (of hue, saturation, value) of every pixel; black becomes grey."""
    value_B1HW = images_BCHW.amax(dim=1, keepdim=True)
    raised_B1HW = (value_B1HW + at(_BRIGHTER, severity)).clamp_max(1.0)
    scaled_BCHW = images_BCHW * (raised_B1HW / value_B1HW.clamp_min(1e-6))
    return torch.where(value_B1HW > 0.0, scaled_BCHW, raised_B1HW)
