"""Runs the cells of a comparison side by side, in order, each after the cells that it needs.

A failed cell does not end the others. A `CellRunner` decides where cells run. Nothing here waits
without a deadline: a cell that writes nothing for too long is killed, and so is a cell that does
not stop when it is asked to.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dogo_fed import layout
from dogo_fed.compare.comparison import CellReport
from dogo_fed.compare.experiment import Cell
from dogo_fed.compare.standing import Standing, finished_summary, missing_protocols, standing_of
from dogo_fed.config_text import to_mapping
from dogo_fed.exit_status import EXIT_STOPPED
from dogo_fed.reporting.units import human_seconds
from server.comparison.cell import CellJob
from server.hosts.watch import Overdue, Watch, Watchable

_POLL_S = 0.2
_STOP_WITHIN_S = 150.0


@dataclass(frozen=True, slots=True)
class CellEnding:
    """How a cell's process ended.

    Attributes:
        status: its exit status; negative if it died.
        message: one sentence for people; may be empty.
    """

    status: int
    message: str = ""


class CellHandle(Watchable[CellEnding], Protocol):
    """A cell's process or task."""

    def last_word_s(self) -> float:
        """Returns the time, by `time.time`, of its last sign of life; 0 if there is none."""
        ...

    def stop(self) -> None:
        """Asks it to save itself and end."""
        ...


class CellRunner(Protocol):
    """Starts cells."""

    def start(self, cell: Cell, job: CellJob) -> CellHandle:
        """Starts a cell; the caller limits how many run at a time."""
        ...


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A cell that has been started."""

    cell: Cell
    handle: CellHandle
    started_s: float

    def last_word_s(self) -> float:
        """Returns the time of its last sign of life, or of its start."""
        return max(self.handle.last_word_s(), self.started_s)


@dataclass(slots=True)
class CellLoop:
    """Runs the cells of a comparison.

    Attributes:
        cells: all cells, each after those that it needs.
        protocols: the evaluations of every cell, with their options.
        runner: starts cells.
        jobs: number of cells at a time.
        silence_s: seconds without a sign of life after which a cell is killed.
        tell: gets a line for people whenever something happens.
        clock, sleep: those of the time module; tests replace them.
    """

    cells: Sequence[Cell]
    protocols: Mapping[str, Mapping[str, Any]]
    runner: CellRunner
    jobs: int
    silence_s: float
    tell: Callable[[str], None]
    clock: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    _reports: dict[str, CellReport] = field(default_factory=dict)
    _under_way: dict[str, _UnderWay] = field(default_factory=dict)
    _watch: Watch[str, CellEnding] = field(init=False)

    def __post_init__(self) -> None:
        self._watch = Watch(
            silence_s=self.silence_s,
            silence_setting="silence_s",
            stop_within_s=_STOP_WITHIN_S,
            clock=self.clock,
        )

    def run(self, stop_requested: Callable[[], bool]) -> list[CellReport]:
        """Runs the unfinished cells; returns a report for each cell, in the order of the cells."""
        waiting = []
        for cell in self.cells:
            if standing_of(cell, self.protocols) is Standing.FINISHED:
                self._note(cell, "finished")
            else:
                waiting.append(cell)
        if len(waiting) < len(self.cells):
            self.tell(
                f"{len(self.cells) - len(waiting)} of {len(self.cells)} cells are finished already"
            )
        try:
            while waiting or self._watch.running:
                if stop_requested():
                    self._stop()
                waiting = self._start_what_can_be(waiting)
                self._look()
                if self._watch.running:
                    self.sleep(_POLL_S)
        finally:
            self._watch.kill_all()
        return [self._reports[cell.id] for cell in self.cells]

    def _start_what_can_be(self, waiting: Sequence[Cell]) -> list[Cell]:
        """Starts cells while there is room; returns those that still wait."""
        left = []
        for cell in waiting:
            outcomes = [self._outcome(other) for other in cell.needs]
            if self._watch.is_stopping:
                self._note(cell, "stopped", "not started")
            elif any(outcome not in (None, "finished") for outcome in outcomes):
                self._note(cell, "blocked", f"it needs {', '.join(cell.needs)}")
                self.tell(f"{cell.id}: blocked, it needs {', '.join(cell.needs)}")
            elif None in outcomes or len(self._watch.running) >= self.jobs:
                left.append(cell)
            else:
                self._start(cell)
        return left

    def _start(self, cell: Cell) -> None:
        phrases = {
            Standing.NEW: "starts",
            Standing.INTERRUPTED: "goes on",
            Standing.TRAINED: "is evaluated",
        }
        standing = standing_of(cell, self.protocols)
        handle = self.runner.start(cell, job_of(cell, standing, self.protocols))
        self._under_way[cell.id] = _UnderWay(cell, handle, self.clock())
        self._watch.add(cell.id, handle)
        self.tell(f"{cell.id}: {phrases[standing]}")

    def _look(self) -> None:
        """Looks once at every running cell."""
        for cell_id, ending in self._watch.look(lambda key: self._under_way[key].last_word_s()):
            running = self._under_way[cell_id]
            if isinstance(ending, Overdue):
                status = EXIT_STOPPED if self._watch.is_stopping else -1
                ending = CellEnding(status, f"{ending.reason}, and was ended")
            self._ended(running.cell, ending, self.clock() - running.started_s)

    def _ended(self, cell: Cell, ending: CellEnding, seconds: float) -> None:
        if ending.status == 0 and finished_summary(cell) is not None:
            self._note(cell, "finished")
            count = sum(report.outcome == "finished" for report in self._reports.values())
            self.tell(
                f"{cell.id}: finished in {human_seconds(seconds)} ({count} of {len(self.cells)})"
            )
            return
        outcome = "stopped" if ending.status == EXIT_STOPPED else "failed"
        message = ending.message or f"ended with status {ending.status} and no results"
        self._note(cell, outcome, message)
        self.tell(f"{cell.id}: {outcome}, {message}")

    def _stop(self) -> None:
        if self._watch.begin_stop():
            self.tell("stopping: the cells that run save themselves")
            for cell_id in self._watch.running:
                self._under_way[cell_id].handle.stop()

    def _outcome(self, cell_id: str) -> str | None:
        report = self._reports.get(cell_id)
        return None if report is None else report.outcome

    def _note(self, cell: Cell, outcome: str, message: str = "") -> None:
        self._reports[cell.id] = CellReport(
            id=cell.id, folder=str(cell.folder), outcome=outcome, message=message
        )


def job_of(cell: Cell, standing: Standing, protocols: Mapping[str, Mapping[str, Any]]) -> CellJob:
    """Returns what is left to do for a cell."""
    config = cell.config
    if standing is Standing.INTERRUPTED:
        config = dataclasses.replace(config, resume=str(cell.folder))
    return CellJob(
        folder=str(cell.folder),
        config=to_mapping(config),
        is_trained=standing in (Standing.TRAINED, Standing.FINISHED),
        protocols=missing_protocols(cell, protocols),
        learners=cell.learners,
    )


def newest_of(paths: Iterable[Path]) -> float:
    """Returns the time at which one of the files was last written; 0 if there is none."""
    newest = 0.0
    for path in paths:
        try:
            newest = max(newest, path.stat().st_mtime)
        except OSError:
            continue
    return newest


def signs_of_life(folder: Path) -> list[Path]:
    """Returns the files that a cell writes to while it lives."""
    return [folder / name for name in (layout.METRICS, layout.COORDINATOR_LOG, layout.EVALUATION)]
