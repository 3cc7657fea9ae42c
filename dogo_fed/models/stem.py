"""From which image size on a backbone has its ImageNet stem, and how one that has not is known."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

SMALL_IMAGE_BELOW = 100
"""Below this many pixels a backbone does not halve its input twice at the start (as in DoGo)."""
LARGEST_SMALL_KERNEL = 3
"""A first convolution for such images is not larger than this."""
_WITHOUT_HALVINGS = "_dogo_fed_without_halvings"


def is_small(image_size: int) -> bool:
    """Tells whether images of this many pixels a side get the small-image stem."""
    return image_size < SMALL_IMAGE_BELOW


def note_halvings_taken_out(network: nn.Module, names: Sequence[str]) -> None:
    """Notes in a library's network which of its modules halve less than they did, or are gone."""
    setattr(network, _WITHOUT_HALVINGS, tuple(names))


def halvings_taken_out(network: nn.Module) -> tuple[str, ...]:
    """Returns the modules of a library's network that do not halve as they did; none if all do."""
    return tuple(getattr(network, _WITHOUT_HALVINGS, ()))
