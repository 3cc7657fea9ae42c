"""`make attack`: attacks live runs on this machine and prints what became of them, as a table."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from pathlib import Path

from dogo_fed.reporting.units import human_bytes
from tests.attack import cells
from tests.attack.cells import MIB, Outcome

_HEAD = (
    "| who | attack | answers | the honest peers' steps meanwhile | longest step "
    "| the next 20 steps | written | log lines |\n|---|---|---|---|---|---|---|---|\n"
)


def main() -> None:
    """Runs all cells; exits with an error if one of them ends badly."""
    parser = argparse.ArgumentParser(prog="make attack")
    parser.add_argument("--messages", type=int, default=100_000, help="mutated messages")
    num_messages = parser.parse_args().messages
    began_s, has_ray = time.monotonic(), importlib.util.find_spec("ray") is not None
    with tempfile.TemporaryDirectory(prefix="dogo-attack-") as place:
        folder = Path(place)
        sys.stdout.write(_HEAD)
        for row in cells.strangers_and_insiders(folder / "insiders"):
            sys.stdout.write(line(row))
        sys.stdout.flush()
        for row in cells.on_ray(folder / "ray") if has_ray else ():
            sys.stdout.write(line(row))
        sys.stdout.flush()
        sys.stdout.write(line(cells.idle(folder / "idle")))
        sys.stdout.flush()
        row, resident = cells.mutated(folder / "mutated", num_messages)
        sys.stdout.write(line(row))
    if not has_ray:
        sys.stdout.write("\nNo run with host=ray was attacked: Ray is not installed.\n")
    told = ", ".join(f"{size / MIB:.0f} MiB {when}" for when, size in resident.items())
    sys.stdout.write(
        f"\nMemory of the attacked process under mutated messages: {told}.\n"
        "Every run ended with exit status 0, a summary and a picture. No traceback, no escape "
        "sequence and no forged line is in any log or terminal.\n"
        f"Took {time.monotonic() - began_s:.0f} s.\n"
    )


def line(row: Outcome) -> str:
    """Returns a row of the table."""
    return (
        f"| {row.who} | {row.attack} | {row.answers} | {row.steps} | {row.longest_s:.2f} s "
        f"| {row.on_in_s:.2f} s | {human_bytes(row.written_bytes)} | {row.log_lines} |\n"
    )


if __name__ == "__main__":
    main()
