"""`python -m clients`: runs one peer, whose assignment it reads as JSON from standard input."""

from __future__ import annotations

import os
import sys
import threading
import traceback
from contextlib import suppress

from clients.peer.last_word import last_word
from clients.peer.run import run_assignment
from dogo_fed.assignment import Assignment
from dogo_fed.errors import ConfigError
from dogo_fed.exit_status import EXIT_FAILED, EXIT_UNUSABLE, say

_ENDS_WITHIN_S = 60.0


def main() -> int:
    """Returns the exit status: the value of the peer's `Outcome`, or 2 without an assignment.

    It is 1 if the peer has failed in a way that nobody expected, which includes an exit that the
    user's own code asked for.
    """
    try:
        assignment = Assignment.from_json(sys.stdin.read())
    except ConfigError as error:
        return say(error, EXIT_UNUSABLE)
    try:
        ending = run_assignment(assignment)
        status, message = ending.outcome.value, ending.message
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        status, message = EXIT_FAILED, traceback.format_exception_only(error)[-1].strip()
    with suppress(OSError):  # on a full disk the exit status has to tell all
        sys.stderr.write(last_word(message))
    return status


def leave(status: int) -> None:
    """Ends this process, also if one of its threads never ends: one that reads from a disk that hangs.

    Python waits for such threads without a limit. Then the peer would never be started again.
    """
    forced = threading.Timer(_ENDS_WITHIN_S, os._exit, [status])
    forced.daemon = True
    forced.start()
    sys.exit(status)


if __name__ == "__main__":
    leave(main())
