"""Cells that were made with other images are not paired; other code is said below the table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from dogo_fed.compare.comparison import CellReport, Comparison, compare
from dogo_fed.compare.experiment import Cell, Method
from dogo_fed.compare.origin import check_images, check_targets, images_of, origins
from dogo_fed.compare.report import to_json, to_markdown
from dogo_fed.compare.standing import finished_cells
from dogo_fed.contracts import PeerId
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.errors import CheckpointError, ConfigError
from dogo_fed.provenance import DataFacts, Provenance
from dogo_fed.storage.peer_folder import PeerFolder
from tests.support.comparison_cells import PEER, made_cells, made_experiment, write_summary

HERE = Provenance.of(synthetic(size=32, test_size=8), torch.device("cpu"), "5c0ffee" + 25 * "0")
OTHER_IMAGES = DataFacts.of(synthetic(size=32, test_size=8, seed=1))
DATA = {"name": "synthetic", "options": {"size": 32, "test_size": 8}}
SMALL: dict[str, Any] = {"data": DATA, "batch_size": 16, "steps": 2}
ITS_OWN = {"name": "synthetic", "options": {"size": 24, "test_size": 8, "seed": 5}}


def starts(*each: Provenance) -> list[Mapping[str, Any]]:
    return [{"step": 5 * number, **one.to_plain()} for number, one in enumerate(each)]


def cells_of(out: Path, **others: Any) -> list[Cell]:
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO], seeds=[0, 1])
    return made_cells(experiment, out, **others)


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return cells_of(tmp_path)


def finish(cell: Cell, *each: Provenance) -> None:
    scores = dict.fromkeys(("big", "small"), (0.8, 0.7))
    write_summary(cell, scores, provenance=starts(*each) if each else None)


def comparison_of(cells: list[Cell]) -> Comparison:
    experiment = made_experiment(methods=[Method.SOLO, Method.DOGO], seeds=[0, 1])
    reports = [CellReport(id=one.id, folder="f", outcome="finished") for one in cells]
    return compare(experiment, cells, reports)


def test_cells_of_one_origin_need_no_word(cells: list[Cell]) -> None:
    for cell in cells:
        finish(cell, HERE)
    comparison = comparison_of(cells)
    assert "Not all cells" not in to_markdown(comparison)
    assert to_json(comparison)["origins"]["source"] == {HERE.source: [one.id for one in cells]}


def test_scores_that_another_version_has_made_are_said_with_their_cells(cells: list[Cell]) -> None:
    for number, cell in enumerate(cells):
        finish(cell, HERE)
        made_by = {**HERE.origin, "source": "0" * 32} if number == 1 else HERE.origin
        (cell.folder / "evaluation").mkdir()
        (cell.folder / "evaluation" / "knn.json").write_text(
            json.dumps({"options": {}, "encoders": {"wide": {}}, "origin": made_by})
        )
    finished = finished_cells(cells)
    assert origins(finished)["source"] == {HERE.source: [one.id for one in cells]}
    assert origins(finished, ["knn"])["source"]["0" * 32] == [cells[1].id]
    assert len(origins(finished, ["knn"])["torch"]) == 1


def keep_ood(cell: Cell, target: DataFacts, **options: object) -> None:
    """Leaves the scores of a protocol on another data set in a cell's folder."""
    sheet = {"options": options, "encoders": {"big": {}}, "origin": HERE.origin}
    sheet["targets"] = {"photos": dataclasses.asdict(target)}
    (cell.folder / "evaluation").mkdir(exist_ok=True)
    (cell.folder / "evaluation" / "ood.json").write_text(json.dumps(sheet))


def test_scores_on_other_images_of_a_target_are_refused_with_both_values(cells: list[Cell]) -> None:
    for cell in cells:
        finish(cell, HERE)
        keep_ood(cell, HERE.data)
    finished = finished_cells(cells)
    check_targets(finished, ["ood"])
    keep_ood(cells[-1], OTHER_IMAGES)
    check_targets(finished, ["linear"])
    with pytest.raises(ConfigError) as caught:
        check_targets(finished, ["ood"])
    text = str(caught.value)
    assert f"{cells[0].id}, target photos of ood" in text
    assert f"{cells[-1].id}, target photos of ood" in text
    assert HERE.data.fingerprint in text and OTHER_IMAGES.fingerprint in text
    assert str(cells[-1].folder / "evaluation") in text
    keep_ood(cells[-1], OTHER_IMAGES, targets=["others"])
    check_targets(finished, ["ood"])  # these were asked for
    (cells[-1].folder / "evaluation" / "ood.json").write_text(
        json.dumps({"options": {}, "encoders": {"big": {}}, "targets": {"photos": {"name": "x"}}})
    )
    with pytest.raises(CheckpointError, match="not as this version writes them"):
        check_targets(finished, ["ood"])


def test_cells_with_other_images_are_refused_with_both_values(cells: list[Cell]) -> None:
    for cell in cells[:-1]:
        finish(cell, HERE)
    finish(cells[-1], dataclasses.replace(HERE, data=OTHER_IMAGES))
    with pytest.raises(ConfigError) as caught:
        comparison_of(cells)
    text = str(caught.value)
    assert cells[0].id in text and cells[-1].id in text
    assert HERE.data.fingerprint in text and OTHER_IMAGES.fingerprint in text


def test_cells_are_not_trained_on_other_images_than_those_that_are_finished(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, **SMALL)
    finish(cells[0], HERE)
    finished = finished_cells(cells)
    check_images(finished, images_of(cells[1], load_run(cells[1].config)))
    other = load_run(cells[1].config, synthetic(size=32, test_size=8, seed=1))
    with pytest.raises(ConfigError, match="of what is there now are not the same"):
        check_images(finished, images_of(cells[1], other))


def test_of_a_data_set_that_is_cut_the_whole_is_compared(tmp_path: Path) -> None:
    """Another seed cuts it otherwise."""
    parts = {"kind": "iid", "anchors": 0.5, "least_images": 4}
    for cell in cells_of(tmp_path, partition=parts, **SMALL):
        assert list(images_of(cell, load_run(cell.config)).values()) == [HERE.data]


def test_cells_with_other_anchors_are_refused(tmp_path: Path) -> None:
    """Other seeds draw other anchors of the same data set."""
    parts = {"kind": "iid", "anchors": 0.5, "least_images": 4, "anchors_from": ITS_OWN}
    cells = cells_of(tmp_path, partition=parts, **SMALL)
    for cell in cells:
        finish(cell, load_run(cell.config).provenance())
    run = load_run(cells[0].config)
    check_images(finished_cells(cells), images_of(cells[0], run))
    others = run.provenance()
    assert others.anchors is not None
    finish(cells[-1], dataclasses.replace(others, anchors=OTHER_IMAGES))
    with pytest.raises(ConfigError) as caught:
        check_images(finished_cells(cells))
    assert f"{cells[-1].id}, anchors" in str(caught.value)


def keep_note(cell: Cell, images: DataFacts) -> None:
    """What a run leaves of the private images of a peer; its provenance has the shared ones only."""
    PeerFolder(cell.folder, PeerId("big")).check_private_images(images, begins=True)


def test_cells_with_other_private_images_are_refused(tmp_path: Path) -> None:
    cells = cells_of(tmp_path, peers={"big": {**PEER, "data": ITS_OWN}, "small": PEER}, **SMALL)
    run = load_run(cells[0].config)
    (own,) = [facts for facts in images_of(cells[0], run).values() if facts != HERE.data]
    assert own == DataFacts.of(run.private["big"].own)
    for cell in cells:
        finish(cell, HERE)
        keep_note(cell, own)
    check_images(finished_cells(cells), images_of(cells[0], run))
    keep_note(cells[-1], OTHER_IMAGES)
    with pytest.raises(ConfigError) as caught:
        check_images(finished_cells(cells))
    text = str(caught.value)
    assert f"{cells[0].id}, peer big" in text and f"{cells[-1].id}, peer big" in text
    assert own.fingerprint in text and OTHER_IMAGES.fingerprint in text
    with pytest.raises(ConfigError, match="peer big and of what is there now are not the same"):
        check_images(finished_cells(cells[-1:]), images_of(cells[0], run))
    (cells[-1].folder / "peers" / "big" / "private_images.json").write_text("")
    with pytest.raises(CheckpointError, match=r"private_images\.json can't be read"):
        check_images(finished_cells(cells))


def test_other_code_and_libraries_are_said_with_the_cells_that_they_are_about(
    cells: list[Cell],
) -> None:
    other = dataclasses.replace(HERE, source="0" * 32, packages={**HERE.packages, "torch": "9.9"})
    finish(cells[0], HERE, other)  # resumed with other code
    for cell in cells[1:-1]:
        finish(cell, HERE)
    finish(cells[-1])  # of a version that kept no provenance
    page = to_markdown(comparison_of(cells))
    assert "Not all cells were made with the same source" in page
    assert f"{'0' * 32} ({cells[0].id})" in page and f"not known ({cells[-1].id})" in page
    assert f"9.9 ({cells[0].id})" in page
    assert "the same device" not in page
