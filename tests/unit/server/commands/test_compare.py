"""`dogo-fed compare` before its cells run: whose images they have, and who else writes there."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dogo_fed import layout
from dogo_fed.compare.experiment import Method
from dogo_fed.compare.standing import Standing, standing_of
from dogo_fed.config import Precision
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.exit_status import EXIT_STOPPED
from dogo_fed.storage.run_lock import run_lock
from server.commands import compare as command
from server.comparison.request import ComparisonRequest, request_comparison
from tests.support.comparison_cells import made_cells, made_experiment, write_summary
from tests.support.image_folders import draw

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
    command._check_first_cells(request(tmp_path, cells=cells, experiment=experiment), standings)


@pytest.mark.parametrize(("protocol", "is_refused"), [("linear", True), ("health", False)])
def test_accuracies_of_one_class_are_refused_before_a_cell_is_trained(
    tmp_path: Path, protocol: str, is_refused: bool
) -> None:
    experiment = made_experiment(methods=[Method.SOLO], seeds=[0], protocols={protocol: {}})
    for number in range(24):
        draw(tmp_path / f"images/all/{number}.png", number, size=16)
    options = {"root": str(tmp_path / "images"), "image_size": 16}
    images = {"name": "image_folder", "options": options}
    cells = made_cells(experiment, tmp_path, data=images, batch_size=16, steps=2)
    asked = request(tmp_path, cells=cells, experiment=experiment)
    refused = pytest.raises(DataError, match=r"no accuracy can be counted.*protocol=health")
    with refused if is_refused else nullcontext():
        command._check_first_cells(asked, {cell.id: Standing.NEW for cell in cells})


def test_a_variant_that_can_not_work_is_refused_before_a_cell_is_trained(tmp_path: Path) -> None:
    variants = {"rare": ["exchange.every_steps=2"], "predictions": ["exchange.rows=predictor"]}
    experiment = made_experiment(
        methods=[Method.SOLO, Method.DOGO], seeds=[0], variants={"rare": variants["rare"]}
    )
    cells = made_cells(experiment, tmp_path, **SMALL)
    asked = request(tmp_path, cells=cells, experiment=experiment)
    command._check_first_cells(asked, {cell.id: Standing.NEW for cell in cells})
    experiment = dataclasses.replace(experiment, variants=variants)
    cells = made_cells(experiment, tmp_path, **SMALL)
    asked = request(tmp_path, cells=cells, experiment=experiment)
    with pytest.raises(ConfigError, match="'simclr' has no predictor"):
        command._check_first_cells(asked, {cell.id: Standing.NEW for cell in cells})


def test_more_labels_than_there_are_are_refused_before_a_cell_is_trained(tmp_path: Path) -> None:
    asked_for = {"limited_labels": {"per_class": [9999]}}
    experiment = made_experiment(methods=[Method.SOLO], seeds=[0], protocols=asked_for)
    cells = made_cells(experiment, tmp_path)
    asked = request(tmp_path, cells=cells, experiment=experiment)
    with pytest.raises(ConfigError, match=r"such as per_class=\[.*among its options"):
        command._check_first_cells(asked, {cell.id: Standing.NEW for cell in cells})


def test_a_time_that_is_reckoned_is_not_called_measured(monkeypatch) -> None:
    asked = request_comparison(["experiment=cifar10_six_sites", "seeds=[0]", "methods=[solo,dogo]"])
    for gpus, cell in (([], "666 h 40 min"), (["0"], "1 h 10 min")):
        monkeypatch.setattr(command, "gpus_of_cells", lambda run, gpus=gpus: gpus)
        told = command._estimate(asked, asked.cells, 1)
        assert (
            f"at {cell} a cell, reckoned for the preset's own settings, not measured, from" in told
        )
    precisions = {one.config.precision for one in asked.cells}
    assert precisions == {Precision.BF16}, "at full precision no such GPU does 3e13 a second"


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


def test_what_there_is_to_know_of_weights_and_images_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO], seeds=[0])
    cells = made_cells(experiment, tmp_path)
    note = "peer big: w.pth: 120 names fit after 'module.'"
    monkeypatch.setattr(command, "prepare", lambda config: SimpleNamespace(weights_notes=(note,)))
    left_out = "left out: no image: .mov (3)"
    monkeypatch.setattr(command, "notes_of", lambda run: (left_out,))
    monkeypatch.setattr(command, "images_of", lambda cell, run: {})
    standings = {cell.id: Standing.NEW for cell in cells}
    asked = request(tmp_path, cells=cells, experiment=experiment)
    command._check_first_cells(asked, standings)
    said = capsys.readouterr().err
    assert len(cells) == 2 and (said.count(note), said.count(left_out)) == (1, 1)


def test_an_interrupt_says_how_to_go_on(monkeypatch, capsys) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "request_comparison", interrupted)
    assert command.run(["experiment=digits_m_pair"]) == EXIT_STOPPED
    assert (
        "the same command goes on with the cells that are not finished" in capsys.readouterr().err
    )
