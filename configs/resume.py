"""What may change when a run goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping, load_run_config, to_mapping
from dogo_fed.errors import ConfigError

CHANGEABLE = (
    "host", "rounds", "steps", "eval", "checkpoint", "recovery", "coordinator", "ray", "device",
)  # fmt: skip
"""Settings that may change when a run goes on; the rest decides the numbers."""


def resumed(config: RunConfig, overrides: Iterable[str]) -> RunConfig:
    """Returns the saved configuration of the run that `config` goes on with, with what may change.

    Args:
        config: what the overrides compose to; its `resume` names the run folder.
        overrides: as on the command line, e.g. ["resume=runs/first", "ray.address=auto"].

    Raises:
        ConfigError: there is no run in this folder, or an override would make it another run.
    """
    assert config.resume is not None, "only for a run that goes on"
    saved = to_mapping(load_run_config(Path(config.resume)))
    keys = [override.lstrip("+~").partition("=")[0] for override in overrides]
    merged = merge_resumed(saved, to_mapping(config), keys)
    return dataclasses.replace(from_mapping(merged), resume=config.resume)


def merge_resumed(
    saved: Mapping[str, object], wanted: Mapping[str, object], overridden: Iterable[str]
) -> dict[str, object]:
    """Returns the saved configuration with the overrides that a resumed run may have.

    Args:
        saved: of the run folder, as plain nested dicts.
        wanted: what the command line composes to.
        overridden: the keys that the command line sets, e.g. "ray.address".

    Raises:
        ConfigError: an override would make it another run.
    """
    merged = dict(saved)
    for key in overridden:
        top = key.split(".")[0]
        if top == "resume":
            continue
        if top not in CHANGEABLE:
            raise ConfigError(
                f"{key} can't be changed when a run goes on; only {', '.join(CHANGEABLE)} can. Start a "
                "new run for anything else"
            )
        merged[top] = wanted[top]
    if "steps" in overridden and "rounds" not in overridden:
        merged["rounds"] = None
    if "rounds" in overridden and "steps" not in overridden:
        merged["steps"] = None
    return merged
