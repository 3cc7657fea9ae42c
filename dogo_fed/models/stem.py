"""From which image size on a backbone has its ImageNet stem."""

from __future__ import annotations

SMALL_IMAGE_BELOW = 100
"""Below this many pixels a backbone does not halve its input twice at the start (as in DoGo)."""


def is_small(image_size: int) -> bool:
    """Tells whether images of this many pixels a side get the small-image stem."""
    return image_size < SMALL_IMAGE_BELOW
