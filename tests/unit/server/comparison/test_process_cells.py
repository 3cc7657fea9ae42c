"""Cells in processes of this machine: how many at a time, the GPU of each, and how each ended."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

import pytest
import torch

from dogo_fed.compare.experiment import Cell
from server.comparison import process_cells
from server.comparison.cell import CellJob
from server.comparison.cell_loop import CellEnding
from server.comparison.process_cells import (
    ProcessCellHandle,
    ProcessCells,
    default_jobs,
    gpus_of_cells,
)
from tests.support.comparison_cells import shared_config


class MadeProcess:
    """Stands in for `subprocess.Popen`; a test sets how it ended."""

    pid = 2**22 + 1  # no process has this id

    def __init__(self) -> None:
        self.returncode: int | None = None
        self.is_asked_to_end = False

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.is_asked_to_end = True

    def kill(self) -> None:
        self.returncode = -signal.SIGKILL

    def wait(self, timeout: float) -> None:
        assert self.returncode is not None, "it would be waited for in vain"


class MadeProcesses:
    """Stands in for a `ProcessTree`: starts nothing, and keeps what it was asked to start."""

    def __init__(self) -> None:
        self.commands: list[Sequence[str]] = []
        self.environments: list[Mapping[str, str]] = []
        self.made: list[MadeProcess] = []
        self.says = ""

    def start(
        self, command: Sequence[str], environment: Mapping[str, str], output: IO[bytes]
    ) -> MadeProcess:
        output.write(self.says.encode())
        self.commands.append(command)
        self.environments.append(environment)
        self.made.append(MadeProcess())
        return self.made[-1]

    def gpus(self) -> list[str | None]:
        """Returns what each process sees of the GPUs."""
        return [one.get("CUDA_VISIBLE_DEVICES") for one in self.environments]


@pytest.fixture
def processes() -> MadeProcesses:
    return MadeProcesses()


def job_of(cell: Cell) -> CellJob:
    return CellJob(
        folder=str(cell.folder),
        config={"seed": cell.seed},
        is_trained=False,
        protocols={},
        learners=list(cell.learners),
    )


def started(runner: ProcessCells, *cells: Cell) -> list[ProcessCellHandle]:
    return [runner.start(cell, job_of(cell)) for cell in cells]


@pytest.mark.parametrize(("device", "found"), [("auto", ["4", "7"]), ("cpu", [])])
def test_cells_that_compute_on_the_cpu_use_no_gpu(device, found, monkeypatch) -> None:
    kinds = {"auto": "cuda", "cpu": "cpu"}
    monkeypatch.setattr(process_cells, "resolve_device", lambda name: torch.device(kinds[name]))
    monkeypatch.setattr(process_cells, "visible_gpus", lambda: ["4", "7"])
    assert gpus_of_cells(shared_config(0, device=device)) == found


@pytest.mark.parametrize(
    ("cores", "threads", "gpus", "jobs"),
    [
        (8, 1, [], 8),
        (8, 3, [], 2),
        (2, 4, [], 1),
        (8, 1, ["0", "1", "2"], 3),
        (1, 4, ["4", "7"], 2),
    ],
)
def test_one_cell_a_gpu_or_as_many_as_the_cores_allow(
    cores, threads, gpus, jobs, monkeypatch
) -> None:
    allowed = set(range(cores))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
    assert default_jobs(shared_config(0, threads_per_peer=threads), gpus) == jobs


@pytest.mark.parametrize(("cores", "jobs"), [(6, 3), (1, 1), (None, 1)])
def test_where_no_process_is_tied_to_cores_all_of_them_count(cores, jobs, monkeypatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert default_jobs(shared_config(0, threads_per_peer=2), []) == jobs


def test_a_cell_gets_its_job_in_a_file_and_its_threads(
    processes: MadeProcesses,
    cells: list[Cell],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    started(ProcessCells(processes, tmp_path, 3, []), cells[0])
    path = tmp_path / "jobs" / "solo-pair-synthetic-0.json"
    assert processes.commands == [[sys.executable, "-m", "server.comparison.cell", str(path)]]
    assert CellJob.from_json(path.read_text()) == job_of(cells[0])
    assert processes.environments[0]["OMP_NUM_THREADS"] == "3"
    assert processes.gpus() == [None]


@pytest.mark.parametrize(
    ("said", "status", "told"),
    [
        ("round 1\nthe loss is nan\n \n", 1, "the loss is nan (all of it: {log})"),
        ("", 2, "it said nothing (all of it: {log})"),
        ("round 1\n", -9, "died of SIGKILL; round 1 (all of it: {log})"),
        ("round 1\nwell done\n", 0, ""),
    ],
)
def test_how_a_cell_ended_is_told_with_its_last_line_and_its_log(
    said: str,
    status: int,
    told: str,
    processes: MadeProcesses,
    cells: list[Cell],
    tmp_path: Path,
) -> None:
    processes.says = said
    (handle,) = started(ProcessCells(processes, tmp_path, 1, []), cells[0])
    assert handle.ending() is None
    processes.made[0].returncode = status
    log = tmp_path / "logs" / "solo-pair-synthetic-0.log"
    assert handle.ending() == CellEnding(status, told.format(log=log))


def test_its_log_is_a_sign_of_life(
    processes: MadeProcesses, cells: list[Cell], tmp_path: Path
) -> None:
    (handle,) = started(ProcessCells(processes, tmp_path, 1, []), cells[0])
    os.utime(tmp_path / "logs" / "solo-pair-synthetic-0.log", (5.0, 5.0))
    assert handle.last_word_s() == 5.0


def test_a_stop_asks_and_a_kill_does_not(
    processes: MadeProcesses, cells: list[Cell], tmp_path: Path
) -> None:
    (handle,) = started(ProcessCells(processes, tmp_path, 1, []), cells[0])
    handle.stop()
    assert processes.made[0].is_asked_to_end and handle.ending() is None
    handle.kill()
    ending = handle.ending()
    assert ending is not None and ending.status == -signal.SIGKILL


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_gpu_is_given_back_when_its_cell_has_ended(
    is_killed: bool, processes: MadeProcesses, cells: list[Cell], tmp_path: Path
) -> None:
    runner = ProcessCells(processes, tmp_path, 1, ["4", "7"])
    _, second = started(runner, *cells[:2])
    assert processes.gpus() == ["4", "7"]
    if is_killed:
        second.kill()
    else:
        processes.made[1].returncode = 1
        assert second.ending() is not None
    started(runner, cells[2])
    assert processes.gpus() == ["4", "7", "7"]


def test_a_gpu_that_several_cells_share_is_given_back_once_by_each(
    processes: MadeProcesses, cells: list[Cell], tmp_path: Path
) -> None:
    """GPU 4 has two cells, of which one ends: it has one then, as GPU 7 has."""
    runner = ProcessCells(processes, tmp_path, 1, ["4", "7"])
    first, *_ = started(runner, *cells[:3])
    processes.made[0].returncode = 0
    assert first.ending() == first.ending() == CellEnding(0)
    first.kill()
    started(runner, *cells[3:5])
    assert processes.gpus() == ["4", "7", "4", "4", "7"]
