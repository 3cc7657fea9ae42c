"""The cells that the tests of this folder run."""

from __future__ import annotations

from pathlib import Path

import pytest

from dogo_fed.compare.experiment import Cell
from tests.support.comparison_cells import made_cells, made_experiment


@pytest.fixture
def cells(tmp_path: Path) -> list[Cell]:
    return made_cells(made_experiment(seeds=[0, 1]), tmp_path)
