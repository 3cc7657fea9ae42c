"""The settings that may change when a run is resumed: those that decide no trained number."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from configs.compose import TRUST, says_trust
from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping, load_run_config, to_mapping
from dogo_fed.errors import ConfigError
from dogo_fed.scope import Scope, paths_of, scopes_below


def resumed(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """Returns the saved configuration of the run that `config` resumes, with the allowed changes.

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
        saved = to_mapping(
            load_run_config(config.resume, trust=says_trust(overrides), to_go_on=True)
        )
    except ConfigError as error:
        raise ConfigError(f"resume={config.resume}: {error}") from error
    keys = [override.lstrip("+~").partition("=")[0].rpartition("@")[2] for override in overrides]
    merged = merge_resumed(saved, to_mapping(config), keys)
    return dataclasses.replace(from_mapping(merged), resume=config.resume)


def merge_resumed(
    saved: Mapping[str, Any], wanted: Mapping[str, Any], overridden: Iterable[str]
) -> dict[str, Any]:
    """Returns the saved configuration with the overrides that a resumed run may have.

    Args:
        saved: the run folder's configuration, as plain nested dicts.
        wanted: the configuration that the command line composes to, as plain nested dicts.
        overridden: the settings that the command line sets, e.g. "ray.address", or groups of them.

    Raises:
        ConfigError: an override may not change in a resumed run.
    """
    merged: dict[str, Any] = dict(saved)
    overridden = [key for key in overridden if key not in ("resume", TRUST)]
    for key in overridden:
        scopes = {} if key == "run_dir" else scopes_below(RunConfig, key)
        if not scopes:
            raise _refusal(key)
        for path, scope in scopes.items():
            _take(merged, wanted, path.split("."), scope, key)
    if "steps" in overridden and "rounds" not in overridden:
        merged["rounds"] = None
    if "rounds" in overridden and "steps" not in overridden:
        merged["steps"] = None
    return merged


def resumable_settings() -> list[str]:
    """Returns the paths of the settings that may change; "eval.*" if all below eval may."""
    found: dict[str, list[tuple[str, bool]]] = {}
    for path, scope in paths_of(RunConfig):
        may_change = scope is not None and scope.is_resumable and path not in ("run_dir", "resume")
        found.setdefault(path.partition(".")[0], []).append((path, may_change))
    listed = []
    for top, settings in found.items():
        paths = [path for path, may_change in settings if may_change]
        is_whole = len(paths) == len(settings) > 1
        listed += [f"{top}.*"] if is_whole else paths
    return listed


def _take(
    merged: dict[str, Any], wanted: Mapping[str, Any], path: list[str], scope: Scope, key: str
) -> None:
    """Puts the wanted value at this path, if it may change.

    Raises:
        ConfigError: the value differs and may not change.
    """
    name, *rest = path
    if name == "*":  # below names of the user's own nothing may change
        if merged != wanted:
            raise _refusal(key)
    elif rest and isinstance(merged.get(name), Mapping) and isinstance(wanted.get(name), Mapping):
        merged[name] = dict(merged[name])
        _take(merged[name], wanted[name], rest, scope, key)
    elif scope.is_resumable:
        merged[name] = wanted.get(name)
    elif merged.get(name) != wanted.get(name):
        raise _refusal(key)


def _refusal(key: str) -> ConfigError:
    return ConfigError(
        f"{key} can't be changed when a run goes on; only {', '.join(resumable_settings())} can. "
        "Start a new run for anything else"
    )
