"""The scope of a setting: who decides it, what it decides, and what follows from that.

Every setting declares its scope as the metadata of its field (see `config`). Handshake, sites,
resumed runs, comparisons and summaries ask the scope and keep no list of their own.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

T = TypeVar("T")

_KEY = "scope"


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
        teaching_options: for a component, its options that belong to the teaching.
    """

    decided_by: DecidedBy
    decides: Decides
    is_agreed: bool = False
    is_of_teaching: bool = False
    teaching_options: tuple[str, ...] = ()

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
    teaching_options: tuple[str, ...] = (),
) -> dict[str, Scope]:
    """Returns the metadata of a setting's field; see `Scope`."""
    return {_KEY: Scope(decided_by, decides, agreed, teaching, teaching_options)}


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

    None stands for a setting that one of the two configurations does not have.
    """
    old, new = ({one.path: one.value for one in settings_of(each)} for each in (before, after))
    return {
        path: (old.get(path), new.get(path))
        for path in {**old, **new}
        if old.get(path) != new.get(path)
    }


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
        one.is_of_teaching or path in {f"{at}.options.{name}" for name in one.teaching_options}
        for at, one in scopes.items()
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
