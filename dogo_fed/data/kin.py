"""Data sets that are made of the same pictures as another one: both must be split alike.

Else the test images of one would show what the other trains on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

from dogo_fed.config import DataConfig
from dogo_fed.data.catalog import KIN
from dogo_fed.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Kin:
    """What a data set says of another one that is made of the same pictures.

    Attributes:
        name: the other one's short name.
        pictures: what both are made of, in words.
        option: of both; it decides which pictures are for training.
        default: its value where it is not named.
    """

    name: str
    pictures: str
    option: str
    default: object


def kin_of(name: str) -> Kin | None:
    """Returns what a data set says of its kin; None if it has none."""
    place = KIN.get(name)
    if place is None:
        return None
    module_name, _, attribute = place.partition(":")
    found: object = getattr(import_module(module_name), attribute)
    assert isinstance(found, Kin), f"{place} is no Kin"
    return found


def split_alike(home: DataConfig) -> dict[str, object] | None:
    """Returns name and options of the kin of a data set, split as it is; None if it has none."""
    kin = kin_of(home.name)
    if kin is None:
        return None
    options = {kin.option: home.options.get(kin.option, kin.default)}
    return {"name": kin.name, "options": options}


def check_split(home: DataConfig, name: str, options: Mapping[str, object]) -> None:
    """Checks that the test images of a data set are not training images of `home`.

    Args:
        home: what was trained on.
        name: of the other data set.
        options: of the other data set.

    Raises:
        ConfigError: they are made of the same pictures and split otherwise.
    """
    kin = kin_of(home.name)
    if kin is None or kin.name != name:
        return
    theirs, ours = (given.get(kin.option, kin.default) for given in (home.options, options))
    if theirs != ours:
        raise ConfigError(
            f"{name} with {kin.option} {ours} would test {kin.pictures} that {home.name} with "
            f"{kin.option} {theirs} trained on; set the option {kin.option} of {name} to {theirs}"
        )
