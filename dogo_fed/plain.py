"""Turns settings dataclasses into plain values, and back.

Plain values are what YAML and JSON hold: mappings, lists, texts, numbers, true, false and null. On
the way back no text becomes a number and no key is ignored, so a typing mistake never becomes a
default.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import dacite

from dogo_fed.errors import ConfigError
from dogo_fed.text import some_of

_MOST_NAMES = 6
T = TypeVar("T")


def to_plain(value: object) -> Any:
    """Returns the value with dataclasses as mappings, tuples as lists, enum members as values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            item.name: to_plain(getattr(value, item.name)) for item in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value.value if isinstance(value, enum.Enum) else value


def from_plain(kind: type[T], content: object, *, path: str = "") -> T:
    """Returns the dataclass made from plain values.

    Args:
        kind: the dataclass; it checks its own values.
        content: a mapping of its settings.
        path: where the mapping stands, for the messages, e.g. "peers.wide.".

    Raises:
        ConfigError: a setting is unknown, missing, of the wrong type or impossible. The message
            names it with its whole path.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path.rstrip('.')} must be a mapping of settings, not {content!r}")
    _check_keys(kind, content, path)
    try:
        return dacite.from_dict(
            kind, dict(content), config=dacite.Config(strict=True, type_hooks=_hooks_for(kind))
        )
    except dacite.MissingValueError as error:
        raise ConfigError(f"the setting {path}{error.field_path} is missing") from error
    except dacite.WrongTypeError as error:
        raise ConfigError(
            f"{path}{error.field_path} must be {_type_name(error.field_type)}, not {error.value!r}"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{path.rstrip('.')}: {error}" if path else str(error)) from error
    except dacite.DaciteError as error:
        raise ConfigError(f"{path}{error}") from error


class _Boolean:
    """A true or false where a number belongs; dacite would take it for 1 or 0, we refuse it."""

    def __init__(self, value: bool) -> None:
        self._value = value

    def __repr__(self) -> str:
        return str(self._value).lower()


def _check_keys(kind: type[Any], content: Mapping[Any, Any], path: str) -> None:
    """Raises ConfigError for the first key that no setting has, with its whole path."""
    known = get_type_hints(kind)
    for key, value in content.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"unknown setting '{path}{key}'{hint}")
        section = _section(known[key])
        if section is not None and isinstance(value, Mapping):
            _check_keys(section, value, f"{path}{key}.")


def _section(hint: Any) -> type[Any] | None:
    """Returns the dataclass that a type hint names, alone or beside None; None if it names none."""
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    for kind in kinds:
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            return kind
    return None


def _hooks_for(kind: type[Any]) -> dict[Any, Callable[[Any], Any]]:
    """Returns dacite's conversions for the types that the dataclass is made of."""
    enums = {enum_type: _as_member_of(enum_type) for enum_type in _enums_in(kind)}
    return {int: _as_int, float: _as_float, **enums}


def _enums_in(hint: Any) -> set[type[enum.Enum]]:
    """Returns the enums in a type hint, in those of its parts, and in the fields of dataclasses."""
    found = {hint} if isinstance(hint, type) and issubclass(hint, enum.Enum) else set()
    parts = list(get_args(hint))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        parts += get_type_hints(hint).values()
    return found.union(*(_enums_in(part) for part in parts))


def _as_int(value: object) -> object:
    return _Boolean(value) if isinstance(value, bool) else value


def _as_float(value: object) -> object:
    if isinstance(value, bool):
        return _Boolean(value)
    return float(value) if isinstance(value, int) else value


def _as_member_of(kind: type[enum.Enum]) -> Callable[[object], object]:
    def convert(value: object) -> object:
        return next((member for member in kind if value == member.value), value)

    return convert


def _type_name(wanted: object) -> str:
    """Returns the name of a type for an error message; for an enum, its values."""
    plain: dict[object, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        type(None): "null",
    }
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in wanted)
    if wanted in plain:
        return plain[wanted]
    if dataclasses.is_dataclass(wanted):
        names = [setting.name for setting in dataclasses.fields(wanted)]
        return f"a mapping of settings ({some_of(names, _MOST_NAMES)})"
    if get_origin(wanted) is Mapping:
        return "a mapping of settings"
    return " or ".join(_type_name(part) for part in get_args(wanted)) or str(wanted)
