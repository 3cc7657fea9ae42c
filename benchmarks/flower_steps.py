"""Time per step under Flower's simulation, by how the steps travel and how many make a round.

    python -m benchmarks.flower_steps [--batch-sizes 256 1024] [--rounds-of 1 10 50 200] [--rounds 1]

Two peers with a network that takes next to no time (small images, no augmentation), so what is left is
what a step costs beside its mathematics: the N x N arithmetic, the exchange, and Flower's messages. A
step's time is the wall clock from the drawing of one step's views to that of the next one's, at the peer
that takes longest, as a mean over whole rounds of the run; nothing is evaluated on the way. Processor time is
that of the same peer's process. `host=ray` is the same run without Flower. The first round of a run is left
out: it has the start of the other peer in it.

All runs take turns, --rounds times; a run takes about a minute. This benchmark needs Flower, Ray and Hydra.
Run it from the checkout: the peers import this package from the folder that you are in.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.machine import Result
from benchmarks.settings import peers_named
from benchmarks.stamps import Stamps, read_stamps
from benchmarks.turns import spread, take_turns, told

ROUNDS = {1: 60, 10: 10, 50: 5, 200: 3}
"""Rounds of each length that are run."""
FLOWER_MODES = ("grpc", "flower")
RUN_WITHIN_S = 900.0
WARM_UP = 5

HOW = (
    "All runs took turns; a spread is over so many runs of each kind as --rounds says (1 unless told). Times "
    "are of the peer that takes longest."
)


@dataclass(frozen=True)
class Cell:
    """One kind of run.

    Attributes:
        mode: "grpc" or "flower" for how steps travel under Flower, "ray" for the run without it.
        steps_per_round: K.
    """

    mode: str
    batch_size: int
    steps_per_round: int

    def __str__(self) -> str:
        return f"{self.mode:<8} {self.batch_size:>6} {self.steps_per_round:>5}"


@dataclass(frozen=True)
class Timing:
    """A peer's steps, in milliseconds of the wall clock and of the processor."""

    mean_ms: float
    median_ms: float
    cpu_ms: float
    steps: int


def measure(cell: Cell) -> Timing:
    """Does a run; returns the timing of the peer that takes longest."""
    rounds = ROUNDS.get(cell.steps_per_round, 3)
    with tempfile.TemporaryDirectory(prefix="flower-steps-") as folder:
        _run(cell, rounds, Path(folder))
        found = [
            timing(read_stamps(path), cell.steps_per_round)
            for path in Path(folder).glob("*.stamps")
        ]
    return max(found, key=lambda one: one.mean_ms)


def settings(cell: Cell, rounds: int, folder: Path) -> list[str]:
    """Returns the overrides of a cell's run."""
    total = rounds * cell.steps_per_round
    run_dir = folder / "run"
    found = [
        "peers=pair",
        "data=synthetic",
        f"data.options.size={2 * cell.batch_size}",
        "data.options.image_size=8",
        f"batch_size={cell.batch_size}",
        f"steps={total}",
        f"steps_per_round={cell.steps_per_round}",
        f"eval.knn_every_rounds={rounds + 1}",
        "eval.knn_k=20",
        "eval.linear=false",
        f"checkpoint.every_steps={total}",
        "recovery.max_restarts=0",
        f"run_dir={run_dir}",
    ]
    for peer in peers_named("pair"):
        found += [
            f"peers.{peer}.backbone.name=small_cnn",
            f"~peers.{peer}.backbone.options",
            f"+peers.{peer}.backbone.options={{width: 4}}",
            f"peers.{peer}.augmentation.name=benchmarks.stamps:stamped_views",
            f"~peers.{peer}.augmentation.options",
            f"+peers.{peer}.augmentation.options={{inner: none, inner_options: {{}}, "
            f"path: {folder / peer}.stamps, run_dir: {run_dir}, num_peers: 2}}",
        ]
    return found


def _run(cell: Cell, rounds: int, folder: Path) -> None:
    command = ["train", "host=ray"] if cell.mode == "ray" else ["flower", f"exchange={cell.mode}"]
    command = [sys.executable, "-m", "server", *command, *settings(cell, rounds, folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{shlex.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}"
        )


def timing(stamps: Stamps, steps_per_round: int) -> Timing:
    """Returns what the steps after the first round have taken."""
    first = max(steps_per_round, WARM_UP)
    drawn_s, used_s = stamps.wall_s[first:], stamps.processor_s[first:]
    steps_s = [later - earlier for earlier, later in pairwise(drawn_s)]
    return Timing(
        mean_ms=statistics.fmean(steps_s) * 1e3,
        median_ms=statistics.median(steps_s) * 1e3,
        cpu_ms=(used_s[-1] - used_s[0]) / len(steps_s) * 1e3,
        steps=len(steps_s),
    )


def row(cell: Cell, found: Sequence[Timing]) -> dict[str, Any]:
    """Returns the figures of a kind of run."""
    return {
        **vars(cell),
        "mean_ms": spread([one.mean_ms for one in found]),
        "median_ms": spread([one.median_ms for one in found]),
        "cpu_ms": spread([one.cpu_ms for one in found]),
        "steps": found[0].steps,
    }


def main() -> None:
    """Runs all cells, prints a table and writes it to benchmarks/results/."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--rounds-of", type=int, nargs="+", default=list(ROUNDS))
    parser.add_argument("--rounds", type=int, default=1, help="runs of each kind")
    asked = parser.parse_args()
    cells = []
    for batch_size in asked.batch_sizes:
        cells.append(Cell("ray", batch_size, 200))
        cells += [Cell(mode, batch_size, k) for mode in FLOWER_MODES for k in asked.rounds_of]
    with Result("flower_steps", HOW, parser, asked) as result:
        found = take_turns({cell: partial(measure, cell) for cell in cells}, asked.rounds)
        result.failed |= {" ".join(name.split()): why for name, why in found.failed.items()}
        result.found["cells"] = rows = []
        print(f"{'':<8} {'batch':>6} {'K':>5}  mean ms of a step; processor ms")
        for cell, timings in found.rounds().items():
            one = row(cell, timings)
            rows.append(one)
            print(f"{cell}  {told(one['mean_ms']):<28} {told(one['cpu_ms'])}")


if __name__ == "__main__":
    main()
