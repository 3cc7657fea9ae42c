"""Corrupted images as an image source: each a function of seed, corruption, severity, id and pixels."""

# B = images, C = channels, H, W = pixels

from __future__ import annotations

import torch

from dogo_fed import seeding
from dogo_fed.components import close_matches
from dogo_fed.data.source import ImageSource, MappedImages
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.corruptions.catalog import CORRUPTIONS, SEVERITIES


def corrupt(
    images_BCHW: torch.Tensor, ids_B: torch.Tensor, name: str, severity: int, seed: int
) -> torch.Tensor:
    """Returns corrupted images: uint8, of the same shape.

    Args:
        images_BCHW: uint8.
        ids_B: ids of the images; together with `seed` and `name` they name the random streams.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5; 0 returns the images as they are.
        seed: of everything random.

    Raises:
        ConfigError: there is no such corruption or severity.
    """
    check_corruption(name, severity)
    if severity == 0:
        return images_BCHW
    draws = [seeding.generator(seed, "corruption", name, int(i)) for i in ids_B.tolist()]
    with torch.no_grad():
        changed_BCHW = CORRUPTIONS[name](images_BCHW.float() / 255.0, severity, draws)
        return changed_BCHW.clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)


def check_corruption(name: str, severity: int) -> None:
    """Checks a name and a severity (0 to 5).

    Raises:
        ConfigError: there is no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        raise ConfigError(
            f"unknown corruption {name!r}; known are {', '.join(sorted(CORRUPTIONS))}"
            f"{close_matches(name, CORRUPTIONS)}"
        )
    if severity != 0 and severity not in SEVERITIES:
        raise ConfigError(
            f"severity must be a whole number from 1 to {SEVERITIES[-1]} (0 is clean), not {severity}"
        )


def corrupted(source: ImageSource, name: str, severity: int, seed: int) -> ImageSource:
    """Returns the images of a source, corrupted whenever they are asked for; see `corrupt`.

    Raises:
        ConfigError: there is no such corruption or severity.
    """
    check_corruption(name, severity)
    return MappedImages(
        source, lambda images_BCHW, ids_B: corrupt(images_BCHW, ids_B, name, severity, seed)
    )
