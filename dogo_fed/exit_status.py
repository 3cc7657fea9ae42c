"""How a command ends: its exit status, and one line that says why."""

from __future__ import annotations

import sys

from dogo_fed.text import block

EXIT_FAILED = 1
"""The run failed; its folder holds what was done until then."""

EXIT_UNUSABLE = 2
"""The run could not be started."""

EXIT_STOPPED = 130
"""The user stopped the run."""


def say(message: object, status: int) -> int:
    """Writes a message, which may quote anybody, to standard error; returns `status`."""
    sys.stderr.write(f"dogo-fed: {block(message)}\n")
    return status
