"""Data sets by short name or import path."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

from dogo_fed import components
from dogo_fed.data.catalog import DATASETS
from dogo_fed.data.map_style import MapStyle, dataset_from_map_style
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError, DogoError, OwnCodeError

_NO_DATA = (str, bytes, Mapping, list, tuple)
"""Things with a length and items that are no data sets."""


def build_dataset(name: str, options: Mapping[str, object]) -> DataSet:
    """Returns the data set called `name`.

    Args:
        name: a key of `DATASETS`, or the import path "package.module:callable" of a function that
            returns a `DataSet`, a torch map-style data set to train with, or a pair (train, test)
            of them.
        options: keyword arguments of the function behind the name.

    Raises:
        ConfigError: the name or an option is unknown, or the function returned something else. A
            function that says that it returns something else is not called.
        DataError: the data is missing or broken.
    """
    _check_result(name, components.resolve("data set", name, DATASETS))
    return as_dataset(name, components.build("data set", name, DATASETS, options))


def as_dataset(name: str, built: object) -> DataSet:
    """Returns what somebody calls data as a `DataSet`.

    Args:
        name: what reports call it.
        built: a `DataSet`, a map-style data set of torch to train with, or a pair (train, test) of them.

    Raises:
        ConfigError: it is something else.
        DataError: an item is no image.
        OwnCodeError: reading an item failed in the data set's own code.
    """
    if isinstance(built, DataSet):
        return built
    if isinstance(built, tuple) and len(built) == 2 and all(_is_map_style(part) for part in built):
        return _read(name, *built)
    if not isinstance(built, _NO_DATA) and _is_map_style(built):
        return _read(name, built)
    raise ConfigError(
        f"data set {name!r} returned a {type(built).__name__}, not a DataSet, a map-style data set "
        "or a pair (train, test) of them"
    )


def _read(name: str, *parts: object) -> DataSet:
    """Returns map-style data sets, to train and to test with, as a `DataSet`."""
    try:
        return dataset_from_map_style(name, *(cast(MapStyle, part) for part in parts))
    except DogoError:
        raise
    except Exception as error:
        words = components.error_in_words(error)
        raise OwnCodeError(f"data set {name!r} failed while it was read: {words}") from error


def _check_result(name: str, factory: components.Factory) -> None:
    """Checks what a callable says that it returns, if it does say so.

    Raises:
        ConfigError: it can be neither a `DataSet` nor a pair.
    """
    said = _said_result(factory)
    if said is None or said is Any:
        return
    kinds = [get_origin(hint) or hint for hint in (get_args(said) if _is_union(said) else (said,))]
    if any(map(_may_be_data, kinds)):
        return
    raise ConfigError(
        f"data set {name!r} would return a {getattr(said, '__name__', said)}, not a DataSet, a "
        "map-style data set or a pair (train, test) of them; it is not called"
    )


def _may_be_data(kind: object) -> bool:
    """Whether a value of this type may be data; also if that can't be told."""
    if not isinstance(kind, type):
        return True
    try:
        if issubclass(kind, DataSet | tuple) or issubclass(DataSet, kind):
            return True
        return not issubclass(kind, _NO_DATA) and _is_map_style(kind)
    except TypeError:  # a protocol, for example
        return True


def _said_result(factory: components.Factory) -> object:
    """Returns the type that a callable is annotated to return; None if it says nothing."""
    if isinstance(factory, type):
        makes_others = any("__new__" in vars(kind) for kind in factory.__mro__[:-1])
        return None if makes_others and not issubclass(factory, tuple) else factory
    try:
        return get_type_hints(factory).get("return")
    except Exception:  # annotations are the user's own; they need not be there at run time
        return None


def _is_union(said: object) -> bool:
    return get_origin(said) in (Union, UnionType)


def _is_map_style(candidate: object) -> bool:
    """Tells whether something has a length and items."""
    return hasattr(candidate, "__len__") and hasattr(candidate, "__getitem__")
