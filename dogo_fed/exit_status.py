"""How a command ends: its exit status, and one line that says why."""

from __future__ import annotations

import sys

EXIT_FAILED = 1
"""The run failed; its folder holds what was done until then."""

EXIT_UNUSABLE = 2
"""The run could not be started."""

EXIT_STOPPED = 130
"""The user stopped the run."""


def say(message: object, status: int) -> int:
    """Writes one line to standard error and returns `status`."""
    sys.stderr.write(f"dogo-fed: {message}\n")
    return status
