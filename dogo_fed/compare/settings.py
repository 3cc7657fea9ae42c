"""Which settings decide a cell's numbers, and which of them are about teaching only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from dogo_fed import scope
from dogo_fed.config import AnchorsAt, RunConfig
from dogo_fed.plain import to_plain
from dogo_fed.scope import Decides

_WHICH_STEPS_EXCHANGE = ("exchange.every_steps", "exchange.dense_steps")


def is_of_teaching(path: str, config: RunConfig) -> bool:
    """Whether the setting at this path has no effect on a peer that learns alone in such a run.

    Which steps exchange has one where passes hold anchors at these only.
    """
    if config.anchors_at is AnchorsAt.EXCHANGES and path in _WHICH_STEPS_EXCHANGE:
        return False
    return scope.is_of_teaching(RunConfig, path)


def teaching_settings() -> str:
    """Returns what `is_of_teaching` says yes to, for people."""
    found = [
        (path, its_scope) for path, its_scope in scope.paths_of(RunConfig) if its_scope is not None
    ]
    run = [path for path, its_scope in found if its_scope.is_of_teaching and "*" not in path]
    peer = [
        path.rpartition(".")[2]
        for path, its_scope in found
        if its_scope.is_of_teaching and "*" in path
    ]
    peer += [
        f"{path.rpartition('.')[2]}.options.{name}"
        for path, its_scope in found
        for name, _ in its_scope.teaching_options
    ]
    return f"{', '.join(run)}, and of a peer {', '.join(peer)}"


def flat(config: RunConfig) -> dict[str, object]:
    """Returns the settings that decide a cell's numbers, one level deep, by their path.

    The path of frozen teachers is cut to their place within the comparison, so that its folder can be
    moved.
    """
    found: dict[str, object] = {}
    for setting in scope.settings_of(config):
        if setting.scope.decides is Decides.NOTHING:
            continue
        if setting.path.endswith(".frozen_from") and isinstance(setting.value, str):
            found[setting.path] = "/".join(Path(setting.value).parts[-4:])
        else:
            found |= dict(_levelled(setting.path, to_plain(setting.value)))
    return found


def _levelled(path: str, value: object) -> Iterator[tuple[str, object]]:
    """Yields the value with its path, or those in it with theirs."""
    if not isinstance(value, Mapping) or not value:
        yield path, value
        return
    for key, item in value.items():
        yield from _levelled(f"{path}.{key}", item)


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> list[str]:
    """Returns the paths of the settings that two flat sets do not share, in order; null counts as not set."""
    return [key for key in sorted(one.keys() | other.keys()) if one.get(key) != other.get(key)]
