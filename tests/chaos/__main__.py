"""`make chaos`: disturbs real runs on this machine, and prints what came of it, as a table."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.cells import CELLS, MOST_LOST, ON_RAY, Bench, Ending

_HEAD = (
    "| host | disturbance | times | finished | weights as undisturbed | steps lost, median (most) "
    "| others waited, median (most) | back after, median (most) |\n|---|---|---|---|---|---|---|---|\n"
)


def main() -> int:
    """Runs the cells; returns 1 if one of them ended badly."""
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--times", type=int, default=20, help="of each disturbance")
    parser.add_argument("--cells", nargs="*", default=list(CELLS), choices=list(CELLS))
    parser.add_argument("--hosts", nargs="*", default=["processes", "ray"])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    began_s, num_bad = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="dogo-chaos-") as place:
        sys.stdout.write(_HEAD)
        for host in given.hosts:
            folder = Path(place) / host
            folder.mkdir()
            bench = Bench(folder, host, given.seed)
            for name in given.cells:
                if host == "ray" and name not in ON_RAY:
                    continue
                num_bad += _cell(bench, name, given.times)
    sys.stdout.write(f"\nTook {time.monotonic() - began_s:.0f} s.\n")
    return 1 if num_bad else 0


def _cell(bench: Bench, name: str, times: int) -> int:
    """Tries one disturbance many times and prints its row; returns how often it ended badly."""
    endings: list[Ending] = []
    for number in range(times):
        try:
            ending = CELLS[name](bench)
            most = MOST_LOST.get(name)
            assert most is None or ending.steps_lost <= most, f"{ending.steps_lost} steps are lost"
            endings.append(ending)
        except Exception as error:  # every other try is worth its row all the same
            sys.stderr.write(f"{bench.host} {name} {number}: {type(error).__name__}: {error}\n")
    sys.stdout.write(row(bench.host, name, times, endings))
    sys.stdout.flush()
    return times - len(endings) + sum(one.is_equal is False for one in endings)


def row(host: str, name: str, times: int, endings: Sequence[Ending]) -> str:
    """Returns a row of the table."""
    compared = [one.is_equal for one in endings if one.is_equal is not None]
    equal = f"{sum(compared)} of {len(compared)}" if compared else "steps were missed"
    return (
        f"| {host} | {name.replace('_', ' ')} | {times} | {len(endings)} | {equal} "
        f"| {_typical([one.steps_lost for one in endings], 0)} "
        f"| {_typical([one.on_s for one in endings if one.on_s is not None], 1, ' s')} "
        f"| {_typical([one.back_s for one in endings if one.back_s is not None], 1, ' s')} |\n"
    )


def _typical(values: Sequence[float], digits: int, unit: str = "") -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.{digits}f}{unit} ({max(values):.{digits}f}{unit})"


if __name__ == "__main__":
    sys.exit(main())
