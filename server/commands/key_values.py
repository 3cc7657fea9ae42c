"""The command line of a command that takes a few words of its own, and no settings of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dogo_fed.components import close_matches
from dogo_fed.config import RunConfig
from dogo_fed.config_text import load_run_config
from dogo_fed.errors import ConfigError


def key_values(command: str, arguments: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Returns the values by their keys.

    Args:
        command: for messages, e.g. "export".
        arguments: each key=value.
        keys: those that the command knows.

    Raises:
        ConfigError: an argument is none of them.
    """
    given: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or key not in keys:
            raise ConfigError(
                f"`dogo-fed {command}` does not know {argument!r}; it takes {', '.join(keys)}"
                f"{close_matches(key, keys)}"
            )
        given[key] = value
    return given


def named_run(given: dict[str, str]) -> tuple[Path, RunConfig]:
    """Returns the folder that `run=` names and the configuration of its run; reads `trust=` too.

    Raises:
        ConfigError: there is no run= or no run, or its settings can't be followed.
    """
    if "run" not in given:
        raise ConfigError("name the run: run=<folder of a finished run>")
    trust = given.get("trust", "false").lower()
    if trust not in ("true", "false"):
        raise ConfigError(f"trust must be true or false, not {trust}")
    folder = Path(given["run"]).expanduser()
    return folder, load_run_config(folder, trust=trust == "true")
