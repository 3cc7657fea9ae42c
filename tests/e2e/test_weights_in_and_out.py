"""Weights come in from where people keep theirs, teach, and go out to the tools that people use."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn

from dogo_fed.config_text import load_run_config
from dogo_fed.run.evaluate import open_backbone
from tests.support.command_line import dogo_fed

pytestmark = pytest.mark.slow  # many processes, and networks at 128 px

SHORT = ("data=synthetic", "host=local", "steps=2", "batch_size=16", "eval.linear=false")
IMAGES = torch.rand(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a file as a public ResNet-18 comes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("public") / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def run(public: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a run of networks that other tools know, at a size where their stems are the same."""
    run_dir = tmp_path_factory.mktemp("nets") / "run"
    dogo_fed(
        "train", *SHORT, "data.options.image_size=128", "data.options.size=32",
        "data.options.test_size=16", "peers=[resnet18,mobilenet_v2]", "eval.knn_k=4",
        f"peers.resnet18.init={public}", f"run_dir={run_dir}",
    )  # fmt: skip
    return run_dir


def features(run: Path, peer: str) -> torch.Tensor:
    backbone, trained_on = open_backbone(run, load_run_config(run), peer)
    mean, std = (torch.tensor(one).view(-1, 1, 1) for one in (trained_on.mean, trained_on.std))
    with torch.no_grad():
        return backbone((IMAGES - mean) / std)


def normalised(run: Path) -> torch.Tensor:
    facts = json.loads((run / "provenance.json").read_text())[-1]["data"]
    mean, std = (torch.tensor(facts[one]).view(-1, 1, 1) for one in ("mean", "std"))
    return (IMAGES - mean) / std


def exported(run: Path, peer: str, form: str, tmp_path: Path) -> Path:
    endings = {
        "torchvision": "pth",
        "timm": "safetensors",
        "onnx": "onnx",
        "safetensors": "safetensors",
    }
    out = tmp_path / f"{peer}.{endings[form]}"
    dogo_fed("export", f"run={run}", f"peer={peer}", f"format={form}", f"out={out}")
    assert "How to load it" in out.with_name(f"{out.name}.md").read_text()
    return out


def test_weights_that_came_in_were_the_start(run: Path, public: Path) -> None:
    """Two small steps later most of them are nearly where they were."""
    before = torch.load(public, weights_only=True)["layer3.0.conv1.weight"]
    after = load_file(run / "peers" / "resnet18" / "encoder.safetensors")
    after = after["stages.2.0.conv1.weight"]
    assert 0 < (after - before).abs().max() < 0.01


@pytest.mark.parametrize("peer", ["resnet18", "mobilenet_v2"])
def test_torchvision_reads_it(run: Path, peer: str, tmp_path: Path) -> None:
    path = exported(run, peer, "torchvision", tmp_path)
    model = torchvision.models.get_model(peer)
    setattr(model, "fc" if peer == "resnet18" else "classifier", nn.Identity())
    model.load_state_dict(torch.load(path, weights_only=True))
    with torch.no_grad():
        found = model.eval()(normalised(run))
    assert torch.allclose(found, features(run, peer), atol=1e-4)


def test_timm_reads_it(run: Path, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", num_classes=0)
    model.load_state_dict(load_file(exported(run, "resnet18", "timm", tmp_path)))
    with torch.no_grad():
        found = model.eval()(normalised(run))
    assert torch.allclose(found, features(run, "resnet18"), atol=1e-4)


@pytest.mark.parametrize("peer", ["resnet18", "mobilenet_v2"])
def test_onnxruntime_reads_it(run: Path, peer: str, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    session = onnxruntime.InferenceSession(str(exported(run, peer, "onnx", tmp_path)))
    (found,) = session.run(None, {"images": IMAGES.numpy()})
    assert np.allclose(found, features(run, peer).numpy(), atol=1e-3)


def test_the_code_of_the_card_loads_a_small_network(tmp_path: Path) -> None:
    run = tmp_path / "run"
    dogo_fed("train", *SHORT, "peers=[resnet18]", "eval.knn_k=4", f"run_dir={run}")
    path = exported(run, "resnet18", "torchvision", tmp_path)
    card = path.with_name(f"{path.name}.md").read_text()
    code = "\n".join(line[4:] for line in card.splitlines() if line.startswith("    "))
    names: dict[str, object] = {}
    exec(code.replace("'resnet18.pth'", repr(str(path))), names)
    model = names["model"]
    images = torch.rand(2, 3, 16, 16)
    backbone, _ = open_backbone(run, load_run_config(run), "resnet18")
    with torch.no_grad():
        assert torch.allclose(model(images), backbone(images), atol=1e-4)
    assert "| kNN, top-1 |" in card and "fingerprint" in card


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["peer=wide"], "there is no peer 'wide'"),
        ([], "name the peer: peer=<one of mobilenet_v2, resnet18>"),
        (
            ["peer=resnet18", "format=onx"],
            "format must be one of safetensors, torchvision, timm, onnx",
        ),
        (["peer=mobilenet_v2", "format=timm"], "timm has no network like mobilenet_v2"),
        (["pear=resnet18"], "does not know 'pear=resnet18'; it takes run, peer"),
    ],
)
def test_what_can_not_be_exported_is_said(run: Path, arguments: list[str], says: str) -> None:
    output = dogo_fed("export", f"run={run}", *arguments, expect=2)
    assert says in output and "Traceback" not in output
    assert not (run / "export").exists()


def test_a_public_encoder_teaches_by_its_features(public: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    taught = (
        *SHORT, "data.options.image_size=128", "data.options.size=32", "data.options.test_size=16",
        "peers=[resnet18,tiny_resnet]", "eval.knn_k=4", f"peers.resnet18.frozen_from={public}",
    )  # fmt: skip
    output = dogo_fed("train", *taught, f"run_dir={run_dir}", expect=2)
    assert "type exchange.rows=features" in output
    dogo_fed("train", *taught, "exchange.rows=features", f"run_dir={run_dir}")
    peers = json.loads((run_dir / "summary.json").read_text())["peers"]
    assert peers["resnet18"]["objective"] == "simclr (frozen)"
    assert peers["resnet18"]["steps_trained"] == 0 and peers["tiny_resnet"]["mutual_kl"] > 0
    kept = load_file(run_dir / "peers" / "resnet18" / "encoder.safetensors")
    original = torch.load(public, weights_only=True)
    assert torch.equal(kept["stages.0.0.conv1.weight"], original["layer1.0.conv1.weight"])


def test_a_comparison_takes_a_teacher_from_outside(public: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    dogo_fed(
        "compare", "methods=[solo,teacher,dogo]", "seeds=[0]", "peers=[trio]", "data=[synthetic]",
        "data.options.image_size=128", "data.options.size=32", "data.options.test_size=16", "steps=1",
        "rounds=null", "batch_size=16", "eval.knn_k=4", "eval.linear=false", "exchange.rows=features",
        "backbone@peers.wide.backbone=resnet18", "backbone@peers.cnn.backbone=tiny_resnet",
        f"peers.wide.frozen_from={public}", f"out={out}",
    )  # fmt: skip
    page = (out / "compare.md").read_text()
    assert "cnn" in page and "resnet: " in page and "wide: " not in page
    rows = json.loads((out / "compare.json").read_text())["rows"]
    assert rows and all({"solo", "teacher", "dogo"} <= set(row["methods"]) for row in rows)
    settings = load_run_config(out / "cells" / "teacher" / "trio" / "synthetic" / "0")
    assert settings.exchange.graph == {"cnn": {"wide": 1.0}, "resnet": {"wide": 1.0}}
