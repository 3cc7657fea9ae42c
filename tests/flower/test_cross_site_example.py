"""The example of three sites: it runs, and what it promises of the sites' images is so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY, run_python

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(600)]

SITES = ("cnn", "resnet", "wide")


def test_three_sites_and_a_coordinator_without_images(tmp_path: Path) -> None:
    folder = tmp_path / "cross-site"
    output = run_python(
        ["-m", "examples.cross_site.run", str(folder), "steps=8", "steps_per_round=4",
         "eval.linear=false"],
        cwd=REPOSITORY,
    )  # fmt: skip
    summary = json.loads((folder / "run" / "summary.json").read_text())
    assert sorted(summary["peers"]) == list(SITES)
    assert all(
        one["steps_trained"] == 8 and one["mutual_kl"] > 0 for one in summary["peers"].values()
    )
    assert "each peer sends 8 distributions of 4 KiB" in output
    for site in SITES:
        (encoder,) = (folder / site / "runs").glob(f"*/peers/{site}/encoder.safetensors")
        private = json.loads((encoder.parent / "private_images.json").read_text())
        assert private["num_train"] == 270 and private["num_classes"] == 4
        told = [path for path in (folder / "run").rglob("*") if path.is_file()]
        for path in told:
            content = path.read_bytes()
            assert private["fingerprint"].encode() not in content
            assert f"images/{site}".encode() not in content
    assert not (folder / "run" / "peers").exists() or not list(
        (folder / "run" / "peers").rglob("*.safetensors")
    )
