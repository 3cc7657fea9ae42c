"""How a command ends: its exit status, and one line that says why."""

from __future__ import annotations

import sys

from dogo_fed.errors import CheckpointError, ConfigError, DataError, DogoError, PlacementError
from dogo_fed.text import block

EXIT_FAILED = 1
"""The run failed; its folder holds what was done until then."""

EXIT_UNUSABLE = 2
"""The run could not be started."""

EXIT_STOPPED = 130
"""The user stopped the run."""


_COULD_NOT_BEGIN = (ConfigError, DataError, PlacementError, CheckpointError)


def status_of(error: DogoError | OSError) -> int:
    """Returns the exit status of a command that this error ended."""
    return EXIT_UNUSABLE if isinstance(error, _COULD_NOT_BEGIN) else EXIT_FAILED


def tell(error: DogoError | OSError, how_to_go_on: str = "") -> int:
    """Says an error; returns the exit status.

    Args:
        error: what ended the command.
        how_to_go_on: goes after the message if the command had begun.
    """
    message, status = str(error), status_of(error)
    if isinstance(error, OSError):
        is_about_a_file = error.filename is not None and error.strerror is not None
        message = (
            f"{error.filename} can't be used: {error.strerror}"
            if is_about_a_file
            else f"{type(error).__name__}: {error}"
        )
    return say(f"{message}{how_to_go_on if status == EXIT_FAILED else ''}", status)


def say(message: object, status: int) -> int:
    """Writes a message, which may quote anybody, to standard error; returns `status`."""
    sys.stderr.write(f"dogo-fed: {block(message)}\n")
    return status
