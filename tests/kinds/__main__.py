"""Runs `dogo-fed train` with every kind of input, and prints what came of it, as a table.

    python -m tests.kinds [--only TEXT] [--before CHECKOUT]

With --before, another checkout of the project does the same beside it. It gets the words that its own
documentation gave for a folder: data=image_folder data.options.root=<folder>, and a batch and a number of
neighbours that fit so few images. The runs are six steps long.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from tests.kinds.inputs import KINDS

SHORT = (
    "host=local", "steps=6", "steps_per_round=3", "eval.linear_epochs=1", "run_dir=run",
)  # fmt: skip
HERE = Path(__file__).resolve().parents[2]
_LONGEST = 230
_TIMEOUT_S = 300


def main() -> None:
    """Prints a row for each kind, as soon as it is known."""
    parser = argparse.ArgumentParser(prog="python -m tests.kinds")
    parser.add_argument("--only", default="", help="kinds whose name has this text")
    parser.add_argument("--before", type=Path, help="another checkout")
    arguments = parser.parse_args()
    heads = ["kind", "command", *(["before"] if arguments.before else []), "now"]
    sys.stdout.write(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|\n")
    for name, write in KINDS.items():
        if arguments.only not in name:
            continue
        cells = []
        with tempfile.TemporaryDirectory(prefix="kind-") as place:
            settings = write(Path(place))
            if arguments.before:
                cells.append(outcome(place, arguments.before, _older(settings)))
            cells.append(outcome(place, HERE, settings))
            words = " ".join(f"'{one}'" if re.search(r"[\s()]", one) else one for one in settings)
            command = f"`dogo-fed train {words.replace(place + '/', '')}`"
        row = " | ".join(cell.replace("|", "\\|") for cell in (name, command, *cells))
        sys.stdout.write(f"| {row} |\n")
        sys.stdout.flush()


def outcome(place: str, checkout: Path, settings: list[str]) -> str:
    """Returns what a run with these settings came to: notes of a run that ended well, or the error."""
    for earlier in Path(place).glob("run*"):
        subprocess.run(["rm", "-r", str(earlier)], check=True)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "server", "train", *SHORT, *settings],
        cwd=place, env={**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=_TIMEOUT_S,
    )  # fmt: skip
    told = (done.stdout + done.stderr).replace(place + "/", "")
    if done.returncode == 0:
        notes = [line for line in told.splitlines() if line.startswith("data: ")]
        return _shortened("; ".join(["trains", *(note.removeprefix("data: ") for note in notes)]))
    lines = [line for line in told.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error")] or lines[-1:]
    is_traceback = any(line.startswith("Traceback") for line in lines)
    said = (errors or ["nothing"])[-1]
    prefix = "traceback, " if is_traceback else ""
    return _shortened(f"{prefix}exit {done.returncode}: {said}")


def _shortened(text: str) -> str:
    return textwrap.shorten(text, _LONGEST, placeholder=" ...")


def _older(settings: list[str]) -> list[str]:
    """Returns the words with which the project took a folder before it took `data=<folder>`.

    It took no smaller batch and no fewer neighbours by itself, so it is told both.
    """
    names = [one.partition("=")[0] for one in settings]
    fitting = {"batch_size": 32, "eval.knn_k": 10}
    found = [f"{name}={value}" for name, value in fitting.items() if name not in names]
    for one in settings:
        if one.startswith("data=") and "/" in one:
            found += ["data=image_folder", f"data.options.root={one.removeprefix('data=')}"]
        else:
            found.append(one)
    return found


if __name__ == "__main__":
    main()
