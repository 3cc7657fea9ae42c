"""Images that use a small part of their range, as those of 12 bits do that are stored in 16."""

# N = images

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from dogo_fed.data.source import DataSet

_NEARLY_BLACK = 0.03
"""Of the mean of all pixels, of 1."""
_BRIGHT = 32
"""Of 255: images of 12 bits that are stored in 16 have no pixel that is brighter than 16."""
_LOOKED_AT = 64
"""Images, evenly spaced, in which a bright pixel is looked for."""


def nearly_black(
    dataset: DataSet, options: Mapping[str, object], where: str = "data"
) -> Iterator[str]:
    """Yields a note about images that use a small part of their range, if they do.

    Args:
        dataset: the images.
        options: those of its loader.
        where: the setting that names the data set.
    """
    number = min(_LOOKED_AT, len(dataset.train))
    ids_N = torch.arange(number) * len(dataset.train) // max(number, 1)
    brightest = int(dataset.train.images(ids_N).max()) if number else 255
    if max(dataset.mean) < _NEARLY_BLACK or brightest < _BRIGHT:
        found = f"mean {max(dataset.mean):.3f} of 1, brightest pixel {brightest} of 255"
        of = "" if where == "data" else f" of {where}"
        yield f"the images{of} are nearly black ({found})" + (
            f"; if they have more than 8 bits, say what is white: {where}.options.value_range=[0,4095]"
            if "value_range" in options
            else ""
        )
