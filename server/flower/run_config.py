"""Flower's run configuration: how settings are written into it, and which ones it stands for."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence

from configs.overrides import quoted
from dogo_fed.errors import ConfigError

OVERRIDES_KEY = "hydra-overrides"
"""Carries any settings: one string, which is split as a shell does it."""

_PLAIN_KEYS = ("peers", "data", "exchange", "rounds", "steps", "steps-per-round", "seed", "run-dir")
"""Settings by themselves; 0 and "" leave the default."""


def write_run_config(overrides: Sequence[str]) -> str:
    """Returns the run configuration with these settings, as TOML."""
    return f"{OVERRIDES_KEY} = {json.dumps(shlex.join(overrides), ensure_ascii=False)}\n"


def read_run_config(run_config: Mapping[str, object]) -> list[str]:
    """Returns the settings in a run configuration, as they were typed.

    Raises:
        ConfigError: those in one string can't be split.
    """
    overrides = []
    for key in _PLAIN_KEYS:
        value = run_config.get(key)
        if value in (None, 0, ""):
            continue
        setting = key.replace("-", "_")
        is_text = setting == "run_dir"  # the others may be short for something
        overrides.append(quoted(setting, str(value)) if is_text else f"{setting}={value}")
    try:
        overrides += shlex.split(str(run_config.get(OVERRIDES_KEY, "")))
    except ValueError as error:
        raise ConfigError(f"{OVERRIDES_KEY} can't be split into settings: {error}") from error
    return overrides
