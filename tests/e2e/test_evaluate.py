"""`dogo-fed evaluate` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.command import SMALL_RUN, dogo_fed


def test_a_run_is_evaluated_and_so_is_its_file(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    tiny = (*SMALL_RUN[:1], "steps=2", "steps_per_round=2", *SMALL_RUN[3:])
    dogo_fed("train", *tiny, "host=local", "peers=solo", f"run_dir={run_dir}")
    (peer,) = json.loads((run_dir / "summary.json").read_text())["peers"]
    output = dogo_fed(
        "evaluate", f"run={run_dir}", "protocol=linear,limited_labels",
        "protocol.limited_labels.draws=2", "protocol.linear.epochs=2",
    )  # fmt: skip
    assert "10 % of the labels" in output and peer in output and "limited_labels.png" in output
    assert {path.name for path in (run_dir / "evaluation").iterdir()} == {
        f"{name}.{suffix}"
        for name in ("linear", "limited_labels")
        for suffix in ("json", "csv", "png")
    }
    linear = json.loads((run_dir / "evaluation" / "linear.json").read_text())
    summary = json.loads((run_dir / "summary.json").read_text())
    (score,) = linear["encoders"][peer]["scores"]
    assert score["value"] == summary["peers"][peer]["linear_top1"]

    own = yaml_backbone(run_dir, peer)
    output = dogo_fed(
        "evaluate", f"checkpoint={run_dir}/peers/{peer}/encoder.safetensors", *own,
        "data=synthetic", f"out={tmp_path / 'file'}", "protocol=knn", "protocol.knn.k=20",
    )  # fmt: skip
    assert (
        json.loads((tmp_path / "file" / "knn.json").read_text())["encoders"]["encoder"]["scores"][
            0
        ]["value"]
        == summary["peers"][peer]["knn_top1"]
    )

    for arguments, message in (
        ([f"run={tmp_path / 'nowhere'}"], "no such folder"),
        ([f"run={run_dir}", "protocol=lienar"], "did you mean 'linear'"),
        ([f"run={run_dir}", "protocol=limited_labels",
          "protocol.limited_labels.per_class=[500]"], "labelled images of class"),
    ):  # fmt: skip
        output = dogo_fed("evaluate", *arguments, expect=2)
        assert message in output and len(output.splitlines()) == 1, output


def yaml_backbone(run_dir: Path, peer: str) -> list[str]:
    """Returns the overrides that name a peer's backbone."""
    from configs.compose import load_yaml

    backbone = load_yaml(run_dir / "config.yaml").peers[peer].backbone
    options = [f"+backbone.options.{key}={value}" for key, value in backbone.options.items()]
    return ["backbone=own", f"backbone.name={backbone.name}", *options]
