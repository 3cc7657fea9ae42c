"""`python -m clients`: runs one peer, whose assignment it reads as JSON from standard input."""

from __future__ import annotations

import sys
import traceback
from contextlib import suppress

from clients.peer.last_word import last_word
from clients.peer.run import run_assignment
from dogo_fed.assignment import Assignment
from dogo_fed.errors import ConfigError
from dogo_fed.exit_status import EXIT_FAILED, EXIT_UNUSABLE, say


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


if __name__ == "__main__":
    sys.exit(main())
