"""`python -m clients`: runs one peer, whose assignment it reads as JSON from standard input."""

from __future__ import annotations

import sys

from clients.peer.run import run_assignment
from dogo_fed.assignment import Assignment
from dogo_fed.errors import ConfigError
from dogo_fed.exit_status import EXIT_UNUSABLE, say
from dogo_fed.text import block


def main() -> int:
    """Returns the exit status: the value of the peer's `Outcome`, or 2 without an assignment."""
    try:
        assignment = Assignment.from_json(sys.stdin.read())
    except ConfigError as error:
        return say(error, EXIT_UNUSABLE)
    ending = run_assignment(assignment)
    if ending.message:
        sys.stderr.write(f"{block(ending.message)}\n")
    return ending.outcome.value


if __name__ == "__main__":
    sys.exit(main())
