"""`dogo-fed evaluate` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from configs.compose import compose_run
from dogo_fed.errors import CheckpointError, ConfigError
from dogo_fed.run.train import train
from server.commands.evaluate import evaluate
from server.commands.evaluation_request import compose_evaluation
from tests.support.command_line import dogo_fed

TINY = (
    "data=synthetic", "data.options.size=80", "data.options.test_size=40", "host=local", "peers=solo",
    "steps=2", "steps_per_round=2", "batch_size=16", "eval.knn_k=10", "eval.linear_epochs=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train(compose_run([*TINY, f"run_dir={folder}"]))
    return folder


def test_a_run_is_evaluated_from_the_command_line(run_dir: Path) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    (peer,) = summary["peers"]
    output = dogo_fed(
        "evaluate", f"run={run_dir}", "protocol=linear,limited_labels", "protocol.linear.epochs=2",
        "protocol.limited_labels.draws=2", "protocol.limited_labels.per_class=[3]", f"peer={peer}",
    )  # fmt: skip
    assert "10 % of the labels" in output and peer in output and "limited_labels.png" in output
    assert {path.name for path in (run_dir / "evaluation").iterdir()} == {
        f"{name}.{suffix}"
        for name in ("linear", "limited_labels")
        for suffix in ("json", "csv", "png")
    }
    linear = json.loads((run_dir / "evaluation" / "linear.json").read_text())
    (score,) = linear["encoders"][peer]["scores"]
    assert score["value"] == summary["peers"][peer]["linear_top1"]


def test_a_misspelt_protocol_is_one_clear_line(run_dir: Path) -> None:
    output = dogo_fed("evaluate", f"run={run_dir}", "protocol=lienar", expect=2)
    assert "did you mean 'linear'" in output and len(output.splitlines()) == 1, output


def test_a_weights_file_scores_as_its_run(run_dir: Path, tmp_path: Path) -> None:
    config = compose_run(TINY)
    (peer,) = config.peers
    backbone = config.peers[peer].backbone
    request = compose_evaluation(
        [
            f"checkpoint={run_dir}/peers/{peer}/encoder.safetensors", "backbone=own",
            f"backbone.name={backbone.name}",
            *(f"+backbone.options.{key}={value}" for key, value in backbone.options.items()),
            *TINY[:3], f"out={tmp_path / 'file'}", "protocol=[knn]", "protocol.knn.k=10",
        ]
    )  # fmt: skip
    evaluate(request)
    content = json.loads((tmp_path / "file" / "knn-synthetic.json").read_text())
    (score,) = content["encoders"]["encoder"]["scores"]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert score["value"] == summary["peers"][peer]["knn_top1"]


def test_what_a_path_is_called_is_no_markup(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mine [bold] [" / "x] :smile:"
    shutil.copytree(run_dir, folder, ignore=shutil.ignore_patterns("evaluation"))
    overrides = [f"run='{folder}'", "protocol=[knn]", "protocol.knn.k=10"]
    evaluate(compose_evaluation(overrides))
    assert f"written to {folder}/evaluation/knn.json" in capsys.readouterr().out


def test_another_data_set_has_files_of_its_own(run_dir: Path) -> None:
    other = ["data=synthetic", "data.options.size=60", "data.options.seed=5"]
    evaluate(
        compose_evaluation([f"run={run_dir}", *other, "protocol=[ood,knn]", "protocol.knn.k=5"])
    )
    written = {path.name for path in (run_dir / "evaluation").iterdir()}
    assert {"ood-synthetic.csv", "knn-synthetic.json"} <= written


@pytest.mark.parametrize(
    "overrides, error, message",
    [
        (["run=nowhere"], ConfigError, "there is no such folder"),
        (["run={run_dir}", "peer_names=[tall]"], ConfigError, "there is no peer 'tall'"),
        (["run={run_dir}", "protocol=[limited_labels]", "protocol.limited_labels.per_class=[99]"],
         ConfigError, "99 labelled images of class 0 were asked for, but the data set has 20"),
        (["run={run_dir}", "protocol=[ood]"], ConfigError, "name another data set by data="),
        (["run={unfinished}"], CheckpointError, "finish the run first"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_said(
    overrides: list[str], error: type[Exception], message: str, run_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text((run_dir / "config.yaml").read_text())
    filled = [one.format(run_dir=run_dir, unfinished=tmp_path) for one in overrides]
    with pytest.raises(error, match=message):
        evaluate(compose_evaluation(filled))
    assert not (tmp_path / "evaluation").exists()
