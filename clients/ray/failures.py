"""What went wrong in another process of Ray, as one sentence for people."""

from __future__ import annotations

import re

from ray.exceptions import RayError, RayTaskError

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def cause_of(error: BaseException) -> str:
    """Returns the cause of an error that Ray raises, without colours.

    Ray's text of an error in another process is that process's traceback in colours. It begins with
    the name of the actor or the task, and the cause is its last line.
    """
    if isinstance(error, RayTaskError):
        cause = getattr(error, "cause", None)
        if isinstance(cause, BaseException) and not isinstance(cause, RayError):
            return f"{type(cause).__name__}: {cause}" if str(cause) else type(cause).__name__
    lines = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if isinstance(error, RayTaskError) else lines[0]
