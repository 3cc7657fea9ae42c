"""The main job, `dogo-fed train` without arguments, in fp32 and with precision=auto: how long, and how good.

    python -m benchmarks.main_job [key=value ...] [--rounds 2] [--hosts ray] [--precisions fp32 auto]

Each run is a command of its own, of the settings in configs/, on the host that is the default there; --hosts
processes, or both, says otherwise. Further arguments are overrides as of `dogo-fed train`. All runs take
turns. One takes about 4 minutes on 2 cores, so `make bench` leaves this out.

wall_s       as the summary has it: from the start of the peers to the last evaluation
command_s    of the whole command: imports, Ray's start and what precision=auto tries before the run as well
cpu_s        seconds of the processor, of the command and all processes below it, Ray's own among them

It needs Hydra, and Ray where that is the host.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import yaml

from benchmarks.machine import CHECKOUT, Result
from benchmarks.turns import spread, take_turns, told
from dogo_fed import layout
from dogo_fed.config import Host, Precision

TRAIN = (sys.executable, "-m", "server", "train")
LOOKS_EVERY_S = 0.5

HOW = (
    "All runs took turns; the spread is over rounds. The processor's seconds are looked up every "
    f"{LOOKS_EVERY_S:g} s, so up to so much at the end of each process is left out."
)


@dataclass(frozen=True)
class Job:
    """One kind of run."""

    host: str
    precision: str

    def __str__(self) -> str:
        return f"{self.host}, {self.precision}"


@dataclass(frozen=True)
class Done:
    """What a run has taken and reached.

    Attributes:
        takes: the precision of its passes, which precision=auto has chosen.
        accuracies: by peer and metric, from 0 to 1; None without labels.
    """

    takes: str
    wall_s: float
    command_s: float
    cpu_s: float
    accuracies: dict[str, float | None]


class ProcessorOf:
    """Adds up the processor seconds of a process and of all below it. Use it in a `with`."""

    def __init__(self, process_id: int) -> None:
        self._root = psutil.Process(process_id)
        self._seen: dict[psutil.Process, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._look_again_and_again)

    def __enter__(self) -> ProcessorOf:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    @property
    def seconds(self) -> float:
        """What they have used so far, those that have ended too."""
        return sum(self._seen.values())

    def _look_again_and_again(self) -> None:
        self._look()
        while not self._is_over.wait(LOOKS_EVERY_S):
            self._look()

    def _look(self) -> None:
        there = {self._root, *self._seen}
        with suppress(psutil.Error):
            there.update(self._root.children(recursive=True))
        for process in there:  # also those whose parent has ended meanwhile
            with suppress(psutil.Error):
                used = process.cpu_times()
                self._seen[process] = used.user + used.system


def run_once(job: Job, overrides: Sequence[str]) -> Done:
    """Does a run in a folder that is removed afterwards.

    Raises:
        RuntimeError: it has failed.
    """
    with tempfile.TemporaryDirectory(prefix="main-job-") as folder:
        run_dir, said = Path(folder) / "run", Path(folder) / "said"
        settings = [f"host={job.host}", f"precision={job.precision}", f"run_dir={run_dir}"]
        command = [*TRAIN, *overrides, *settings]
        started_s = time.monotonic()
        with (
            said.open("w", encoding="utf-8") as log,
            subprocess.Popen(command, cwd=CHECKOUT, stdout=log, stderr=log) as process,
            ProcessorOf(process.pid) as processor,
        ):
            process.wait()
        command_s = time.monotonic() - started_s
        if process.returncode != 0:
            end = said.read_text(encoding="utf-8")[-2000:]
            raise RuntimeError(f"{shlex.join(command)} ended with {process.returncode}: {end}")
        summary = json.loads((run_dir / layout.SUMMARY).read_text(encoding="utf-8"))
        config = yaml.safe_load((run_dir / layout.CONFIG).read_text(encoding="utf-8"))
    return Done(
        takes=config["precision"],
        wall_s=summary["wall_s"],
        command_s=command_s,
        cpu_s=processor.seconds,
        accuracies={
            f"{peer}, {name}": reached[key]
            for peer, reached in summary["peers"].items()
            for name, key in (("kNN", "knn_top1"), ("linear", "linear_top1"))
        },
    )


def row(job: Job, rounds: Sequence[Done]) -> dict[str, Any]:
    """Returns the figures of a kind of run."""
    accuracies = {
        name: [one.accuracies[name] for one in rounds if one.accuracies[name] is not None]
        for name in rounds[0].accuracies
    }
    return {
        "host": job.host,
        "precision": job.precision,
        "takes": " or ".join(sorted({one.takes for one in rounds})),
        "wall_s": spread([one.wall_s for one in rounds]),
        "command_s": spread([one.command_s for one in rounds]),
        "cpu_s": spread([one.cpu_s for one in rounds]),
        **{name: spread(values) if values else None for name, values in accuracies.items()},
    }


def missing(hosts: Sequence[str]) -> list[str]:
    """Returns the packages that these runs need, and that are not here."""
    needed = ["hydra", "ray"] if Host.RAY.value in hosts else ["hydra"]
    return [name for name in needed if find_spec(name) is None]


def main() -> None:
    """Lets all runs take turns, prints a table and writes the figures.

    Raises:
        SystemExit: a package is missing, or a run has failed.
    """
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=2)
    hosts = [Host.RAY.value, Host.PROCESSES.value]
    parser.add_argument("--hosts", nargs="+", choices=hosts, default=hosts[:1])
    precisions = [one.value for one in Precision]
    parser.add_argument("--precisions", nargs="+", choices=precisions, default=["fp32", "auto"])
    parser.add_argument("overrides", nargs="*", help="e.g. peers=trio")
    asked = parser.parse_args()
    if absent := missing(asked.hosts):
        sys.exit(
            f"main_job runs `dogo-fed train` on {' and '.join(asked.hosts)}, which needs "
            f"{' and '.join(absent)}; install it by `pip install -e .`"
            + (", or type --hosts processes" if absent == ["ray"] else "")
        )
    jobs = [Job(*one) for one in product(asked.hosts, asked.precisions)]
    with Result("main_job", HOW, parser, asked) as result:
        found = take_turns(
            {job: partial(run_once, job, asked.overrides) for job in jobs}, asked.rounds
        )
        result.failed.update(found.failed)
        result.found["rows"] = [row(job, rounds) for job, rounds in found.rounds().items()]
        for one in result.found["rows"]:
            print(f"{one['host']}, {one['precision']} (takes {one['takes']})")
            for name, value in list(one.items())[3:]:
                print(f"  {name:<20} {told(value)}")


if __name__ == "__main__":
    main()
