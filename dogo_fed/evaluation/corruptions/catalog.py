"""The corruptions by name, in the paper's four families."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch

from dogo_fed.evaluation.corruptions import blur, digital, noise, weather

Corruption: TypeAlias = Callable[[torch.Tensor, int, Sequence[torch.Generator]], torch.Tensor]
"""Takes images (float, 0..1, B x C x H x W), a severity from 1 to 5 and a generator per image.

Returns images of the same shape, not necessarily within 0..1. Draws do not depend on the severity,
so a higher one is the same disturbance, stronger.
"""

SEVERITIES = (1, 2, 3, 4, 5)

FAMILIES: Mapping[str, Mapping[str, Corruption]] = {
    "noise": {
        "gaussian_noise": noise.gaussian_noise,
        "shot_noise": noise.shot_noise,
        "impulse_noise": noise.impulse_noise,
    },
    "blur": {
        "defocus_blur": blur.defocus_blur,
        "glass_blur": blur.glass_blur,
        "motion_blur": blur.motion_blur,
        "zoom_blur": blur.zoom_blur,
    },
    "weather": {
        "snow": weather.snow,
        "frost": weather.frost,
        "fog": weather.fog,
        "brightness": weather.brightness,
    },
    "digital": {
        "contrast": digital.contrast,
        "elastic_transform": digital.elastic_transform,
        "pixelate": digital.pixelate,
        "jpeg_compression": digital.jpeg_compression,
    },
}

CORRUPTIONS: Mapping[str, Corruption] = {
    name: function for family in FAMILIES.values() for name, function in family.items()
}
