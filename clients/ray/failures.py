"""What went wrong in another process of Ray, as one sentence for people."""

from __future__ import annotations

import re

from ray.exceptions import RayActorError, RayError, RayTaskError, RuntimeEnvSetupError

from dogo_fed.text import one_line

_FRAME = re.compile(r'^\s*File ".+", line \d+', re.MULTILINE)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_MOST_OF_A_DEATH = 400


def cause_of(error: BaseException) -> str:
    """Returns the cause of an error that Ray raises, without colours.

    Ray's text of an error in another process is that process's traceback in colours. It begins with
    the name of the actor or the task, and the cause is its last line. It is the same where an actor's
    process could not import us, or could not be made. Of an environment that could not be set up, the
    last line is the cause too.
    """
    if isinstance(error, RayTaskError):
        cause = getattr(error, "cause", None)
        if isinstance(cause, BaseException) and not isinstance(cause, RayError):
            said = str(cause)
            if has_traceback(cause):
                return _lines(said)[-1]
            return f"{type(cause).__name__}: {said}" if said else type(cause).__name__
    lines = _lines(str(error))
    if not lines:
        return type(error).__name__
    is_last = isinstance(error, RayTaskError | RuntimeEnvSetupError) or has_traceback(error)
    return lines[-1] if is_last else lines[0]


def death_of(error: RayActorError) -> str:
    """Returns why an actor is gone, as Ray knows it; a node, say, or memory that has run out."""
    lines = _lines(str(error))
    return one_line(next((line for line in lines if " because " in line), ""), _MOST_OF_A_DEATH)


def has_traceback(error: BaseException) -> bool:
    """Whether the text of an error holds a traceback of Python."""
    return _FRAME.search(str(error)) is not None


def _lines(text: str) -> list[str]:
    return [line.strip() for line in _COLOUR.sub("", text).splitlines() if line.strip()]
