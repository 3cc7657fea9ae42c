"""The corruptions by name; the paper's four families are four modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch

from dogo_fed.evaluation.corruptions import blur, digital, noise, weather
from dogo_fed.evaluation.corruptions.sampling import Draws

Corruption: TypeAlias = Callable[[torch.Tensor, int, Draws], torch.Tensor]
"""Takes images (float, 0..1, B x C x H x W), a severity from 1 to 5 and a generator per image.

Returns images of the same shape, not necessarily within 0..1. Draws do not depend on the severity,
so a higher one is the same disturbance, stronger.
"""

SEVERITIES = (1, 2, 3, 4, 5)

CORRUPTIONS: Mapping[str, Corruption] = {
    corruption.__name__: corruption
    for corruption in (
        *(noise.gaussian_noise, noise.shot_noise, noise.impulse_noise),
        *(blur.defocus_blur, blur.glass_blur, blur.motion_blur, blur.zoom_blur),
        *(weather.snow, weather.frost, weather.fog, weather.brightness),
        *(digital.contrast, digital.elastic_transform, digital.pixelate, digital.jpeg_compression),
    )
}
