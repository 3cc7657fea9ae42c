"""Time per step under Flower's simulation, by how the steps travel and how many make a round.

    python -m benchmarks.flower_steps [--batch-sizes 256 1024] [--rounds-of 1 10 50 200]

Two peers with a network that takes next to no time (small images, no augmentation), so what is left is
what a step costs beside its mathematics: the N x N arithmetic, the exchange, and Flower's messages. A
step's time is the wall clock from one step's beginning to the next one's, at the peer that takes longest,
as a mean over whole rounds; nothing is evaluated on the way. `host=ray` is the same run without Flower.
The first round is left out: it has the start of the other peer in it.

Run it from the checkout: the peers import this package from the folder that you are in.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.machine import write_result
from benchmarks.stamps import read_stamps
from configs.compose import compose_run

ROUNDS = {1: 60, 10: 10, 50: 5, 200: 3}
"""Rounds of each length that are run."""
FLOWER_MODES = ("grpc", "flower")
RUN_WITHIN_S = 900.0
WARM_UP = 5


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        mode: "grpc" or "flower" for how steps travel under Flower, "ray" for the run without it.
        steps_per_round: K.
    """

    mode: str
    batch_size: int
    steps_per_round: int


def measure(cell: Cell) -> dict[str, float]:
    """Returns mean and median time in milliseconds of a step, at the peer that takes longest."""
    rounds = ROUNDS.get(cell.steps_per_round, 3)
    with tempfile.TemporaryDirectory(prefix="flower-steps-") as folder:
        _run(cell, rounds, Path(folder))
        timings = [_timing(path, cell.steps_per_round) for path in Path(folder).glob("*.stamps")]
    return max(timings, key=lambda timing: timing["mean_ms"])


def settings(cell: Cell, rounds: int, folder: Path) -> list[str]:
    """Returns the overrides of a cell's run."""
    total = rounds * cell.steps_per_round
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
        f"run_dir={folder / 'run'}",
    ]
    for peer in compose_run(["peers=pair"]).peers:
        found += [
            f"peers.{peer}.backbone.name=small_cnn",
            f"~peers.{peer}.backbone.options",
            f"+peers.{peer}.backbone.options={{width: 4}}",
            f"peers.{peer}.augmentation.name=benchmarks.stamps:stamped_views",
            f"~peers.{peer}.augmentation.options",
            f"+peers.{peer}.augmentation.options={{inner: none, inner_options: {{}}, "
            f"path: {folder / peer}.stamps, num_peers: 2}}",
        ]
    return found


def _run(cell: Cell, rounds: int, folder: Path) -> None:
    verb = ["train", "host=ray"] if cell.mode == "ray" else ["flower", f"exchange={cell.mode}"]
    command = [sys.executable, "-m", "server", *verb, *settings(cell, rounds, folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"{shlex.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}"
        )


def _timing(path: Path, steps_per_round: int) -> dict[str, float]:
    begun_s = read_stamps(path).wall_s[max(steps_per_round, WARM_UP) :]
    steps_s = [later - earlier for earlier, later in pairwise(begun_s)]
    return {
        "mean_ms": round(statistics.fmean(steps_s) * 1e3, 2),
        "median_ms": round(statistics.median(steps_s) * 1e3, 2),
        "steps": len(steps_s),
    }


def main() -> None:
    """Runs all cells, prints a table and writes it to benchmarks/results/."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--rounds-of", type=int, nargs="+", default=list(ROUNDS))
    arguments = parser.parse_args()
    found = []
    print(f"{'':<8} {'batch':>6} {'K':>5} {'mean ms':>9} {'median':>9} {'steps':>6}")
    for batch_size in arguments.batch_sizes:
        cells = [Cell("ray", batch_size, 200)]
        cells += [Cell(mode, batch_size, k) for mode in FLOWER_MODES for k in arguments.rounds_of]
        for cell in cells:
            timing = measure(cell)
            found.append({**vars(cell), **timing})
            print(
                f"{cell.mode:<8} {batch_size:>6} {cell.steps_per_round:>5} {timing['mean_ms']:>9.2f} "
                f"{timing['median_ms']:>9.2f} {timing['steps']:>6.0f}",
                flush=True,
            )
    command = shlex.join(["python", "-m", "benchmarks.flower_steps", *sys.argv[1:]])
    path = write_result("flower_steps", {"command": command, "cells": found})
    print(f"written to {path.name} in benchmarks/results/")


if __name__ == "__main__":
    main()
