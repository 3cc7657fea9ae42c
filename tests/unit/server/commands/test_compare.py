"""`dogo-fed compare` before its cells run: whose images they have, and who else writes there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dogo_fed import layout
from dogo_fed.compare.experiment import Method
from dogo_fed.compare.standing import Standing, standing_of
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.errors import ConfigError
from dogo_fed.storage.run_lock import run_lock
from server.commands import compare as command
from server.comparison.request import ComparisonRequest
from tests.support.comparison_cells import made_cells, made_experiment, write_summary

SMALL = {
    "data": {"name": "synthetic", "options": {"size": 32, "test_size": 8}},
    "partition": {"kind": "iid", "anchors": 0.5, "least_images": 4},
    "batch_size": 16,
    "steps": 2,
}


def request(out: Path, **fields: Any) -> ComparisonRequest:
    return cast(ComparisonRequest, SimpleNamespace(out=out, **fields))


def test_a_comparison_of_sites_goes_on_after_its_first_cell(tmp_path: Path) -> None:
    """Its images are the whole data set, which is cut, and not the anchors."""
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO], seeds=[0, 1])
    cells = made_cells(experiment, tmp_path, **SMALL)
    start = {"step": 0, **load_run(cells[0].config).provenance().to_plain()}
    scores = dict.fromkeys(("big", "small"), (0.8, 0.7))
    write_summary(cells[0], scores, provenance=[start])
    standings = {cell.id: standing_of(cell, {}) for cell in cells}
    assert list(standings.values()).count(Standing.NEW) == len(cells) - 1
    command._check_first_cells(request(tmp_path, cells=cells), standings)


def test_a_second_command_in_the_same_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would empty the logs of cells that run."""
    out, held = tmp_path / "out", []
    monkeypatch.setattr(
        command, "_run_cells", lambda request: held.append(list(out.iterdir())) or 0
    )
    assert command._run(request(out)) == 0
    assert [path.name for path in held.pop()] == [layout.LOCK] and list(out.iterdir()) == []
    with run_lock(out), pytest.raises(ConfigError, match=f"goes on in {out}"):
        command._run(request(out))
    assert held == []


def test_what_there_is_to_know_of_weights_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = made_cells(made_experiment(methods=[Method.SOLO, Method.DOGO], seeds=[0]), tmp_path)
    note = "peer big: w.pth: 120 names fit after 'module.'"
    monkeypatch.setattr(command, "prepare", lambda config: SimpleNamespace(weights_notes=(note,)))
    monkeypatch.setattr(command, "images_of", lambda cell, run: {})
    standings = {cell.id: Standing.NEW for cell in cells}
    command._check_first_cells(request(tmp_path, cells=cells), standings)
    assert len(cells) == 2 and capsys.readouterr().err.count(note) == 1
