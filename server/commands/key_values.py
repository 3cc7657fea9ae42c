"""The command line of a command that takes a few words of its own, and no settings of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dogo_fed.components import close_matches
from dogo_fed.config import RunConfig
from dogo_fed.config_text import load_run_config
from dogo_fed.errors import ConfigError, DogoError
from dogo_fed.exit_status import EXIT_STOPPED, say, tell
from dogo_fed.text import one_line
from dogo_fed.typed_path import typed_path

_LONGEST_LINE = 100_000


def run_command(usage: str, run: Callable[[Sequence[str]], Iterable[str]]) -> None:
    """Does what the command line says; leaves the process with a status that tells how it ended.

    Args:
        usage: printed if the command line asks for help, or is empty.
        run: gets the arguments, and returns what is printed, piece by piece: what is there stands on
            the terminal before the next piece is made, which may fail.
    """
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments or not arguments:
        sys.stdout.write(usage)
        return
    try:
        for piece in run(arguments):
            for line in piece.split("\n"):  # a path in it need not be UTF-8
                sys.stdout.write(f"{one_line(line, _LONGEST_LINE)}\n")
    except (DogoError, OSError) as error:
        sys.exit(tell(error))
    except KeyboardInterrupt:
        sys.exit(say("stopped; what it had not written yet is not written", EXIT_STOPPED))


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
    folder = typed_path(given["run"])
    return folder, load_run_config(folder, trust=truth(given, "trust"))


def truth(given: dict[str, str], key: str) -> bool:
    """Returns what a key says that is true or false; false if it is not there.

    Raises:
        ConfigError: it says something else.
    """
    value = given.get(key, "false").lower()
    if value not in ("true", "false"):
        raise ConfigError(f"{key} must be true or false, not {value}")
    return value == "true"
