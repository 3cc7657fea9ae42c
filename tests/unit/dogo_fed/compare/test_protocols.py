"""What a comparison reads of evaluations after training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dogo_fed.compare.protocols import has_protocol, protocol_origins, read_protocol
from dogo_fed.contracts import PeerId
from dogo_fed.storage.peer_folder import PeerFolder
from tests.support.comparison_cells import shared_config

SCORE = {
    "protocol": "knn", "condition": "k = 5", "draw": 0, "metric": "top1", "value": 0.5,
    "low": 0.4, "high": 0.6, "group": "", "level": None,
}  # fmt: skip
MEAN = {
    "condition": "k = 5", "metric": "top1", "group": "", "level": None, "num_draws": 1,
    "mean": 0.5, "std": None, "low": 0.4, "high": 0.6,
}  # fmt: skip


def write_knn(run: Path, **more: object) -> None:
    folder = run / "evaluation"
    folder.mkdir(exist_ok=True)
    options = {"k": 5, "temperature": 0.07}
    sheet = {"options": options, "encoders": {"one": {"scores": [SCORE], "means": [MEAN]}}}
    (folder / "knn.json").write_text(json.dumps({**sheet, **more}))


def export(run: Path, **described: object) -> None:
    PeerFolder(run, PeerId("one")).export_encoder(torch.nn.Linear(2, 2), described)


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Their scores do not say what their level is."""
    write_knn(tmp_path)
    assert read_protocol(tmp_path, "knn") == {"one": {"knn/k = 5": 0.5}}
    assert protocol_origins(tmp_path, "knn") == [{}]


def test_scores_are_those_of_these_peers_and_options(tmp_path: Path) -> None:
    export(tmp_path, state_digest="ab")
    write_knn(tmp_path, states={"one": "ab", "two": "ab"})
    config = shared_config(0)
    assert has_protocol(tmp_path, config, "knn", {"k": 5}, ["one"])
    assert not has_protocol(tmp_path, config, "knn", {"k": 5}, ["one", "two"])
    assert not has_protocol(tmp_path, config, "knn", {"k": 6}, ["one"])


@pytest.mark.parametrize("more", [{}, {"states": {}}, {"states": {"one": "ab"}}, {"states": 3}])
def test_scores_of_other_weights_than_those_in_the_folder_are_none(tmp_path: Path, more) -> None:
    export(tmp_path, state_digest="cd")
    write_knn(tmp_path, **more)
    assert not has_protocol(tmp_path, shared_config(0), "knn", {"k": 5}, ["one"])


def test_peers_with_images_of_their_own_have_sheets_of_their_own(tmp_path: Path) -> None:
    """As `evaluate_run` writes them for two data sets. A protocol whose name goes on is another."""
    shown = {"protocol": "knn", "options": {"k": 5, "temperature": 0.07}}
    for peer, mean in (("one", 0.5), ("two", 0.7)):
        PeerFolder(tmp_path, PeerId(peer)).export_encoder(
            torch.nn.Linear(2, 2), {"state_digest": peer}
        )
        encoders = {peer: {"scores": [SCORE], "means": [{**MEAN, "mean": mean}]}}
        (tmp_path / "evaluation").mkdir(exist_ok=True)
        for protocol, stem, about in (
            ("knn", f"knn-{peer}", {"origin": {"source": peer}, "states": {peer: peer}}),
            ("knn-other", f"knn-other-{peer}", {"states": {peer: "others"}}),
        ):
            sheet = {**shown, "encoders": encoders, **about, "protocol": protocol}
            (tmp_path / "evaluation" / f"{stem}.json").write_text(json.dumps(sheet))
    assert has_protocol(tmp_path, shared_config(0), "knn", {"k": 5}, ["one", "two"])
    scores = read_protocol(tmp_path, "knn")
    assert scores == {"one": {"knn/k = 5": 0.5}, "two": {"knn/k = 5": 0.7}}
    assert [one["source"] for one in protocol_origins(tmp_path, "knn")] == ["one", "two"]
