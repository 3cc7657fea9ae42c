"""What a user may say about pixels: the options that all loaders of images have in common."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from dogo_fed.data.colours import Colours, value_range_of
from dogo_fed.data.files.decode import MOST_MEGAPIXELS, Decoding
from dogo_fed.data.source import DataSet


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelOptions:
    """The options, as a user gives them.

    Attributes:
        channels: 3, or 1 to keep grey images grey.
        value_range: what is black and white in images of more than 8 bits; None is the range of
            their type.
        ground: colour behind transparent pixels.
        max_megapixels: larger images are refused.
        skip_broken: whether images that can't be read, or are refused, are left out.
    """

    channels: int = 3
    value_range: list[float] | None = None
    ground: str = "white"
    max_megapixels: float = MOST_MEGAPIXELS
    skip_broken: bool = False

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ConfigError: one is impossible.
        """
        self.decoding(1)

    def decoding(self, side: int) -> Decoding:
        """Returns how files become images of this side.

        Raises:
            ConfigError: the side is below 1.
        """
        colours = Colours(
            channels=self.channels,
            value_range=value_range_of(self.value_range),
            ground=self.ground,
        )
        return Decoding(
            side=side,
            colours=colours,
            max_megapixels=self.max_megapixels,
            skip_broken=self.skip_broken,
        )


def with_pixel_options(loader: Callable[..., DataSet]) -> Callable[..., DataSet]:
    """Returns a loader that has each field of `PixelOptions` as an option beside its own.

    Args:
        loader: takes a `PixelOptions` as its keyword `pixels`.
    """
    shared = inspect.signature(PixelOptions).parameters

    @functools.wraps(loader)
    def taking_each(*given: Any, **options: Any) -> DataSet:
        said = {name: options.pop(name) for name in shared if name in options}
        return loader(*given, pixels=PixelOptions(**said), **options)

    own = inspect.signature(loader)
    parameters = {**own.parameters, **shared}
    hints = {**loader.__annotations__, **get_type_hints(PixelOptions)}
    del parameters["pixels"], hints["pixels"]
    # What checks a user's options, and Python's help, read these two.
    vars(taking_each)["__signature__"] = own.replace(parameters=list(parameters.values()))
    taking_each.__annotations__ = hints
    return taking_each
