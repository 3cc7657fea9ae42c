"""Weights files under protocols: what is read of them, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dogo_fed.config import ComponentConfig
from dogo_fed.data.synthetic import synthetic
from dogo_fed.errors import CheckpointError, ConfigError
from dogo_fed.models.weights import load_weights, read_weights
from dogo_fed.run.evaluate import evaluate_subjects
from dogo_fed.run.weights_file import WeightsFile, open_file

CNN = ComponentConfig(name="small_cnn", options={"width": 4})


def small_cnn() -> nn.Module:
    from dogo_fed.models.small_cnn import SmallCNN

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return SmallCNN(image_size=16, in_channels=3, width=4)


@pytest.mark.parametrize("kind", ["safetensors", "pt", "wrapped", "parallel"])
def test_a_weights_file_scores_as_the_encoder_in_memory(kind: str, tmp_path: Path) -> None:
    state = small_cnn().state_dict()
    classifier = {"fc.weight": torch.zeros(10, 3), "fc.bias": torch.zeros(10)}
    path = tmp_path / ("mine.safetensors" if kind == "safetensors" else "mine.pt")
    if kind == "safetensors":
        save_file({**state, **classifier}, path)
    elif kind == "parallel":
        torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path)
    else:
        content = {**state, **classifier}
        torch.save({"state_dict": content, "epoch": 3} if kind == "wrapped" else content, path)
    dataset = synthetic(size=80, test_size=40)
    mine = open_file(WeightsFile(path=path, backbone=CNN), dataset)
    for name, tensor in mine.encoder.backbone.state_dict().items():
        assert torch.equal(tensor, state[name])
    sheet = evaluate_subjects([mine], "knn", {"k": 5}, source=str(path))
    assert list(sheet.scores) == ["mine"]


def test_dropped_classifier_is_told() -> None:
    net = small_cnn()
    tensors = {**net.state_dict(), "fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}
    (notice,) = load_weights(net, tensors, "file.pt")
    assert "fc.weight, fc.bias" in notice


def test_names_and_shapes_that_do_not_fit_are_named() -> None:
    net = small_cnn()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    tensors = dict(before)
    gone, bent = list(tensors)[:2]
    del tensors[gone]
    tensors[bent] = torch.zeros(1, 2, 3, 4)
    tensors["extra.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as refusal:
        load_weights(net, tensors, "file.pt")
    message = str(refusal.value)
    assert f"missing: {gone}" in message and "unexpected: extra.weight" in message
    assert f"{bent} (1, 2, 3, 4) instead of" in message
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (print, ("executed",))

    torch.save(Evil(), tmp_path / "evil.pt")
    torch.save({"a": 3}, tmp_path / "numbers.pt")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    (tmp_path / "text.pt").write_text("no weights")
    for name, message in {
        "evil.pt": "can't be read as weights",
        "numbers.pt": "'?a'? is no tensor|a is no tensor",
        "list.pt": "holds no state dict, but a list",
        "cut.safetensors": "can't be read as weights",
        "text.pt": "can't be read as weights",
        "nowhere.pt": "there is no weights file",
    }.items():
        with pytest.raises(CheckpointError, match=message):
            read_weights(tmp_path / name)


def test_an_encoder_keeps_its_own_normalisation(tmp_path: Path) -> None:
    save_file(small_cnn().state_dict(), tmp_path / "mine.safetensors")
    file = WeightsFile(
        path=tmp_path / "mine.safetensors", backbone=CNN, image_size=32,
        mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3),
    )  # fmt: skip
    mine = open_file(file, synthetic(size=20, test_size=10))
    assert mine.encoder.inputs.image_size == 32 and mine.encoder.inputs.mean == (0.4, 0.5, 0.6)
    assert len(mine.test.labels_N) == 10
    with pytest.raises(ConfigError, match="std above 0"):
        open_file(dataclasses.replace(file, std=(0.1, 0.0, 0.1)), synthetic(size=20, test_size=10))
