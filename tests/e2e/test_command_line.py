"""What a user types, and what it says when it can't be done: one clear message, nothing left behind."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from configs.compose import compose_run
from configs.shorthand import in_full
from dogo_fed.contracts import PeerId
from dogo_fed.errors import ConfigError
from dogo_fed.run.prepare import prepare
from tests.support.command_line import REPOSITORY, SMALL_RUN, dogo_fed, run_python

SHORT = (*SMALL_RUN[:1], "steps=4", "steps_per_round=2", *SMALL_RUN[3:], "host=local")

IMPOSSIBLE = {
    "unknown key": (["colour=red"], ["colour"]),
    "unknown key of a group": (["exchange.enable=true"], ["exchange.enable"]),
    "wrong type": (["batch_size=many"], ["batch_size", "many"]),
    "fraction of a step": (["steps=1.5"], ["steps", "1.5"]),
    "unknown host": (["host=moon"], ["host", "moon", "local"]),
    "unknown group": (["peers=nobody"], ["nobody", "pair"]),
    "batch larger than the data": (["batch_size=100000"], ["batch_size", "100000", "512"]),
    "temperature of zero": (["peers.wide.kl_temperature=0"], ["kl_temperature", "0"]),
    "negative weight": (["peers.wide.distill_weight=-1"], ["distill_weight", "-1"]),
    "two names, one folder": (["+peers.WIDE=${peers.wide}"], ["same name", "WIDE"]),
    "a name that is a path": (["+peers={..: ${peers.wide}}"], ["'..'"]),
    "no peer": (["~peers"], ["peer"]),
    "rounds and steps": (["rounds=3"], ["rounds", "steps"]),
    "unknown backbone": (["peers.wide.backbone.name=resnet81"], ["wide", "resnet81", "resnet18"]),
    "a text for a number": (["data.options.size=many"], ["size", "synthetic", "number", "many"]),
    "a text for a rate": (["peers.wide.optimizer.options.lr=fast"], ["wide", "adam", "lr", "fast"]),
    "characters that need quotes": (["run_dir=a b("], ["run_dir=a b(", "quotes", "run_dir='a b('"]),
    "unknown option": (["+peers.wide.backbone.options.widht=3"], ["wide", "widht", "width"]),
    "impossible option": (["peers.wide.backbone.options.width=0"], ["wide", "width"]),
    "unknown data set": (["data.name=digit_m"], ["digit_m", "digits_m"]),
    "more neighbours than images": (["eval.knn_k=1000"], ["knn_k", "1000", "512"]),
    "unknown device": (["device=tpu"], ["device", "tpu"]),
}


def changed(overrides: list[str]) -> list[str]:
    """Returns the short run with these overrides in place of its own."""
    keys = {override.partition("=")[0] for override in overrides}
    return [part for part in SHORT if part.partition("=")[0] not in keys] + overrides


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_what_can_not_be_is_refused_before_anything_starts(what: str) -> None:
    overrides, expected = IMPOSSIBLE[what]
    with pytest.raises(ConfigError) as refusal:
        prepare(compose_run(changed(overrides)))
    message = str(refusal.value)
    assert all(word in message for word in expected), message
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    "what", ["unknown key", "unknown group", "fraction of a step", "batch larger than the data"]
)
def test_the_command_says_one_clear_line_and_leaves_nothing(what: str, tmp_path: Path) -> None:
    overrides, expected = IMPOSSIBLE[what]
    run_dir = tmp_path / "run"
    output = dogo_fed("train", *changed([*overrides, f"run_dir={run_dir}"]), expect=2)
    assert all(word in output for word in expected), output
    assert len(output.splitlines()) == 1
    assert not run_dir.exists()


def test_a_run_leaves_everything_it_promises(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    output = dogo_fed("train", *SHORT, "peers=simclr_simsiam", f"run_dir={run_dir}")
    assert "simclr" in output and "mutual KL" in output
    expected = {
        "config.yaml",
        "coordinator.log",
        "curves.png",
        "metrics.jsonl",
        "peers",
        "provenance.json",
        "summary.json",
        "tensorboard",
    }
    assert {path.name for path in run_dir.iterdir()} == expected
    for peer in ("simclr", "simsiam"):
        assert {path.name for path in (run_dir / "peers" / peer).iterdir()} >= {
            "checkpoints",
            "encoder.safetensors",
        }
    assert not [path for path in run_dir.rglob("*") if path.name.endswith((".tmp", ".partial"))]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert list(summary) >= [
        "run_id",
        "seed",
        "host",
        "steps",
        "steps_done",
        "wall_s",
        "peers",
        "unfinished",
        "exchange",
        "variants",
        "events",
    ]
    assert set(summary["exchange"]) >= {"bytes_up_per_step", "bytes_down_per_step", "wait_fraction"}
    for peer in summary["peers"].values():
        assert set(peer) >= {
            "backbone", "objective", "parameters", "knn_top1", "linear_top1", "knn_top1_untrained",
            "ssl_loss", "mutual_kl", "state_digest",
        }  # fmt: skip
    assert (run_dir / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
def test_the_exported_encoder_loads_into_the_plain_backbone(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from dogo_fed import components, load_run_config
    from dogo_fed.models.catalog import BACKBONES
    from dogo_fed.storage.checkpoint import CheckpointStore

    run_dir = tmp_path / "run"
    dogo_fed("train", *SHORT, "peers=solo", f"run_dir={run_dir}")
    (peer,) = load_run_config(run_dir).peers
    settings = load_run_config(run_dir).peers[peer].backbone
    backbone = components.build(
        "backbone", settings.name, BACKBONES, settings.options, image_size=16, in_channels=3
    )
    assert isinstance(backbone, torch.nn.Module)
    exported = load_file(run_dir / "peers" / peer / "encoder.safetensors")
    backbone.load_state_dict(exported, strict=True)
    store = CheckpointStore(run_dir / "peers" / peer / "checkpoints", keep=2)
    newest = torch.load(store._path(store.steps()[-1]), weights_only=True)["objective"]
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, newest[f"backbone.{name}"]), name


def test_commands_and_help() -> None:
    assert "train" in dogo_fed("--help") and "data" in dogo_fed("--help")
    assert "there is no command" in dogo_fed("tarin", expect=2)
    assert "batch_size" in dogo_fed("train", "--help")
    job = dogo_fed("train", "--cfg", "job", "seed=7", "peers=trio")
    assert "seed: 7" in job and "wide:" in job
    assert "dogo-fed" in dogo_fed("--version")


@pytest.mark.slow
def test_multirun_gives_every_job_its_folder(tmp_path: Path) -> None:
    dogo_fed("train", "-m", *SHORT, "peers=solo", "seed=1,2", "run_dir=runs/both", cwd=tmp_path)
    seeds = [
        json.loads((tmp_path / "runs" / "both" / number / "summary.json").read_text())["seed"]
        for number in ("0", "1")
    ]
    assert seeds == [1, 2]


@pytest.mark.slow
def test_data_says_what_all_sites_must_share(tmp_path: Path) -> None:
    output = dogo_fed("data", "data=synthetic", cwd=tmp_path)
    assert "fingerprint" in output and "512" in output
    assert (tmp_path / "runs" / "data" / "synthetic" / "samples.png").stat().st_size > 1000


@pytest.mark.slow
@pytest.mark.grpc
def test_peers_that_exchange_nothing_run_side_by_side(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    short = [part for part in SHORT if part != "host=local"]
    dogo_fed("train", *short, "host=processes", "exchange.enabled=false", f"run_dir={run_dir}")
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["exchange"]["bytes_up_per_step"] == 0
    assert all(peer["mutual_kl"] == 0 for peer in summary["peers"].values())
    assert all(peer["steps_trained"] == 4 for peer in summary["peers"].values())


@pytest.mark.slow
@pytest.mark.grpc
def test_own_backbone_and_data_by_import_path(tmp_path: Path) -> None:
    (tmp_path / "my_things.py").write_text(
        "import torch\n"
        "from dogo_fed.data.synthetic import synthetic\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, image_size, in_channels, width=4):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(in_channels, width, 3)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x).mean((2, 3))\n"
        "def data(size=100):\n"
        "    return synthetic(size=size, test_size=40)\n"
    )
    run_dir = tmp_path / "run"
    dogo_fed(
        "train", *[p for p in SHORT if not p.startswith(("data=", "host="))], "host=processes",
        "data=own", "data.name=my_things:data", "+data.options.size=90",
        "backbone@peers.wide.backbone=own", "peers.wide.backbone.name=my_things:Net",
        "+peers.wide.backbone.options.width=6",
        f"run_dir={run_dir}", cwd=tmp_path,
    )  # fmt: skip
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["peers"]["wide"]["parameters"] == 3 * 6 * 9 + 6


@pytest.mark.slow
@pytest.mark.parametrize("example", ["two_peers.py", "own_model.py"])
def test_examples_run(example: str, tmp_path: Path) -> None:
    output = run_python([str(REPOSITORY / "examples" / example)], cwd=tmp_path)
    assert output.count("\n") >= 2


def test_the_command_that_an_example_prints_trains_its_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = REPOSITORY / "examples"
    text = (folder / "own_model.py").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    dogo-fed train (.*)$", text, re.MULTILINE)
    monkeypatch.syspath_prepend(folder)
    run = prepare(compose_run(in_full([*shlex.split(command), "host=local", "steps=1"])))
    assert run.config.data.name == "own_model:my_data" and len(run.data.shared.train) == 300
    wide = run.build_peer(PeerId("wide"))
    assert type(wide.objective.backbone).__name__ == "MyNet"
