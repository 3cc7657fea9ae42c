"""The settings that may change when a run is resumed: those that decide no trained number."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from configs.compose import TRUST, compose_named, says_trust
from configs.overrides import path_of
from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping, load_run_config, to_mapping
from dogo_fed.errors import ConfigError
from dogo_fed.scope import fixed_changes, in_words, paths_of, scopes_below
from dogo_fed.text import some_of

_OF_THIS_START = ("resume", "afresh", TRUST)
"""Settings that say how this start goes on; a run folder does not keep them."""


def resumed(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """Returns the saved configuration of the run that `config` resumes, with the allowed changes.

    Only the settings that an override names change. A choice of a group (exchange=flower) names
    the settings in the file of its group.

    Args:
        config: the configuration that the overrides compose to; its `resume` names the run folder.
        overrides: as on the command line, e.g. ["resume=runs/first", "ray.address=auto"].

    Raises:
        ConfigError: there is no run in this folder, it names code that this user has not said to
            trust, or an override may not change.
    """
    assert config.resume is not None, "only for a run that goes on"
    overrides = list(overrides)
    try:
        saved = load_run_config(config.resume, trust=says_trust(overrides), to_go_on=True)
    except ConfigError as error:
        raise ConfigError(f"resume={config.resume}: {error}") from error
    merged = merge_resumed(saved, config, overrides)
    return dataclasses.replace(from_mapping(merged), resume=config.resume, afresh=config.afresh)


def merge_resumed(saved: RunConfig, wanted: RunConfig, overrides: Iterable[str]) -> dict[str, Any]:
    """Returns the saved configuration, as plain values, with what the overrides of a resumed run name.

    Args:
        saved: the run folder's configuration.
        wanted: the configuration that the command line composes to.
        overrides: as on the command line.

    Raises:
        ConfigError: an override may not change in a resumed run.
    """
    merged = {**to_mapping(saved), "resume": None, "afresh": False}
    values = to_mapping(wanted)
    fixed = fixed_changes(saved, wanted)
    keys = set()
    for override in overrides:
        key = path_of(override)
        if key in _OF_THIS_START:
            continue
        keys.add(key)
        known = [] if key == "run_dir" else list(scopes_below(RunConfig, key))
        if not known:
            raise _refusal(key)
        for path in _named(override, key, known):
            refused = {at: both for at, both in fixed.items() if _overlap(at, path)}
            if refused:
                raise _refusal(f"{in_words(refused)}, and")
            _take(merged, values, path.split("."))
    if "steps" in keys and "rounds" not in keys:
        merged["rounds"] = None
    if "rounds" in keys and "steps" not in keys:
        merged["steps"] = None
    return merged


def resumable_settings() -> list[str]:
    """Returns the paths of the settings that may change; "ray.*" if all, or most, below ray may."""
    found: dict[str, list[tuple[str, bool]]] = {}
    movable: list[str] = []
    for path, scope in paths_of(RunConfig):
        is_own = path == "run_dir" or path in _OF_THIS_START
        may_change = scope is not None and scope.is_resumable and not is_own
        found.setdefault(path.partition(".")[0], []).append((path, may_change))
        movable += [f"{path}.{place}" for place in (scope.movable if scope is not None else ())]
    listed = []
    for top, settings in found.items():
        paths = [path for path, may_change in settings if may_change]
        fixed = [path for path, may_change in settings if not may_change]
        if len(paths) > max(1, len(fixed)):
            listed.append(f"{top}.*{f' (but not {some_of(fixed, len(fixed))})' if fixed else ''}")
        else:
            listed += paths
    return listed + movable


def _named(override: str, key: str, known: Sequence[str]) -> list[str]:
    """Returns the paths of what the override itself names, at or below `key`.

    Args:
        override: as on the command line.
        key: the path of what it sets.
        known: the settings at or below the key, or the one that it lies in.
    """
    parsed = OverridesParser.create().parse_override(override)
    is_section = all(path.startswith(f"{key}.") and "*" not in path for path in known)
    if not is_section or parsed.is_delete() or parsed.package is not None:
        return [key]
    value = parsed.value()
    content: object = value
    if isinstance(value, str):  # a choice of a group
        chosen = compose_named(f"{parsed.key_or_group}/{value}", [])
        content = OmegaConf.to_container(OmegaConf.select(chosen, key))
    return [path for path in known if _has(content, path.removeprefix(f"{key}.").split("."))]


def _has(content: object, path: list[str]) -> bool:
    """Whether nested mappings have this path."""
    for name in path:
        if not isinstance(content, Mapping) or name not in content:
            return False
        content = content[name]
    return True


def _overlap(path: str, other: str) -> bool:
    """Whether the paths are the same, or one lies below the other."""
    return f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.")


def _take(merged: dict[str, Any], values: Mapping[str, Any], path: Sequence[str]) -> None:
    """Puts the value at this path into the merged settings, or takes it out if there is none."""
    name, *rest = path
    if rest and isinstance(merged.get(name), Mapping) and isinstance(values.get(name), Mapping):
        merged[name] = dict(merged[name])
        _take(merged[name], values[name], rest)
    elif name in values:
        merged[name] = values[name]
    else:
        merged.pop(name, None)


def _refusal(what: str) -> ConfigError:
    return ConfigError(
        f"{what} can't be changed when a run goes on; only {', '.join(resumable_settings())} can. "
        "Start a new run for anything else"
    )
