"""The card of an exported encoder: its code, run as it stands, makes the network that was trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping
from dogo_fed.engine.build import build_backbone
from dogo_fed.errors import ConfigError
from dogo_fed.provenance import DataFacts
from dogo_fed.run import export
from dogo_fed.run.export import Format, export_encoder


def facts(image_size: int, channels: int) -> DataFacts:
    return DataFacts(
        name="photos", fingerprint="f", test_fingerprint="t", labels="l", num_train=9, num_test=9,
        image_size=image_size, mean=(0.5,) * channels, std=(0.2,) * channels, num_classes=2,
        class_names=(),
    )  # fmt: skip


def config_of(backbone: dict[str, Any]) -> RunConfig:
    others = {"objective": "simclr", "augmentation": "none", "optimizer": "adam"}
    peer = {"backbone": backbone, **{kind: {"name": name} for kind, name in others.items()}}
    return from_mapping({"peers": {"a": peer}, "data": {"name": "synthetic"}})


def exported(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    backbone: dict[str, Any],
    form: Format,
    trained_on: DataFacts,
) -> tuple[nn.Module, str]:
    """Returns a network that was as if trained, and the code of its card; the file is in the folder."""
    config = config_of(backbone)
    torch.manual_seed(0)
    network = build_backbone(
        config.peers["a"].backbone, trained_on.image_size, len(trained_on.mean)
    )
    with torch.no_grad():  # so that a forgotten buffer or a branch that starts at 0 shows
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(0.02 * torch.randn_like(tensor))
    monkeypatch.setattr(export, "open_backbone", lambda *which: (network.eval(), trained_on))
    peers = {"a": {"steps_trained": 3, "state_digest": "0"}}
    summary = {"wall_s": 1.0, "peers": peers, "events": []}
    (folder / "summary.json").write_text(json.dumps(summary))
    _, card = export_encoder(folder, config, "a", form, folder / "weights.file")
    lines = card.read_text().splitlines()
    return network, "\n".join(line[4:] for line in lines if line.startswith("    "))


CHEAP = [
    ("resnet18", Format.TORCHVISION, 32, 3, {"width": 64, "stem_stride": 1}),
    ("resnet18", Format.TORCHVISION, 32, 1, {"stem_stride": 2}),
    ("resnet18", Format.TORCHVISION, 112, 1, {}),
    ("resnet18", Format.TIMM, 32, 1, {}),
    ("resnet18", Format.TIMM, 112, 3, {}),
    ("resnet10", Format.TIMM, 64, 3, {"width": 16, "stem_stride": 2}),  # the default pair's
    ("resnet10", Format.TIMM, 64, 3, {}),
    ("resnet10", Format.TIMM, 112, 1, {"width": 6}),
    ("resnet18", Format.TIMM, 112, 3, {"width": 16}),
    ("resnet50", Format.TIMM, 64, 3, {"width": 8}),
    ("mobilenet_v2", Format.TORCHVISION, 32, 3, {}),
    ("mobilenet_v2", Format.TORCHVISION, 32, 3, {"imagenet_stem": True}),
    ("shufflenet_v2", Format.TORCHVISION, 32, 1, {"stem_stride": 2}),
    ("torchvision:resnet18", Format.TORCHVISION, 32, 3, {"stem_stride": 2}),
    ("torchvision:efficientnet_b0", Format.TORCHVISION, 32, 3, {"stochastic_depth_prob": 0.1}),
    ("torchvision:mobilenet_v3_small", Format.TORCHVISION, 112, 1, {}),
    ("torchvision:squeezenet1_1", Format.TORCHVISION, 64, 3, {}),
    ("timm:resnet18", Format.TIMM, 32, 3, {}),
    ("timm:ghostnet_050", Format.TIMM, 32, 1, {}),
    ("timm:convnext_atto", Format.TIMM, 32, 3, {"drop_path_rate": 0.1}),
    ("timm:vit_tiny_patch16_224", Format.TIMM, 64, 3, {"patch_size": 8, "depth": 2}),
]
LARGE = [
    ("resnet50", Format.TIMM, 64, 3, {}),
    *(
        (f"torchvision:{name}", Format.TORCHVISION, size, 3, {})
        for name, size in {
            "alexnet": 64,
            "vgg11": 64,
            "densenet121": 64,
            "convnext_tiny": 64,
            "swin_t": 64,
            "vit_b_16": 64,
            "googlenet": 64,
            "inception_v3": 96,
            "maxvit_t": 224,
            "regnet_y_400mf": 64,
            "mnasnet0_5": 64,
        }.items()
    ),
    *(
        (f"timm:{name}", Format.TIMM, 64, 3, {})
        for name in ("swin_tiny_patch4_window7_224", "hrnet_w18_small", "dla34", "densenet121")
    ),
]


@pytest.mark.parametrize(
    ("name", "form", "image_size", "channels", "options"),
    [*CHEAP, *(pytest.param(*one, marks=pytest.mark.slow) for one in LARGE)],
)
def test_the_code_of_the_card_makes_the_network_that_was_trained(
    name: str,
    form: Format,
    image_size: int,
    channels: int,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained_on = facts(image_size, channels)
    settings = {"name": name, "options": options}
    network, code = exported(tmp_path, monkeypatch, settings, form, trained_on)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    images = torch.rand(2, channels, image_size, image_size)
    with torch.no_grad():
        found, expected = names["model"](images), network(images)
    assert expected.ndim == 2 and expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("form", "options", "sentence"),
    [
        (Format.TIMM, {"width": 5}, "5 channels, which is an odd number. Use format=safetensors"),
        (
            Format.TIMM,
            {"keep_classifier": True},
            "in any even width, and timm:<model>. Use format=",
        ),
        (Format.TORCHVISION, {}, "Use format=timm or format=safetensors or format=onnx"),
    ],
)
def test_a_network_that_the_tool_has_not_is_refused_with_the_formats_that_take_it(
    form: Format, options: dict[str, Any], sentence: str,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = {"name": "resnet10", "options": options}
    with pytest.raises(ConfigError, match=sentence):
        exported(tmp_path, monkeypatch, settings, form, facts(32, 3))
    assert not list(tmp_path.glob("*.md"))


def test_strides_that_were_left_alone_are_not_mentioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, (options, is_changed) in enumerate([({}, True), ({"imagenet_stem": True}, False)]):
        (tmp_path / str(number)).mkdir()
        _, code = exported(
            tmp_path / str(number), monkeypatch, {"name": "mobilenet_v2", "options": options},
            Format.TORCHVISION, facts(32, 3),
        )  # fmt: skip
        assert ("stride" in code) == is_changed


def test_making_the_card_draws_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"name": "resnet18", "options": {}}
    exported(tmp_path, monkeypatch, settings, Format.TORCHVISION, facts(32, 3))
    before = torch.get_rng_state()
    export_encoder(tmp_path, config_of(settings), "a", Format.TORCHVISION, tmp_path / "again.file")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_card_calls_the_images_by_their_title(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = dataclasses.replace(facts(32, 3), name="image_folder", title="a|b")
    settings = {"name": "resnet18", "options": {}}
    exported(tmp_path, monkeypatch, settings, Format.TORCHVISION, known)
    (card,) = tmp_path.glob("*.md")
    assert r"| images | a\|b, 9, fingerprint `f` |" in card.read_text()
