"""Runs several benchmarks, one after the other, and writes the pages; one that fails stops no other.

    python -m benchmarks.several step epoch "far_link --full"

Each is a process of its own, with its arguments behind its name. This ends with 1 if one of them did not
measure all of it, and names it.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.machine import CHECKOUT

PAGE = "page"


def failures(commands: Sequence[str]) -> list[str]:
    """Runs these benchmarks of this package; returns those that did not end with 0.

    Args:
        commands: names with their arguments.
    """
    failed = []
    for command in commands:
        name, *arguments = shlex.split(command)
        print(f"\n== {command}", flush=True)
        program = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        if subprocess.run(program, cwd=CHECKOUT, check=False).returncode != 0:
            failed.append(command)
    return failed


def main(commands: Sequence[str]) -> None:
    """Runs them and then the page.

    Raises:
        SystemExit: something has failed, or there is nothing to run.
    """
    if not commands:
        sys.exit(__doc__)
    failed = failures([*commands, PAGE])
    if failed:
        sys.exit(f"not all was measured; see above: {', '.join(failed)}")


if __name__ == "__main__":
    main(sys.argv[1:])
