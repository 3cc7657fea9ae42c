"""Data sets by short name or import path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from dogo_fed import components
from dogo_fed.data.catalog import DATASETS
from dogo_fed.data.map_style import MapStyle, dataset_from_map_style
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError


def build_dataset(name: str, options: Mapping[str, object]) -> DataSet:
    """Returns the data set called `name`.

    Args:
        name: a key of `DATASETS`, or the import path "package.module:callable" of a function that
            returns a `DataSet`, or a pair (train, test) of torch map-style data sets.
        options: keyword arguments of the function behind the name.

    Raises:
        ConfigError: the name or an option is unknown, or the function returned something else.
        DataError: the data is missing or broken.
    """
    built = components.build("data set", name, DATASETS, options)
    if isinstance(built, DataSet):
        return built
    if isinstance(built, tuple) and len(built) == 2 and all(_is_map_style(part) for part in built):
        train, test = built
        return dataset_from_map_style(name, cast(MapStyle, train), cast(MapStyle, test))
    raise ConfigError(
        f"data set {name!r} returned a {type(built).__name__}, not a DataSet or a pair (train, "
        "test) of map-style data sets"
    )


def _is_map_style(candidate: object) -> bool:
    """Tells whether something has a length and items."""
    return hasattr(candidate, "__len__") and hasattr(candidate, "__getitem__")
