"""`python -m clients`: runs one peer; its assignment comes as JSON on standard input."""

from __future__ import annotations

import sys

from clients.peer.run import run_assignment
from dogo_fed.assignment import Assignment
from dogo_fed.errors import ConfigError


def main() -> int:
    """Returns the exit status: the value of `clients.peer.run.Outcome`, or 2 for no assignment."""
    try:
        assignment = Assignment.from_json(sys.stdin.read())
    except ConfigError as error:
        sys.stderr.write(f"dogo-fed: {error}\n")
        return 2
    ending = run_assignment(assignment)
    if ending.message:
        sys.stderr.write(f"{ending.message}\n")
    return ending.outcome.value


if __name__ == "__main__":
    sys.exit(main())
