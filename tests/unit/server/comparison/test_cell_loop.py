"""The loop over the cells with made-up processes: order, room, deaths, stops, silence."""

from __future__ import annotations

import pytest

from dogo_fed.compare.experiment import Cell
from dogo_fed.exit_status import EXIT_STOPPED
from server.comparison.cell import CellJob
from server.comparison.cell_loop import CellEnding, CellLoop
from tests.support.comparison_cells import write_summary

BOTH = {"big": (0.5, 0.4), "small": (0.5, 0.4)}
PATIENCE = 10_000


class FakeHandle:
    """Ends after some looks, with the ending it is told."""

    def __init__(self, world: World, cell: Cell, looks: int, ending: CellEnding) -> None:
        self.world, self.cell, self.looks, self.how = world, cell, looks, ending
        self.is_stopped = self.is_killed = self.is_over = False

    def ending(self) -> CellEnding | None:
        if self.is_stopped and self.cell.id not in self.world.deaf:
            return self._over(CellEnding(EXIT_STOPPED, "stopped by the user"))
        self.looks -= 1
        if self.looks > 0:
            return None
        if self.how.status == 0 and self.cell.id not in self.world.empty_handed:
            write_summary(self.cell, BOTH)
        return self._over(self.how)

    def _over(self, ending: CellEnding) -> CellEnding:
        self.is_over = True
        return ending

    def last_word_s(self) -> float:
        return 0.0

    def stop(self) -> None:
        self.is_stopped = True

    def kill(self) -> None:
        self.is_killed |= not self.is_over
        self.is_over = True


class World:
    """A runner, a clock and what was told; `endings` and `looks` are by cell."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.started: list[str] = []
        self.jobs: dict[str, CellJob] = {}
        self.handles: list[FakeHandle] = []
        self.endings: dict[str, CellEnding] = {}
        self.looks: dict[str, int] = {}
        self.deaf: set[str] = set()
        self.empty_handed: set[str] = set()
        self.told: list[str] = []
        self.most_at_a_time = 0

    def start(self, cell: Cell, job: CellJob) -> FakeHandle:
        self.started.append(cell.id)
        self.jobs[cell.id] = job
        ending = self.endings.get(cell.id, CellEnding(0))
        handle = FakeHandle(self, cell, self.looks.get(cell.id, 1), ending)
        self.handles.append(handle)
        self.most_at_a_time = max(
            self.most_at_a_time, sum(not handle.is_over for handle in self.handles)
        )
        return handle

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        assert self.now_s < 1000 + PATIENCE, "the loop does not end"

    def loop(self, cells: list[Cell], **changes) -> CellLoop:
        settings = {"protocols": {}, "jobs": 2, "silence_s": 100.0, **changes}
        return CellLoop(
            cells=cells,
            runner=self,
            tell=self.told.append,
            clock=lambda: self.now_s,
            sleep=self.sleep,
            **settings,
        )


@pytest.fixture
def world() -> World:
    return World()


def outcomes(reports) -> dict[str, str]:
    return {report.id: report.outcome for report in reports}


def never() -> bool:
    return False


def test_all_are_run_each_after_its_teachers(world: World, cells: list[Cell]) -> None:
    world.looks = {"solo/pair/synthetic/0": 9}
    reports = world.loop(cells).run(never)
    assert set(outcomes(reports).values()) == {"finished"}
    assert sorted(world.started) == sorted(cell.id for cell in cells)
    place = world.started.index
    assert place("dogo/pair/synthetic/0") < place("offline-big/pair/synthetic/0")
    for cell in cells:
        assert all(place(other) < place(cell.id) for other in cell.needs)
    assert world.most_at_a_time == 2


@pytest.mark.parametrize("jobs", [1, 3, 50])
def test_never_more_than_jobs_at_a_time(jobs: int, world: World, cells: list[Cell]) -> None:
    world.looks = {cell.id: 5 for cell in cells}
    world.loop(cells, jobs=jobs).run(never)
    assert world.most_at_a_time <= jobs
    assert len(world.started) == len(cells)


def test_finished_cells_are_not_touched(world: World, cells: list[Cell]) -> None:
    for cell in cells[:5]:
        write_summary(cell, BOTH)
    before = {path: path.stat().st_mtime_ns for cell in cells[:5] for path in cell.folder.iterdir()}
    world.loop(cells).run(never)
    assert world.started == [cell.id for cell in cells[5:]]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_new_cell_begins_and_an_interrupted_one_goes_on(world: World, cells: list[Cell]) -> None:
    write_summary(cells[0], BOTH)
    (cells[0].folder / "summary.json").unlink()
    world.loop(cells[:1] + cells[3:4]).run(never)
    interrupted, new = world.jobs[cells[0].id].config, world.jobs[cells[3].id].config
    assert interrupted["resume"] == str(cells[0].folder)
    assert new["resume"] is None and new["run_dir"] == str(cells[3].folder)


def test_a_dead_cell_loses_nothing_but_what_needs_it(world: World, cells: list[Cell]) -> None:
    world.endings = {
        "solo/pair/synthetic/0": CellEnding(-9, "died of signal 9"),
        "dogo/pair/synthetic/1": CellEnding(1, "the loss is nan"),
    }
    reports = world.loop(cells).run(never)
    assert outcomes(reports) == {
        "solo/pair/synthetic/0": "failed",
        "offline-big/pair/synthetic/0": "blocked",
        "offline-small/pair/synthetic/0": "blocked",
        "dogo/pair/synthetic/0": "finished",
        "solo/pair/synthetic/1": "finished",
        "offline-big/pair/synthetic/1": "finished",
        "offline-small/pair/synthetic/1": "finished",
        "dogo/pair/synthetic/1": "failed",
    }
    assert "offline-big/pair/synthetic/0" not in world.started
    messages = {report.id: report.message for report in reports}
    assert messages["dogo/pair/synthetic/1"] == "the loss is nan"
    assert "solo/pair/synthetic/0" in messages["offline-big/pair/synthetic/0"]
    assert any("died of signal 9" in line for line in world.told)


def test_success_without_results_is_no_success(world: World, cells: list[Cell]) -> None:
    world.empty_handed = {cells[0].id}
    assert outcomes(world.loop(cells[:1]).run(never)) == {cells[0].id: "failed"}


def test_a_stop_asks_those_that_run_and_starts_no_more(world: World, cells: list[Cell]) -> None:
    world.looks = {cell.id: 50 for cell in cells}
    reports = world.loop(cells).run(lambda: world.now_s > 1001)
    assert len(world.started) == 2
    assert all(handle.is_stopped and not handle.is_killed for handle in world.handles)
    assert set(outcomes(reports).values()) == {"stopped"}


def test_who_does_not_stop_is_ended(world: World, cells: list[Cell]) -> None:
    world.looks = {cell.id: PATIENCE**2 for cell in cells}
    world.deaf = {cells[0].id}
    reports = world.loop(cells, silence_s=PATIENCE**2).run(lambda: world.now_s > 1001)
    assert outcomes(reports)[cells[0].id] == "stopped", "the user has asked for it"
    assert reports[0].message == "did not stop within 150 s, and was ended"
    assert world.handles[0].is_killed
    assert world.now_s < 1200


def test_silence_is_ended(world: World, cells: list[Cell]) -> None:
    world.looks = {cells[0].id: PATIENCE**2}
    reports = world.loop(cells).run(never)
    assert "said nothing for 100 s" in reports[0].message
    assert world.handles[0].is_killed
    assert outcomes(reports)["dogo/pair/synthetic/1"] == "finished"


def test_an_error_in_the_loop_leaves_no_cell_behind(world: World, cells: list[Cell]) -> None:
    world.looks = {cell.id: 50 for cell in cells}

    def interrupted() -> bool:
        if world.now_s > 1001:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        world.loop(cells).run(interrupted)
    assert world.handles and all(handle.is_killed for handle in world.handles)
