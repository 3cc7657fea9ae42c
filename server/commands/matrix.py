"""`dogo-fed matrix`: every encoder of a run on every site's own images."""

from __future__ import annotations

import sys

from dogo_fed.errors import DogoError
from dogo_fed.exit_status import tell
from dogo_fed.run.matrix import matrix_of_run
from server.commands.key_values import key_values, named_run
from server.terminal_log import log_to_terminal

_KEYS = ("run", "trust")
_HELP = """usage: dogo-fed matrix run=FOLDER [trust=true]

Evaluates every encoder of a finished run on the private images of every peer, by kNN, and writes
FOLDER/evaluation/matrix.csv, .md and .png. All images must be readable here.
"""


def main() -> None:
    """Runs what the command line says; leaves the process with a status that tells how it ended."""
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments or not arguments:
        sys.stdout.write(_HELP)
        return
    log_to_terminal()
    try:
        found, paths = matrix_of_run(*named_run(key_values("matrix", arguments, _KEYS)))
    except (DogoError, OSError) as error:
        sys.exit(tell(error))
    sys.stdout.write(f"{found.to_markdown()}\n" + "\n".join(map(str, paths)) + "\n")
