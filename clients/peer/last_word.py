"""How a peer's process says why it has ended: a line of its output, among whatever else prints there.

A user's own code may print at each step, and so may a library; that says nothing of the ending.
"""

from __future__ import annotations

import json

from dogo_fed.text import block

_MARK = "dogo-fed peer has ended: "
_MOST = 8000


def last_word(message: str) -> str:
    """Returns the lines that a process writes as it ends.

    Args:
        message: why it ends, for people; may be empty.
    """
    return f"\n{_MARK}{json.dumps(block(message)[:_MOST])}\n"


def message_in(output: str) -> str | None:
    """Returns the message in what a process has written; None if it has not said why it ended."""
    for line in reversed(output.splitlines()):
        if line.startswith(_MARK):
            try:
                return str(json.loads(line.removeprefix(_MARK)))
            except ValueError:
                return None
    return None
