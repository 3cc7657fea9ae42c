"""What a comparison reads of evaluations after training."""

from __future__ import annotations

import json
from pathlib import Path

from dogo_fed.compare.protocols import has_protocol, read_protocol
from tests.support.comparison_cells import shared_config

SCORE = {
    "protocol": "knn", "condition": "k = 5", "draw": 0, "metric": "top1", "value": 0.5,
    "low": 0.4, "high": 0.6, "group": "", "level": None,
}  # fmt: skip
MEAN = {
    "condition": "k = 5", "metric": "top1", "group": "", "level": None, "num_draws": 1,
    "mean": 0.5, "std": None, "low": 0.4, "high": 0.6,
}  # fmt: skip


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Their scores do not say what their level is."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    options = {"k": 5, "temperature": 0.07}
    sheet = {"options": options, "encoders": {"one": {"scores": [SCORE], "means": [MEAN]}}}
    (folder / "knn.json").write_text(json.dumps(sheet))
    assert read_protocol(tmp_path, "knn") == {"one": {"knn/k = 5": 0.5}}
    config = shared_config(0)
    assert has_protocol(tmp_path, config, "knn", {"k": 5}, ["one"])
    assert not has_protocol(tmp_path, config, "knn", {"k": 5}, ["one", "two"])
    assert not has_protocol(tmp_path, config, "knn", {"k": 6}, ["one"])
