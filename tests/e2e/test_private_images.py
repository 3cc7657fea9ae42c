"""Peers with private images: the same in every host, in going on, and in what is evaluated."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command_line import dogo_fed
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


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("sites") / "run"
    dogo_fed("train", *RUN, "host=local", f"run_dir={run_dir}")
    return run_dir


def summary_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_cut_is_told_and_what_travels_is_counted(local: Path, tmp_path: Path) -> None:
    rows = table(local / "partition.csv")
    assert [row["part"] for row in rows] == ["anchors", "a_resnet", "b_wide", "c_resnet", "d_wide"]
    assert sum(int(row["images"]) for row in rows) == 400
    run_dir = tmp_path / "run"
    output = dogo_fed(
        "train", *RUN, "host=processes", "exchange.encoding=log8", f"run_dir={run_dir}"
    )
    assert "80 anchors" in output and "each peer sends 12 distributions" in output
    exchange = summary_of(run_dir)["exchange"]
    payload = 4 * 12 * 16 * (8 + 16)  # peers, steps, rows of 16 anchors
    assert payload <= exchange["bytes_up"] <= payload + 4 * 12 * 400
    assert payload <= exchange["bytes_down"] <= payload + 4 * 12 * 400


def test_processes_equal_one_process(local: Path, tmp_path: Path) -> None:
    dogo_fed("train", *RUN, "host=processes", f"run_dir={tmp_path / 'run'}")
    assert digests(tmp_path / "run") == digests(local)


@pytest.mark.parametrize("encoding", ["float16", "log8", "top_k"])
@pytest.mark.slow
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


def test_a_run_goes_on_to_the_same_numbers(local: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    short = [one for one in RUN if one != "steps=12"]
    dogo_fed("train", *short, "steps=5", "host=local", f"run_dir={run_dir}")
    dogo_fed("train", f"resume={run_dir}", "steps=12", "host=processes")
    assert digests(run_dir) == digests(local)


def test_every_encoder_is_evaluated_on_every_sites_images(local: Path) -> None:
    output = dogo_fed("matrix", f"run={local}")
    assert "| encoder of | on a_resnet (" in output
    rows = table(local / "evaluation" / "matrix.csv")
    assert len(rows) == 16 and (local / "evaluation" / "matrix.png").stat().st_size > 4000
    assert all(0.0 <= float(row["knn_top1"]) <= 1.0 for row in rows)


def test_a_run_without_private_images_has_no_matrix(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    dogo_fed(
        "train", "data=synthetic", "data.options.size=64", "data.options.test_size=16", "steps=1",
        "batch_size=16", "eval.knn_k=4", "eval.linear=false", "host=local", f"run_dir={run_dir}",
    )  # fmt: skip
    output = dogo_fed("matrix", f"run={run_dir}", expect=2)
    assert f"type dogo-fed evaluate run={run_dir}" in output


def test_what_matrix_does_not_know_is_answered(tmp_path: Path) -> None:
    assert "it takes run, trust" in dogo_fed("matrix", "runs=x", expect=2)
    assert "name the run" in dogo_fed("matrix", "trust=true", expect=2)
    assert "usage: dogo-fed matrix" in dogo_fed("matrix", "--help")


def test_a_copy_of_the_anchors_is_checked_by_their_manifest(tmp_path: Path) -> None:
    shared, path = photos(tmp_path / "shared", 10, 2), tmp_path / "anchors.json"
    options = (f"data={shared}", "data.options.image_size=24")
    output = dogo_fed("anchors", "make", *options, "licence=CC0, by us", f"out={path}")
    assert f"{path}: 18 anchors of 24 px" in output
    assert json.loads(path.read_text())["licence"] == "CC0, by us"
    output = dogo_fed("anchors", "check", *options, f"manifest={path}")
    assert f"the 18 images are those of {path}" in output
    (shared / "cat" / "3.png").unlink()
    output = dogo_fed("anchors", "check", *options, f"manifest={path}", expect=2)
    assert "num_images is 18 in the manifest and 17 here" in output
    assert "the verbs are make and check" in dogo_fed("anchors", "show", expect=2)


def photos(folder: Path, number: int, seed: int) -> Path:
    draws = np.random.default_rng(seed)
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True)
        for index in range(number):
            pixels = draws.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{index}.png")
    return folder


def test_each_peer_may_name_a_folder_of_its_own(tmp_path: Path) -> None:
    own = photos(tmp_path / "own", 20, 1)
    shared = photos(tmp_path / "shared", 20, 2)
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
    assert "1 of 37 private images of peer wide are anchors too" in peer_log
    told = output + (run_dir / "coordinator.log").read_text()
    assert str(own) not in told and "private images of peer" not in told
    (own / "dog" / "0.png").unlink()
    again = dogo_fed("train", f"resume={run_dir}", "steps=5", expect=1)
    assert "images are not those of peer wide" in again


@pytest.mark.slow
def test_a_comparison_of_sites_has_all_four_methods(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = [one for one in RUN if not one.startswith(("peers=", "data=", "steps=12"))]
    dogo_fed(
        "compare", "methods=[private,local,federated,central]", "seeds=[0,1]", "peers=[sites]",
        "data=[synthetic]", *settings, "steps=3", f"out={out}",
        timeout_s=400.0,
    )  # fmt: skip
    page = (out / "compare.md").read_text()
    assert "Methods: private, solo, dogo, central" in page
    assert "peers are not below solo" in page
