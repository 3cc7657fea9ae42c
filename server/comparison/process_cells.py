"""Runs cells in processes of this machine, side by side: one a core, or one a GPU."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dogo_fed.atomic import write_atomic
from dogo_fed.compare.experiment import Cell
from dogo_fed.config import RunConfig
from dogo_fed.engine.numerics import resolve_device
from dogo_fed.process_setup import thread_environment
from server.child_process import ChildProcess, how_it_ended
from server.comparison.cell import CellJob
from server.comparison.cell_loop import CellEnding, newest_of, signs_of_life
from server.hosts.gpus import visible_gpus
from server.process_tree import ProcessTree


class ProcessCellHandle:
    """A cell's process, with the GPU that it was given."""

    def __init__(
        self, process: ChildProcess, log: Path, folder: Path, busy: list[str], gpu: str
    ) -> None:
        self._process = process
        self._log = log
        self._signs = [log, *signs_of_life(folder)]
        self._busy = busy
        self._gpu = gpu

    def ending(self) -> CellEnding | None:
        """Returns how it ended, with the last line of its output, or None while it runs."""
        status = self._process.status()
        if status is None:
            return None
        self._give_gpu_back()
        if status == 0:
            return CellEnding(0)
        said = f"{self._process.last_line() or 'it said nothing'} (all of it: {self._log})"
        return CellEnding(status, said if status > 0 else f"{how_it_ended(status)}; {said}")

    def last_word_s(self) -> float:
        """Returns when one of its files was last written, by `time.time`."""
        return newest_of(self._signs)

    def stop(self) -> None:
        """Asks it to save itself and end."""
        self._process.terminate()

    def kill(self) -> None:
        """Kills it."""
        self._process.kill()
        self._give_gpu_back()

    def _give_gpu_back(self) -> None:
        if self._gpu in self._busy:
            self._busy.remove(self._gpu)
        self._gpu = ""


class ProcessCells:
    """Starts cells as processes."""

    def __init__(
        self, processes: ProcessTree, out: Path, threads: int, gpus: Sequence[str]
    ) -> None:
        """Prepares; nothing is started yet.

        Args:
            processes: starts processes, and ends those that are left over.
            out: folder of the comparison; it gets the subfolders jobs and logs.
            threads: torch's threads in a cell.
            gpus: the GPUs for cells, as CUDA_VISIBLE_DEVICES names them.
        """
        self._processes = processes
        self._out = out
        self._threads = threads
        self._gpus = tuple(gpus)
        self._busy: list[str] = []

    def start(self, cell: Cell, job: CellJob) -> ProcessCellHandle:
        """Starts a cell; its output goes to a file in logs/."""
        name = cell.id.replace("/", "-")
        path, log = self._out / "jobs" / f"{name}.json", self._out / "logs" / f"{name}.log"
        for folder in (path.parent, log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, job.to_json())
        environment = {**os.environ, **thread_environment(self._threads), "PYTHONUNBUFFERED": "1"}
        gpu = self._take_gpu()
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with log.open("wb") as output:
            process = self._processes.start(
                [sys.executable, "-m", "server.comparison.cell", str(path)], environment, output
            )
        return ProcessCellHandle(ChildProcess(process, log), log, cell.folder, self._busy, gpu)

    def _take_gpu(self) -> str:
        """Returns the GPU with the fewest cells; an empty text if there is no GPU."""
        if not self._gpus:
            return ""
        gpu = min(self._gpus, key=self._busy.count)
        self._busy.append(gpu)
        return gpu


def gpus_of_cells(config: RunConfig) -> list[str]:
    """Returns the GPUs that cells of this run would use; none if they compute on the CPU."""
    return visible_gpus() if resolve_device(config.device).type == "cuda" else []


def default_jobs(config: RunConfig, gpus: Sequence[str]) -> int:
    """Returns how many cells run at a time: one a GPU, or as many as the cores allow."""
    if gpus:
        return len(gpus)
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, cores // config.threads_per_peer)
