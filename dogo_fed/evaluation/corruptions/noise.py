"""Noise: as from a warm sensor, from too few photons, from broken pixels."""

# B = images, C = channels, H, W = pixels

from __future__ import annotations

import torch

from dogo_fed.evaluation.corruptions.sampling import Draws, at, normal, uniform

_SIGMA = (0.04, 0.06, 0.09, 0.13, 0.18)
_PHOTONS = (250.0, 120.0, 60.0, 30.0, 15.0)
_BROKEN = (0.01, 0.03, 0.06, 0.1, 0.17)


def gaussian_noise(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Adds normal noise of one deviation to every pixel and channel."""
    return images_BCHW + at(_SIGMA, severity) * normal(draws, *images_BCHW.shape[1:])


def shot_noise(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Counts photons: Poisson noise, with fewer photons for white the higher the severity."""
    white = at(_PHOTONS, severity)
    counts = [
        torch.poisson(image_CHW * white, generator=generator)
        for image_CHW, generator in zip(images_BCHW, draws, strict=True)
    ]
    return torch.stack(counts) / white


def impulse_noise(images_BCHW: torch.Tensor, severity: int, draws: Draws) -> torch.Tensor:
    """Sets a share of all values to 0 or 1 (salt and pepper in every channel by itself)."""
    share = at(_BROKEN, severity)
    draw_BCHW = uniform(draws, *images_BCHW.shape[1:])
    peppered_BCHW = torch.where(draw_BCHW < share / 2, 0.0, images_BCHW)
    return torch.where(draw_BCHW > 1 - share / 2, 1.0, peppered_BCHW)
