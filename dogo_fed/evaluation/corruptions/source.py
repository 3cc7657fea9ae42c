"""Corrupted images as an image source: each a function of seed, corruption, severity, id and pixels."""

# B = images, C = channels, H, W = pixels, N = images in the source

from __future__ import annotations

import difflib

import torch

from dogo_fed import seeding
from dogo_fed.data.source import ImageSource
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
    generators = [seeding.generator(seed, "corruption", name, int(i)) for i in ids_B.tolist()]
    with torch.no_grad():
        changed_BCHW = CORRUPTIONS[name](images_BCHW.float() / 255.0, severity, generators)
        return changed_BCHW.clamp(0.0, 1.0).mul(255.0).round().to(torch.uint8)


def check_corruption(name: str, severity: int) -> None:
    """Checks a name and a severity (0 to 5).

    Raises:
        ConfigError: there is no such corruption or severity.
    """
    if name not in CORRUPTIONS:
        close = difflib.get_close_matches(name, CORRUPTIONS, n=3)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise ConfigError(
            f"unknown corruption {name!r}; known are {', '.join(sorted(CORRUPTIONS))}{hint}"
        )
    if severity != 0 and severity not in SEVERITIES:
        raise ConfigError(
            f"severity must be a whole number from 1 to {SEVERITIES[-1]} (0 is clean), not {severity}"
        )


class CorruptedImages:
    """The images of a source, corrupted when they are asked for."""

    def __init__(self, source: ImageSource, name: str, severity: int, seed: int) -> None:
        check_corruption(name, severity)
        self._source = source
        self._name = name
        self._severity = severity
        self._seed = seed

    @property
    def labels(self) -> torch.Tensor:
        """Class of every image: int64, shape N."""
        return self._source.labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self._source)

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the corrupted images with these ids, in this order: uint8, B x C x H x W."""
        return corrupt(self._source.images(ids), ids, self._name, self._severity, self._seed)
