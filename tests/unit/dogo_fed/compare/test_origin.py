"""Cells that were made with other images are not paired; other code is said below the table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from dogo_fed.compare.comparison import CellReport, Comparison, compare
from dogo_fed.compare.experiment import Cell, Method
from dogo_fed.compare.origin import case_of, check_images
from dogo_fed.compare.report import to_json, to_markdown
from dogo_fed.compare.standing import finished_cells
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import ConfigError
from dogo_fed.provenance import DataFacts, Provenance
from tests.support.comparison_cells import made_cells, made_experiment, write_summary

HERE = Provenance.of(synthetic(size=32, test_size=8), torch.device("cpu"), "5c0ffee" + 25 * "0")
OTHER_IMAGES = DataFacts.of(synthetic(size=32, test_size=8, seed=1))


def starts(*each: Provenance) -> list[Mapping[str, Any]]:
    return [{"step": 5 * number, **one.to_plain()} for number, one in enumerate(each)]


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return made_cells(made_experiment(methods=[Method.SOLO, Method.DOGO], seeds=[0, 1]), tmp_path)


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


def test_cells_with_other_images_are_refused_with_both_values(cells: list[Cell]) -> None:
    for cell in cells[:-1]:
        finish(cell, HERE)
    finish(cells[-1], dataclasses.replace(HERE, data=OTHER_IMAGES))
    with pytest.raises(ConfigError) as caught:
        comparison_of(cells)
    text = str(caught.value)
    assert cells[0].id in text and cells[-1].id in text
    assert HERE.data.fingerprint in text and OTHER_IMAGES.fingerprint in text


def test_cells_are_not_trained_on_other_images_than_those_that_are_finished(
    cells: list[Cell],
) -> None:
    finish(cells[0], HERE)
    finished = finished_cells(cells)
    check_images(finished, {case_of(cells[1]): HERE.data})
    with pytest.raises(ConfigError, match="of what is there now are not the same"):
        check_images(finished, {case_of(cells[1]): OTHER_IMAGES})


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
