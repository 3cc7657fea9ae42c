"""A cell in its own process: that it can be told from a hung one while it is evaluated."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from dogo_fed import layout
from dogo_fed.config_text import to_mapping
from dogo_fed.evaluation.pulse import beat
from dogo_fed.exit_status import EXIT_STOPPED
from server.comparison import cell
from server.comparison.cell import CellJob, run_cell
from server.comparison.cell_loop import newest_of, signs_of_life
from tests.support.comparison_cells import shared_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cell's folder in which nothing was written for ages."""
    (tmp_path / layout.COORDINATOR_LOG).touch()
    silence(tmp_path)
    return tmp_path


def silence(folder: Path) -> None:
    os.utime(folder / layout.COORDINATOR_LOG, (0, 0))


def is_heard(folder: Path) -> bool:
    return newest_of(signs_of_life(folder)) > 0


def test_an_evaluation_is_heard_as_long_as_it_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def evaluate(*arguments: object, **others: object) -> None:
        heard.append(is_heard(folder))
        beat()
        heard.append(is_heard(folder))

    monkeypatch.setattr(cell, "evaluate_run", evaluate)
    monkeypatch.setattr(cell, "fix_numerics", lambda threads: None)
    monkeypatch.setattr(cell, "keep_freed_memory", lambda: None)
    job = CellJob(
        folder=str(folder),
        config=to_mapping(shared_config(0)),
        is_trained=True,
        protocols={"corruptions": {}},
        learners=["big"],
    )
    assert run_cell(job.to_json()) == (0, "")
    assert heard == [False, True]


def test_many_beats_are_one_sign_of_life_a_second(folder: Path) -> None:
    now_s = 100.0
    sign = cell._SignOfLife(folder, lambda: now_s)
    for passed_s, is_sign in ((0.0, True), (0.5, False), (0.6, True)):
        now_s += passed_s
        silence(folder)
        sign()
        assert is_heard(folder) == is_sign


def test_a_beat_makes_no_file_and_no_trouble(tmp_path: Path) -> None:
    cell._SignOfLife(tmp_path)()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("when", ["fix_numerics", "evaluate_run"])
def test_a_cell_that_is_ended_while_it_loads_or_is_evaluated_is_stopped_and_not_failed(
    when, tmp_path, monkeypatch
) -> None:
    def ended(*given: object, **more: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(cell, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(cell, "fix_numerics", lambda threads: None)
    monkeypatch.setattr(cell, when, ended)
    job = CellJob(
        folder=str(tmp_path), config=to_mapping(shared_config(0)), is_trained=True,
        protocols={"knn": {}}, learners=["big"],
    )  # fmt: skip
    assert run_cell(job.to_json()) == (EXIT_STOPPED, "stopped by the user")
