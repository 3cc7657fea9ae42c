"""`dogo-fed matrix`: every encoder of a run on every site's own images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dogo_fed.run.matrix import matrix_of_run, write_matrix
from dogo_fed.typed_path import typed_path
from server.commands.key_values import key_values, named_run, run_command
from server.terminal_log import log_to_terminal

_KEYS = ("run", "encoders", "trust")
_HELP = """usage: dogo-fed matrix run=FOLDER [encoders=FILE,FILE] [trust=true]

Evaluates every encoder of a finished run on the private images of every peer, by kNN, and writes
FOLDER/evaluation/matrix.csv, .md and .png. All images must be readable here.

A site of a Flower deployment names its own folder of the run, which has its own images and encoder.
encoders= are files that other sites have given it: encoder.safetensors, renamed to who it is from.
"""


def main() -> None:
    """Runs what the command line says; leaves the process with a status that tells how it ended."""
    run_command(_HELP, _matrix)


def _matrix(arguments: Sequence[str]) -> Iterator[str]:
    log_to_terminal()
    given = key_values("matrix", arguments, _KEYS)
    encoders = [typed_path(name) for name in given.get("encoders", "").split(",") if name]
    folder, config = named_run(given)
    found = matrix_of_run(folder, config, encoders)
    yield found.to_markdown()
    yield from map(str, write_matrix(found, folder))
