"""`dogo-fed compare`: from nothing to a table, again, after a kill, and when a cell dies."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from dogo_fed.compare.experiment import Cell
from dogo_fed.engine.peer import Peer
from dogo_fed.errors import TrainingError
from server.commands import compare as compare_command
from server.comparison.cell import CellJob, run_cell
from server.comparison.cell_loop import CellEnding
from server.comparison.request import ComparisonRequest
from tests.support.command_line import dogo_fed, start
from tests.support.run_watch import (
    descendants,
    digests,
    events,
    is_alive,
    kill,
    records,
    wait_until_gone,
)
from tests.support.tiny_run import TINY

pytestmark = pytest.mark.timeout(600)

RUN = (
    "compare", *[part for part in TINY if not part.startswith("steps=")], "steps=2",
    "peers=simclr_simsiam", "seeds=[0,1]",
)  # fmt: skip

LONG_S = 250.0
"""Enough for several processes to start and end on a busy machine."""


def times(out: Path) -> dict[Path, int]:
    """Returns when each file of a cell was last written."""
    return {path: path.stat().st_mtime_ns for path in (out / "cells").rglob("*") if path.is_file()}


def times_of_solo(out: Path) -> dict[Path, int]:
    return {path: when for path, when in times(out).items() if "solo" in path.parts}


class InThisProcess:
    """Runs a cell when it is started, here: what takes seconds in a process of its own is its imports."""

    def start(self, cell: Cell, job: CellJob) -> Ended:
        return Ended(CellEnding(*run_cell(job.to_json())))


@dataclass
class Ended:
    how: CellEnding

    def ending(self) -> CellEnding:
        return self.how

    def last_word_s(self) -> float:
        return 0.0

    def stop(self) -> None:
        raise AssertionError("it has ended")

    def kill(self) -> None:
        """Has ended."""


@contextmanager
def in_this_process(request: ComparisonRequest) -> Iterator[tuple[InThisProcess, int]]:
    yield InThisProcess(), 1


def compare(*arguments: str, expect: int = 0) -> str:
    """Returns what the command says, run in this process."""
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        patch.setattr(compare_command, "_runner", in_this_process)
        patch.setattr("dogo_fed.run.train.draw_curves", lambda *arguments: None)
        status = compare_command.run(arguments[1:])
    assert status == expect, said.getvalue()
    return said.getvalue()


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("compared") / "out"
    return out, compare(*RUN, f"out={out}")


def test_it_leaves_a_table_and_ordinary_run_folders(compared: tuple[Path, str]) -> None:
    out, said = compared
    assert {path.name for path in out.iterdir()} == {
        "cells", "compare.csv", "compare.json", "compare.md", "compare.png",
    }  # fmt: skip
    cells = json.loads((out / "compare.json").read_text())["cells"]
    assert len(cells) == 8 and {cell["outcome"] for cell in cells} == {"finished"}
    for cell in cells:
        assert (Path(cell["folder"]) / "summary.json").is_file()
        assert (Path(cell["folder"]) / "peers" / "simclr" / "encoder.safetensors").is_file()
    page = (out / "compare.md").read_text()
    assert page in said
    assert "dogo \u2212 solo" in page and "n=2" in page
    rows = list(csv.DictReader(io.StringIO((out / "compare.csv").read_text())))
    assert {(row["metric"], row["peer"]) for row in rows} == {
        (metric, peer) for metric in ("linear_top1", "knn_top1") for peer in ("simclr", "simsiam")
    }


def test_teachers_are_the_solo_peers_of_the_same_seed(compared: tuple[Path, str]) -> None:
    out, _ = compared

    def peers(cell: str) -> dict:
        path = out / "cells" / cell / "summary.json"
        return json.loads(path.read_text())["peers"]

    for seed in (0, 1):
        solo = peers(f"solo/simclr_simsiam/synthetic/{seed}")
        offline = peers(f"offline-simclr/simclr_simsiam/synthetic/{seed}")
        assert offline["simsiam"]["state_digest"] == solo["simsiam"]["state_digest"]
        assert offline["simsiam"]["objective"].endswith("(frozen)")
        assert offline["simclr"]["state_digest"] != solo["simclr"]["state_digest"]


def test_the_same_command_again_runs_nothing(compared: tuple[Path, str]) -> None:
    out, _ = compared
    before = times(out)
    page = (out / "compare.md").read_text()
    said = compare(*RUN, f"out={out}")
    assert "8 of 8 cells are finished already" in said
    assert times(out) == before
    assert (out / "compare.md").read_text() == page


@pytest.mark.slow
def test_protocols_are_added_to_what_is_trained(compared: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "out"  # other tests look at what was compared without protocols
    shutil.copytree(compared[0], out)
    before = times(out)
    few = [
        "protocols.limited_labels.fractions=[0.25]", "protocols.limited_labels.per_class=[4]",
        "protocols.limited_labels.draws=2",
    ]  # fmt: skip
    said = compare(*RUN, *few, f"out={out}")
    assert "solo/simclr_simsiam/synthetic/0: is evaluated" in said
    changed = {path.name for path, when in times(out).items() if before.get(path, when) != when}
    assert changed <= {"coordinator.log"}, "what is evaluated is logged"
    data = json.loads((out / "compare.json").read_text())
    rows = {(row["metric"], row["peer"]): row for row in data["rows"]}
    assert ("limited_labels/4 per class", "simclr") in rows
    row = rows["limited_labels/25 % of the labels", "simsiam"]
    for method, folder in (("solo", "solo"), ("offline", "offline-simsiam"), ("dogo", "dogo")):
        path = out / "cells" / folder / "simclr_simsiam" / "synthetic" / "1" / "evaluation"
        sheet = json.loads((path / "limited_labels.json").read_text())["encoders"]["simsiam"]
        draws = [one["value"] for one in sheet["scores"] if "25 %" in one["condition"]]
        assert len(draws) == 2
        assert row["methods"][method]["scores"]["1"] == pytest.approx(sum(draws) / 2)
    assert "of 8 cells are finished already" in compare(*RUN, *few, f"out={out}")
    said = compare(*RUN, *few, "protocols.limited_labels.draws=1", f"out={out}", "seeds=1")
    assert "dogo/simclr_simsiam/synthetic/1: is evaluated" in said


def test_an_interrupted_cell_goes_on_to_the_same_numbers(
    compared: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = (*RUN, f"out={out}", "seeds=0", "methods=[dogo]", "checkpoint.every_steps=1")
    original = Peer.update

    def update(self: Peer, loss: torch.Tensor, step: int, *given: Any, **named: Any) -> None:
        if step == 1:
            raise TrainingError("pulled the plug")
        original(self, loss, step, *given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Peer, "update", update)
        assert "failed, pulled the plug" in compare(*command, expect=1)
    assert "interrupted" in compare(*command, "--dry-run")
    assert "goes on" in compare(*command)
    assert "finished already" in compare(*command)
    cell = Path("cells", "dogo", "simclr_simsiam", "synthetic", "0")
    assert digests(out / cell) == digests(compared[0] / cell)
    kinds = [event["kind"] for event in events(out / cell, "resumed")]
    assert kinds == ["resumed"]


def test_a_dry_run_lists_the_cells_and_makes_nothing(
    compared: tuple[Path, str], tmp_path: Path
) -> None:
    said = compare(*RUN, f"out={tmp_path / 'new'}", "--dry-run")
    assert "8 cells, 8 to run" in said and "as measured with the preset's own settings" in said
    assert "new          offline-simclr/simclr_simsiam/synthetic/0  after solo/" in said
    assert not (tmp_path / "new").exists()
    known = compare(*RUN[:-1], "seeds=[0,1,2]", f"out={compared[0]}", "--dry-run")
    assert "12 cells, 4 to run" in known and "8 finished cells took" in known


def test_other_settings_in_an_old_folder_are_refused(compared: tuple[Path, str]) -> None:
    out, _ = compared
    before = times(out)
    said = compare(*RUN, "batch_size=8", f"out={out}", expect=2)
    assert "batch_size is 16 there and 8 now" in said and "out=" in said
    assert len(said.splitlines()) == 1
    assert times(out) == before


def test_what_can_not_be_run_is_refused_before_anything_starts(tmp_path: Path) -> None:
    said = compare(*RUN, "batch_size=1000", f"out={tmp_path / 'out'}", expect=2)
    assert "batch_size=1000" in said and len(said.splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert "--sweep" in compare("compare", "--sweep", expect=2)


def test_a_cell_that_fails_is_named_and_costs_the_status(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = compare(
        *RUN, f"out={out}", "seeds=0", "peers.simclr.optimizer.options.lr=1e30", expect=1
    )
    assert "solo/simclr_simsiam/synthetic/0: failed, the loss of peer 'simclr' is" in said
    assert "offline-simsiam/simclr_simsiam/synthetic/0: blocked, it needs solo/" in said
    assert "nothing to compare" in (out / "compare.md").read_text()
    cells = json.loads((out / "compare.json").read_text())["cells"]
    assert [cell["outcome"] for cell in cells] == ["failed", "blocked", "blocked", "failed"]


@pytest.mark.slow
def test_a_cell_that_fails_in_its_process_is_reported(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = dogo_fed(
        *RUN, f"out={out}", "methods=[solo]", "seeds=0",
        "peers.simclr.optimizer.options.lr=1e30", expect=1, timeout_s=LONG_S,
    )  # fmt: skip
    assert "solo/simclr_simsiam/synthetic/0: failed, the loss of peer 'simclr' is" in said
    assert "nothing to compare" in (out / "compare.md").read_text()
    (log,) = (out / "logs").iterdir()
    assert str(log) in said and "the loss of peer" in log.read_text()
    (job,) = (out / "jobs").iterdir()
    assert json.loads(job.read_text())["config"]["seed"] == 0


@pytest.mark.slow
@pytest.mark.kill
def test_a_killed_cell_is_reported_and_goes_on_next_time(
    compared: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    longer = [part for part in RUN if not part.startswith(("steps=", "seeds="))]
    command = [*longer, "steps=40", "seeds=0", "checkpoint.every_steps=1", "methods=[solo,dogo]"]
    cell = out / "cells" / "dogo" / "simclr_simsiam" / "synthetic" / "0"
    process = start(*command, f"out={out}", "jobs=2")
    try:
        victim = pid_of_cell(process.pid, "dogo", cell)
        kill(victim)
        said, _ = process.communicate(timeout=LONG_S)
    finally:
        for pid in [process.pid, *descendants(process.pid)]:
            kill(pid)
    assert process.returncode == 1, said
    assert "dogo/simclr_simsiam/synthetic/0: failed" in said and "died of SIGKILL" in said
    assert "Cells that are not finished" in (out / "compare.md").read_text()
    solo = times_of_solo(out)
    again = dogo_fed(*command, f"out={out}", "jobs=2", timeout_s=LONG_S)
    assert "dogo/simclr_simsiam/synthetic/0: goes on" in again
    assert times_of_solo(out) == solo
    assert len(events(cell, "resumed")) == 1
    fresh = tmp_path / "fresh"
    alone = [part for part in command[1:] if not part.startswith(("seeds=", "methods="))]
    dogo_fed("train", *alone, "seed=0", f"run_dir={fresh}", timeout_s=LONG_S)
    assert digests(cell) == digests(fresh)


@pytest.mark.slow
@pytest.mark.kill
def test_a_stop_ends_the_cells_well(tmp_path: Path) -> None:
    out = tmp_path / "out"
    longer = [part for part in RUN if not part.startswith("steps=")]
    process = start(*longer, "steps=100000", f"out={out}", "jobs=1", "methods=[solo]")
    try:
        cell = out / "cells" / "solo" / "simclr_simsiam" / "synthetic" / "0"
        child = pid_of_cell(process.pid, "solo", cell)
        os.kill(process.pid, signal.SIGINT)
        said, _ = process.communicate(timeout=LONG_S)
    finally:
        for pid in [process.pid, *descendants(process.pid)]:
            kill(pid)
    assert process.returncode == 130, said
    assert wait_until_gone([child]) == []
    assert list((cell / "peers" / "simclr" / "checkpoints").iterdir())
    outcomes = {
        one["id"]: one["outcome"] for one in json.loads((out / "compare.json").read_text())["cells"]
    }
    assert set(outcomes.values()) == {"stopped"} and len(outcomes) == 2


def pid_of_cell(launcher: int, method: str, run_dir: Path) -> int:
    """Returns the process id of this method's cell, once it has taken steps."""
    deadline_s = time.monotonic() + LONG_S
    while time.monotonic() < deadline_s:
        if len([one for one in records(run_dir) if one["type"] == "step"]) > 2:
            for pid in descendants(launcher):
                command = Path(f"/proc/{pid}/cmdline").read_bytes().decode()
                if is_alive(pid) and f"/jobs/{method}-" in command:
                    return pid
        time.sleep(0.02)
    raise AssertionError(f"no cell {method} took steps")


@pytest.mark.ray
@pytest.mark.slow
def test_cells_as_ray_tasks_give_the_same_numbers(
    compared: tuple[Path, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    dogo_fed(*RUN, "runner=ray", f"out={out}", timeout_s=LONG_S)
    first, second = (json.loads((one / "compare.json").read_text()) for one in (compared[0], out))
    assert first["rows"] == second["rows"]


@pytest.mark.ray
@pytest.mark.slow
def test_a_cell_that_fails_in_ray_is_reported(tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = dogo_fed(
        *RUN, "runner=ray", f"out={out}", "methods=[solo]", "seeds=0",
        "peers.simclr.optimizer.options.lr=1e30", expect=1, timeout_s=LONG_S,
    )  # fmt: skip
    assert "failed, the loss of peer 'simclr' is" in said
    assert (out / "compare.md").is_file()
