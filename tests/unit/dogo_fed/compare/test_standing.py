"""How far each cell of a comparison is, and whether what lies in its folder is this cell."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dogo_fed.compare.experiment import Method
from dogo_fed.compare.standing import Standing, finished_summary, standing_of
from dogo_fed.errors import ConfigError
from tests.support.comparison_cells import PEER, made_cells, made_experiment, write_summary

BOTH = {"big": (0.5, 0.4), "small": (0.5, 0.4)}


def test_standing_from_nothing_to_finished(tmp_path: Path) -> None:
    (cell, *_) = made_cells(made_experiment(), tmp_path)
    assert standing_of(cell, {}) is Standing.NEW
    cell.folder.mkdir(parents=True)
    assert standing_of(cell, {}) is Standing.NEW
    write_summary(cell, BOTH)
    (cell.folder / "summary.json").rename(tmp_path / "summary.json")
    assert standing_of(cell, {}) is Standing.INTERRUPTED
    assert finished_summary(cell) is None
    shutil.copy(tmp_path / "summary.json", cell.folder / "summary.json")
    assert standing_of(cell, {}) is Standing.FINISHED
    assert standing_of(cell, {"linear": {}}) is Standing.TRAINED


def test_a_cell_that_was_killed_before_it_began_is_new(tmp_path: Path) -> None:
    (cell, *_) = made_cells(made_experiment(), tmp_path)
    cell.folder.mkdir(parents=True)
    for name in ("run.lock", ".config.0123abcd-7-7-0123abcd.partial.yaml"):
        (cell.folder / name).touch()
    assert standing_of(cell, {}) is Standing.NEW


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"peers": {}}'])
def test_a_summary_that_is_none_is_not_an_end(content: str, tmp_path: Path) -> None:
    (cell, *_) = made_cells(made_experiment(), tmp_path)
    write_summary(cell, BOTH)
    (cell.folder / "summary.json").write_text(content)
    assert standing_of(cell, {}) is Standing.INTERRUPTED


def test_a_run_that_lost_a_peer_or_was_stopped_is_not_finished(tmp_path: Path) -> None:
    first, second, *_ = made_cells(made_experiment(), tmp_path)
    write_summary(first, {"big": (0.5, 0.4)})
    assert standing_of(first, {}) is Standing.INTERRUPTED
    write_summary(second, BOTH, events=[{"kind": "stopped", "message": "by the user"}])
    assert standing_of(second, {}) is Standing.INTERRUPTED


def test_other_settings_in_the_folder_are_an_error_that_names_them(tmp_path: Path) -> None:
    (cell, *_) = made_cells(made_experiment(), tmp_path)
    write_summary(cell, BOTH)
    (longer, *_) = made_cells(made_experiment(), tmp_path, steps=20)
    with pytest.raises(
        ConfigError, match=r"solo/pair/synthetic/0.*steps is 10 there and 20 now.*out="
    ):
        standing_of(longer, {})
    (other, *_) = made_cells(made_experiment(), tmp_path, names=("big", "tiny"))
    with pytest.raises(ConfigError, match=r"peers\.small.*not set now|not set there"):
        standing_of(other, {})


def test_who_learns_alone_may_be_taught_otherwise(tmp_path: Path) -> None:
    """Solo cells serve all settings of the teaching; the cells that were taught do not."""
    for cell in made_cells(made_experiment(seeds=[0]), tmp_path):
        write_summary(cell, BOTH)
    changes = {
        "exchange": {"every_steps": 3},
        "peers": {name: {**PEER, "kl_temperature": 0.5} for name in ("big", "small")},
    }
    for key, value in changes.items():
        for cell in made_cells(made_experiment(seeds=[0]), tmp_path, **{key: value}):
            if cell.column.method is Method.SOLO:
                assert standing_of(cell, {}) is Standing.FINISHED
            else:
                with pytest.raises(ConfigError, match="other settings"):
                    standing_of(cell, {})


def test_where_it_is_run_does_not_matter(tmp_path: Path) -> None:
    cells = made_cells(made_experiment(seeds=[0]), tmp_path / "here")
    for cell in cells:
        write_summary(cell, BOTH)
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = made_cells(
        made_experiment(seeds=[0]),
        tmp_path / "there",
        host="processes",
        checkpoint={"every_steps": 5},
        ray={"address": "auto"},
    )
    assert {standing_of(cell, {}) for cell in moved} == {Standing.FINISHED}


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (cell, *_) = made_cells(made_experiment(), tmp_path)
    cell.folder.mkdir(parents=True)
    (cell.folder / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match="without a readable config"):
        standing_of(cell, {})
