"""Peers with private images, from outside: what is told, what is counted, what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support.command_line import dogo_fed
from tests.support.image_folders import noise_photos
from tests.support.run_watch import digests

RUN = (
    "data=synthetic",
    "data.options.size=400",
    "data.options.test_size=80",
    "peers=sites",
    "partition=dirichlet",
    "partition.alpha=0.5",
    "batch_size=32",
    "steps=12",
    "steps_per_round=6",
    "eval.knn_k=10",
    "eval.linear=false",
)


@pytest.mark.slow
@pytest.mark.grpc
def test_the_cut_is_told_and_what_travels_is_told_and_counted(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    output = dogo_fed(
        "train", *RUN, "host=processes", "exchange.encoding=log8", f"run_dir={run_dir}"
    )
    assert "80 anchors" in output and "each peer sends 12 distributions" in output
    exchange = json.loads((run_dir / "summary.json").read_text())["exchange"]
    payload = 4 * 12 * 16 * (8 + 16)  # peers, steps, rows of 16 anchors
    assert payload <= exchange["bytes_up"] <= payload + 4 * 12 * 400
    assert payload <= exchange["bytes_down"] <= payload + 4 * 12 * 400


@pytest.mark.slow
@pytest.mark.grpc
def test_a_peer_may_name_a_folder_of_its_own(tmp_path: Path) -> None:
    own = noise_photos(tmp_path / "own", 20, 1)
    shared = noise_photos(tmp_path / "shared", 20, 2)
    same = next((shared / "cat").glob("*.png"))
    (own / "cat" / "taken.png").write_bytes(same.read_bytes())
    settings = (
        f"data={shared}", f"peers.wide.data={own}", "data.options.image_size=24",
        "peers.wide.data.options.image_size=24", "batch_size=16", "steps=3", "eval.linear=false",
        "eval.knn_k=3",
    )  # fmt: skip
    run_dir = tmp_path / "run"
    output = dogo_fed("train", *settings, "host=processes", f"run_dir={run_dir}")
    peer_log = (run_dir / "peers" / "wide" / "peer.log").read_text()
    assert "1 of 37 training images of peer wide are anchors too" in peer_log
    told = output + (run_dir / "coordinator.log").read_text()
    assert str(own) not in told and "are anchors too" not in told
    (own / "dog" / "0.png").unlink()
    again = dogo_fed("train", f"resume={run_dir}", "steps=5", expect=1)
    assert "images are not those of peer wide" in again


@pytest.mark.slow
@pytest.mark.grpc
@pytest.mark.parametrize("encoding", ["log8", "top_k"])
def test_an_encoding_rounds_alike_in_one_process_and_in_several(
    encoding: str, tmp_path: Path
) -> None:
    found = []
    for host in ("local", "processes"):
        run_dir = tmp_path / host
        dogo_fed(
            "train", *RUN, f"host={host}", f"exchange.encoding={encoding}", "exchange.top_k=5",
            f"run_dir={run_dir}",
        )  # fmt: skip
        found.append(digests(run_dir))
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_comparison_of_sites_has_all_methods(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = [one for one in RUN if not one.startswith(("peers=", "data=", "steps=12"))]
    dogo_fed(
        "compare", "methods=[private,local,federated,central,fedavg,fedx,flesd,fccl]",
        "seeds=[0]", "peers=[sites]", "baselines.fedavg.heads=false",
        "data=[synthetic]", *settings, "steps=3", f"out={out}",
        timeout_s=400.0,
    )  # fmt: skip
    page = (out / "compare.md").read_text()
    assert "Methods: private, solo, dogo, fedavg, fedx, flesd, fccl, central" in page
    for method in ("dogo", "fedavg", "fedx", "flesd", "fccl"):
        assert re.search(rf"- {method}: \d of 4 peers are not below solo", page)
    costs = page.partition("## Cost")[2]
    for method in ("fedavg", "fedx", "fccl"):
        assert re.search(rf"\| {method} .* ([KM]iB|B) ", costs), costs
    assert (out / "cells/fedavg/sites/synthetic/0/summary.json").exists()
