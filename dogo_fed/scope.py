"""The scope of a setting: who decides it, what it decides, and what follows from that.

Every setting declares its scope as the metadata of its field (see `config`). Handshake, sites,
resumed runs, comparisons and summaries ask the scope. The few lists beside it are about something
else than a number; docs/design/configuration.md names them.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from dogo_fed.plain import to_plain
from dogo_fed.text import one_line, some_of

T = TypeVar("T")

_KEY = "scope"
_MOST_TOLD = 3


class DecidedBy(enum.Enum):
    """Who decides the setting.

    RUN: the coordinator; a site takes over its value.
    SITE: each site, or each peer. Every setting that names code, data or devices is one of these.
    PLACE: the process that starts the run: it knows where files and machines are.
    """

    RUN = "run"
    SITE = "site"
    PLACE = "place"


class Decides(enum.Enum):
    """What depends on the setting.

    TRAINING: the trained weights; the setting is fixed for the life of a run.
    ROUNDING: the last bits of the weights.
    LENGTH: the number of steps.
    SCORES: what is measured, not what is trained.
    NOTHING: no number; only where, when or how safely the run happens.
    """

    TRAINING = "training"
    ROUNDING = "rounding"
    LENGTH = "length"
    SCORES = "scores"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Scope:
    """What one setting is about.

    Attributes:
        is_agreed: whether it must be equal at every process of the run; the handshake compares it.
        is_of_teaching: whether it belongs to the teaching: a peer that learns alone is not
            affected.
        teaching_options: for a component, its options that belong to the teaching, each with its
            default.
        movable: paths below the setting that say where something is, e.g. "root". They may be changed
            when a run is resumed, since what is there is compared with what was there.
    """

    decided_by: DecidedBy
    decides: Decides
    is_agreed: bool = False
    is_of_teaching: bool = False
    teaching_options: tuple[tuple[str, object], ...] = ()
    movable: tuple[str, ...] = ()

    @property
    def is_resumable(self) -> bool:
        """Whether it may be changed when a run is resumed."""
        return self.decides is not Decides.TRAINING


def scope(
    decided_by: DecidedBy,
    decides: Decides,
    *,
    agreed: bool = False,
    teaching: bool = False,
    teaching_options: tuple[tuple[str, object], ...] = (),
    movable: tuple[str, ...] = (),
) -> dict[str, Scope]:
    """Returns the metadata of a setting's field; see `Scope`."""
    return {_KEY: Scope(decided_by, decides, agreed, teaching, teaching_options, movable)}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a configuration.

    Attributes:
        path: e.g. "exchange.every_steps" or "peers.wide.distill_weight".
        default: `dataclasses.MISSING` where it has none.
    """

    path: str
    scope: Scope
    value: object
    default: object


def settings_of(config: Any, path: str = "") -> Iterator[Setting]:
    """Yields the settings of a configuration that have a scope, in the order they are declared."""
    for field in dataclasses.fields(config):
        value, here = getattr(config, field.name), path + field.name
        if _KEY in field.metadata:
            yield Setting(here, field.metadata[_KEY], value, field.default)
        elif dataclasses.is_dataclass(value):
            yield from settings_of(value, f"{here}.")
        elif isinstance(value, Mapping):
            for name, item in sorted(value.items()):
                yield from settings_of(item, f"{here}.{name}.")


def changed(before: Any, after: Any) -> dict[str, tuple[object, object]]:
    """Returns the settings whose values differ, by path, each with the old and the new value.

    Values are plain, so that a configuration is equal to what a file makes of it. None stands for a
    setting that one of the two configurations does not have.
    """
    old, new = (
        {setting.path: to_plain(setting.value) for setting in settings_of(config)}
        for config in (before, after)
    )
    return {
        path: (old.get(path), new.get(path))
        for path in {**old, **new}
        if old.get(path) != new.get(path)
    }


def fixed_changes(before: Any, after: Any) -> dict[str, tuple[object, object]]:
    """Returns what differs between two configurations although it is fixed for the life of a run.

    As `changed` does, but where both values are mappings, with the paths of what differs in them, e.g.
    "peers.wide.optimizer.options.lr".
    """
    scopes = {
        setting.path: setting.scope for config in (before, after) for setting in settings_of(config)
    }
    return {
        at: values
        for path, (old, new) in changed(before, after).items()
        if not scopes[path].is_resumable
        for at, values in _differing(path, old, new)
        if at.removeprefix(f"{path}.") not in scopes[path].movable
    }


def in_words(changes: Mapping[str, tuple[object, object]]) -> str:
    """Returns changes of a run's settings for people, with the old and the new values."""
    told = [
        f"{path} is {_shown(old)} in the run and {_shown(new)} now"
        for path, (old, new) in changes.items()
    ]
    return some_of(told, _MOST_TOLD)


def _differing(path: str, old: object, new: object) -> Iterator[tuple[str, tuple[object, object]]]:
    """Yields the paths of what differs in two plain values, with both."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        if old != new:
            yield path, (old, new)
        return
    for name in {**old, **new}:
        if name in old and name in new:
            yield from _differing(f"{path}.{name}", old[name], new[name])
        else:
            yield f"{path}.{name}", (old.get(name), new.get(name))


def _shown(value: object) -> str:
    return one_line(json.dumps(value, default=str), 80)


def paths_of(kind: type[Any], path: str = "") -> Iterator[tuple[str, Scope | None]]:
    """Yields path and scope of every setting that a configuration may have.

    The scope is None if the setting declares none. "*" stands for any name of the user's own, e.g.
    "peers.*.backbone".
    """
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        here, hint = path + field.name, hints[field.name]
        if _KEY in field.metadata:
            yield here, field.metadata[_KEY]
        elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from paths_of(hint, f"{here}.")
        elif isinstance(hint, type) or not any(map(dataclasses.is_dataclass, get_args(hint))):
            yield here, None
        else:
            yield from paths_of(get_args(hint)[1], f"{here}.*.")


def scopes_below(kind: type[Any], path: str) -> dict[str, Scope]:
    """Returns the settings at or below a path, or the one that the path lies in, with their scopes.

    Args:
        kind: the configuration.
        path: of a setting ("eval.knn_k"), of several ("eval"), or in one ("data.options.root").

    Returns:
        Path to scope; empty if there is no such setting.
    """
    wanted = path.split(".")
    found = {}
    for known, its_scope in paths_of(kind):
        parts = known.split(".")
        if its_scope is not None and all(
            part in ("*", given) for part, given in zip(parts, wanted, strict=False)
        ):
            named = [given for part, given in zip(parts, wanted, strict=False)]
            found[".".join(named + parts[len(wanted) :])] = its_scope
    return found


def is_of_teaching(kind: type[Any], path: str) -> bool:
    """Whether the setting at this path has no effect on a peer that learns alone."""
    scopes = scopes_below(kind, path)
    return bool(scopes) and all(
        its_scope.is_of_teaching
        or path in {f"{at}.options.{name}" for name, _ in its_scope.teaching_options}
        for at, its_scope in scopes.items()
    )


def with_settings_of(own: T, other: T, is_wanted: Callable[[Scope], bool]) -> T:
    """Returns `own` with the values that `other` has for the wanted settings.

    Settings below names of the user's own (those of the peers) stay as they are.
    """
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(own):  # type: ignore[arg-type]
        mine, theirs = getattr(own, field.name), getattr(other, field.name)
        if _KEY in field.metadata:
            if is_wanted(field.metadata[_KEY]):
                changes[field.name] = theirs
        elif dataclasses.is_dataclass(mine):
            changes[field.name] = with_settings_of(mine, theirs, is_wanted)
    return dataclasses.replace(own, **changes)  # type: ignore[type-var]
