"""How a command ends: its exit status, and one line that says why."""

from __future__ import annotations

import sys
import traceback

from dogo_fed.errors import COULD_NOT_START, DogoError, Stopped, own_failure
from dogo_fed.packages import PACKAGES
from dogo_fed.text import block

EXIT_FAILED = 1
"""The run failed; its folder holds what was done until then."""

EXIT_UNUSABLE = 2
"""The run could not be started."""

EXIT_STOPPED = 130
"""The user stopped the run."""


def status_of(error: DogoError | OSError) -> int:
    """Returns the exit status of a command that this error ended."""
    if isinstance(error, Stopped):
        return EXIT_STOPPED
    return EXIT_UNUSABLE if isinstance(error, COULD_NOT_START) else EXIT_FAILED


def tell(error: DogoError | OSError, how_to_go_on: str = "") -> int:
    """Says an error; returns the exit status.

    If the user's own code has failed, its traceback goes before the message.

    Args:
        error: what ended the command.
        how_to_go_on: goes after the message if the command had begun.
    """
    message, status = str(error), status_of(error)
    failure = own_failure(error)
    if failure is not None:
        sys.stderr.write(f"{_own_traceback(failure)}\n")
    if isinstance(error, OSError):
        is_about_a_file = error.filename is not None and error.strerror is not None
        message = (
            f"{error.filename} can't be used: {error.strerror}"
            if is_about_a_file
            else f"{type(error).__name__}: {error}"
        )
    return say(f"{message}{how_to_go_on if status == EXIT_FAILED else ''}", status)


def tell_unexpected(error: Exception, how_to_go_on: str = "") -> int:
    """Says an error that nobody expected, such as one in the user's own code, with its traceback.

    It stands in for what Hydra says of such an error, which is about Hydra.

    Args:
        error: what ended the command.
        how_to_go_on: goes after the message.
    """
    sys.stderr.write(f"{_own_traceback(error)}\n")
    return say(f"{type(error).__name__}: {error}{how_to_go_on}", EXIT_FAILED)


def say(message: object, status: int) -> int:
    """Writes a message, which may quote anybody, to standard error; returns `status`."""
    sys.stderr.write(f"dogo-fed: {block(message)}\n")
    return status


def _own_traceback(failure: BaseException) -> str:
    """Returns the traceback of the user's own code, without the calls of ours that led there.

    An error of our own has all of it.
    """
    frames = failure.__traceback__
    while frames is not None and _is_ours(str(frames.tb_frame.f_globals.get("__name__", ""))):
        frames = frames.tb_next
    frames = frames or failure.__traceback__
    return block("".join(traceback.format_exception(type(failure), failure, frames)), 20_000)


def _is_ours(module_name: str) -> bool:
    return module_name.partition(".")[0] in PACKAGES
