"""The example of three sites: it runs, and what it promises of the sites' images is so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY, dogo_fed, run_python

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(600)]

SITES = ("cnn", "resnet", "wide")
SHORT = ("steps=8", "steps_per_round=4", "eval.linear=false")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Returns the folder of a short run of the example, and what it printed."""
    folder = tmp_path_factory.mktemp("example") / "cross-site"
    arguments = ["-m", "examples.cross_site.run", str(folder), *SHORT]
    return folder, run_python(arguments, cwd=REPOSITORY)


def site_run(folder: Path, site: str) -> Path:
    (path,) = (folder / site / "runs").iterdir()
    return path


def test_three_sites_and_a_coordinator_without_images(example: tuple[Path, str]) -> None:
    folder, output = example
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert sorted(summary["peers"]) == list(SITES)
    assert all(
        one["steps_trained"] == 8 and one["mutual_kl"] > 0 for one in summary["peers"].values()
    )
    assert "each peer sends 8 distributions of 4 KiB" in output
    for site in SITES:
        encoder = site_run(folder, site) / "peers" / site / "encoder.safetensors"
        private = json.loads((encoder.parent / "private_images.json").read_text())
        assert private["num_train"] == 270 and private["num_classes"] == 4
        telling = [private[name] for name in ("fingerprint", "test_fingerprint", "labels")]
        telling += [f"images/{site}", *private["class_names"]]
        assert len(telling) == 8 and all(len(word) >= 7 for word in telling)
        # What the run, the SuperLink with its app, and the user of `flwr run` have written.
        told = {
            path: path.read_bytes()
            for place in ("run", "superlink", "cli")
            for path in (folder / place).rglob("*")
            if path.is_file()
        }
        assert {path.relative_to(folder).parts[0] for path in told} == {"run", "superlink", "cli"}
        for path, content in told.items():
            assert [word for word in telling if word.encode() in content] == [], path
    assert not (folder / "run" / "peers").exists() or not list(
        (folder / "run" / "peers").rglob("*.safetensors")
    )


def test_the_sites_end_with_the_weights_of_one_process(
    example: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = example
    images = folder / "images"
    private = [
        setting
        for site in SITES
        for setting in (
            f"peers.{site}.data={images / site}",
            f"peers.{site}.data.options.image_size=32",
        )
    ]
    dogo_fed(
        "train", "host=local", "peers=trio", f"data={images / 'anchors'}",
        "data.options.image_size=32", "data.options.labels=none", *private, "anchor_share=0.5",
        "exchange.rows=features", "batch_size=64", *SHORT, f"run_dir={tmp_path / 'run'}",
    )  # fmt: skip
    here, there = (
        json.loads((path / "summary.json").read_text())["peers"]
        for path in (tmp_path / "run", folder / "run")
    )
    for site in SITES:
        assert here[site]["state_digest"] == there[site]["state_digest"]


def test_a_site_has_all_that_it_needs_to_use_its_encoder(
    example: tuple[Path, str], tmp_path: Path
) -> None:
    folder, _ = example
    summary = json.loads((folder / "run" / "summary.json").read_text())
    run = site_run(folder, "cnn")
    dogo_fed("evaluate", f"run={run}", "protocol=knn")
    (sheet,) = (run / "evaluation").glob("*.json")
    (score,) = json.loads(sheet.read_text())["encoders"]["cnn"]["scores"]
    assert score["value"] == summary["peers"]["cnn"]["knn_top1"]
    dogo_fed("export", f"run={run}")
    card = (run / "export" / "cnn-safetensors.safetensors.md").read_text()
    assert "together with other peers" in card
    given = tmp_path / "wide.safetensors"
    shutil.copy(site_run(folder, "wide") / "peers" / "wide" / "encoder.safetensors", given)
    output = dogo_fed("matrix", f"run={run}", f"encoders={given}")
    rows = (run / "evaluation" / "matrix.csv").read_text().splitlines()
    assert [row.split(",")[:2] for row in rows[1:]] == [["cnn", "cnn"], ["wide", "cnn"]]
    assert "on cnn (270)" in output
