"""Weights as other projects leave them: found under their prefix, or one sentence that says what to do."""

from __future__ import annotations

import argparse
import re

import pytest
import torch
import torchvision
from torch import nn

from dogo_fed.errors import CheckpointError
from dogo_fed.models.library import torchvision_model
from dogo_fed.models.mobile import mobilenet_v2
from dogo_fed.models.resnet import resnet18, resnet50
from dogo_fed.models.tensor_names import torchvision_from_ours
from dogo_fed.models.weights import load_weights, read_weights

IMAGES = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(1)
    network = torchvision.models.resnet18()
    for module in network.modules():  # so that a forgotten buffer shows
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    return network.eval()


@pytest.fixture(scope="module")
def expected(plain):
    network = torchvision.models.resnet18()
    network.load_state_dict(plain.state_dict())
    network.fc = nn.Identity()
    with torch.no_grad():
        return network.eval()(IMAGES)


def body(plain):
    return {name: one for name, one in plain.state_dict().items() if not name.startswith("fc.")}


def other():
    return {name: torch.randn_like(one.float()) for name, one in resnet_names().items()}


def resnet_names():
    return {n: t for n, t in torchvision.models.resnet18().state_dict().items() if "fc." not in n}


def prefixed(prefix, tensors):
    return {prefix + name: tensor for name, tensor in tensors.items()}


def children(tensors):
    """Returns the names of nn.Sequential(*list(resnet.children())[:-1]), as lightly's examples have."""
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    return {
        ".".join([places[name.split(".")[0]], *name.split(".")[1:]]): tensor
        for name, tensor in tensors.items()
    }


KINDS = {
    "torchvision": lambda p: p.state_dict(),
    "DDP": lambda p: {"epoch": 2, "state_dict": prefixed("module.", p.state_dict())},
    "MoCo": lambda p: {
        "state_dict": {
            **prefixed("module.encoder_k.", other()),
            **prefixed("module.encoder_q.", body(p)),
            "module.encoder_q.fc.0.weight": torch.zeros(8, 512),
            "module.queue": torch.zeros(128, 64),
            "module.queue_ptr": torch.zeros(1),
        }
    },
    "SimSiam": lambda p: {
        "state_dict": {
            **prefixed("module.encoder.", body(p)),
            "module.encoder.fc.0.weight": torch.zeros(8, 512),
            "module.predictor.0.weight": torch.zeros(8, 8),
        }
    },
    "BYOL": lambda p: {
        "model": {
            **prefixed("target_encoder.", other()),
            **prefixed("online_encoder.", body(p)),
            "predictor.weight": torch.zeros(8, 8),
        }
    },
    "solo-learn": lambda p: {
        "state_dict": {
            **prefixed("backbone.", body(p)),
            **prefixed("momentum_backbone.", other()),
            "projector.0.weight": torch.zeros(8, 8),
        }
    },
    "lightly": lambda p: {"state_dict": prefixed("backbone.", children(body(p)))},
    "SwAV": lambda p: {
        **prefixed("module.", body(p)),
        "module.projection_head.0.weight": torch.zeros(8, 512),
        "module.prototypes.weight": torch.zeros(8, 8),
    },
    "DINO": lambda p: {
        "student": {
            **prefixed("module.backbone.", body(p)),
            "module.head.last_layer.weight_v": torch.zeros(8, 8),
        },
        "teacher": prefixed("backbone.", other()),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(1)}}, "param_groups": []},
        "epoch": 3,
    },
    "BYOL with two state dicts": lambda p: {
        "online_network_state_dict": {
            **prefixed("encoder.", children(body(p))),
            "projection.net.0.weight": torch.zeros(8, 8),
        },
        "target_network_state_dict": prefixed("encoder.", children(other())),
    },
    "timm with an average": lambda p: {
        "state_dict": p.state_dict(),
        "state_dict_ema": other(),
        "arch": "resnet18",
    },
    "net": lambda p: {"net": prefixed("module.", p.state_dict()), "acc": 93.1},
    "encoder": lambda p: {"encoder": body(p), "epoch": 1},
    "backbone": lambda p: {"backbone": body(p), "head": {"weight": torch.zeros(1)}},
    "teacher alone": lambda p: {"teacher": prefixed("backbone.", body(p))},
    "model in a state_dict": lambda p: {"state_dict": {"model": body(p)}},
    "timm": lambda p: body(p),
    "without counts of batches": lambda p: {
        name: one for name, one in body(p).items() if "num_batches" not in name
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_other_projects_are_loaded(kind, plain, expected, tmp_path):
    torch.save(KINDS[kind](plain), tmp_path / "weights.pth")
    backbone = resnet18(image_size=128).eval()
    notices = load_weights(backbone, read_weights(tmp_path / "weights.pth"), "weights.pth")
    with torch.no_grad():
        assert torch.allclose(backbone(IMAGES), expected, atol=1e-4)
    said = " ".join(notices)
    if kind == "MoCo":
        assert "120 names fit after 'module.encoder_q.'" in said
        assert "module.encoder_k (120)" in said and "module.queue (1)" in said
        assert "the classifier's weights are not used: fc.0.weight" in said


def test_what_stands_beside_a_backbone_that_fits_is_left_out_and_named():
    """As DINOv2's mask token, the decoder of a masked autoencoder, or a head of somebody's own."""
    backbone = torchvision_model("vit_b_16", image_size=32)
    beside = {"mask_token": torch.zeros(1, 1, 768), "decoder_blocks.0.weight": torch.zeros(2)}
    (said,) = load_weights(backbone, {**backbone.state_dict(), **beside}, "x")
    assert said == "x: other parts' weights are not used: mask_token, decoder_blocks.0.weight"
    network = resnet18(image_size=128)
    renamed = {f"net.{name}": one for name, one in network.state_dict().items()}
    said = " ".join(load_weights(network, {**renamed, "net.contrast.0.bias": torch.zeros(3)}, "x"))
    assert "other parts' weights are not used: contrast.0.bias" in said


def test_the_rest_of_a_larger_network_is_not_left_out():
    whole = resnet18(image_size=128).state_dict()
    larger = {**whole, "stages.3.2.conv1.weight": torch.zeros(2), "stages.4.0.x": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="unexpected: stages"):
        load_weights(resnet18(image_size=128), larger, "x")
    theirs = {torchvision_from_ours(name): one for name, one in whole.items()}
    with pytest.raises(CheckpointError, match="unexpected: layer4"):
        load_weights(
            resnet18(image_size=128), {**theirs, "layer4.2.conv1.weight": torch.zeros(2)}, "x"
        )
    for name in ("conv5_x", "inception5a"):
        nets = nn.ModuleDict({"conv2_x": nn.Linear(2, 2), "inception4e": nn.Linear(2, 2)})
        with pytest.raises(CheckpointError, match=f"unexpected: {name}"):
            load_weights(nets, {**nets.state_dict(), f"{name}.weight": torch.zeros(2)}, "x")
    vit = torchvision_model("vit_b_16", image_size=32)
    with pytest.raises(CheckpointError, match="unexpected: register_tokens"):
        load_weights(vit, {**vit.state_dict(), "register_tokens": torch.zeros(1, 4, 768)}, "x")
    deeper = {**vit.state_dict(), "encoder.layers.encoder_layer_12.ln.weight": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="unexpected: encoder"):
        load_weights(vit, deeper, "x")


def test_a_folder_of_weights_is_answered_with_its_files(tmp_path):
    with pytest.raises(
        CheckpointError, match=r"is a folder: name the file \(there is none in it\)"
    ):
        read_weights(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"name the file in it \(model\.safetensors\)"):
        read_weights(tmp_path)


def test_a_prefix_without_its_point_is_answered_with_it():
    network = resnet18(image_size=128)
    tensors = {f"a.b.{name}": one for name, one in network.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"the prefix ends with a point: a\.b\."):
        load_weights(network, tensors, "x", prefix="a.b")


def test_of_several_state_dicts_the_one_that_is_taken_is_named_and_another_can_be_given(
    plain, expected, tmp_path
):
    path = tmp_path / "dino.pth"
    torch.save({"student": prefixed("backbone.", other()), "teacher": body(plain)}, path)
    found, given = (resnet18(image_size=128).eval() for _ in range(2))
    notices = load_weights(found, read_weights(path), "dino.pth")
    assert notices[0] == "dino.pth: 120 names fit after 'student.backbone.'"
    assert "not used: teacher.conv1 (1), teacher.bn1 (5)" in notices[1]
    load_weights(given, read_weights(path), "dino.pth", prefix="teacher.")
    with torch.no_grad():
        assert torch.allclose(given(IMAGES), expected, atol=1e-4)
        assert not torch.allclose(found(IMAGES), expected, atol=1e-2)


HEADS = {
    "googlenet": ("aux1.fc1.weight", "aux2.conv.bn.bias", "fc.weight"),
    "inception_v3": ("AuxLogits.conv0.conv.weight", "fc.bias"),
}


@pytest.mark.parametrize("name", HEADS)
def test_classifiers_half_way_are_left_out(name):
    backbone = torchvision_model(name, image_size=32)
    tensors = {**backbone.state_dict(), **{head: torch.zeros(1) for head in HEADS[name]}}
    said = " ".join(load_weights(backbone, tensors, "x"))
    assert "other heads' weights are not used: " + HEADS[name][0] in said
    assert "the classifier's weights are not used: fc." in said
    theirs = torchvision.models.get_model(name, weights=None, init_weights=False).state_dict()
    assert set(HEADS[name]) <= set(theirs), "these are torchvision's names"


def test_the_second_head_of_a_distilled_transformer_is_left_out():
    timm = pytest.importorskip("timm")
    small = {"embed_dim": 12, "depth": 1, "num_heads": 2, "num_classes": 4}
    theirs = timm.create_model("deit_tiny_distilled_patch16_224", **small)
    backbone = timm.create_model("deit_tiny_distilled_patch16_224", **{**small, "num_classes": 0})
    assert load_weights(backbone, theirs.state_dict(), "x") == [
        "x: the classifier's weights are not used: head.weight, head.bias",
        "x: other heads' weights are not used: head_dist.weight, head_dist.bias",
    ]


def test_torchvisions_own_network_takes_our_names(plain, expected):
    ours = resnet18(image_size=128)
    load_weights(ours, plain.state_dict(), "x")
    theirs = torchvision.models.resnet18()
    theirs.fc = nn.Identity()
    load_weights(theirs, prefixed("backbone.", ours.state_dict()), "x")
    with torch.no_grad():
        assert torch.allclose(theirs.eval()(IMAGES), expected, atol=1e-4)


def test_a_prefix_that_is_given_is_taken(plain, expected):
    both = {**prefixed("student.", other()), **prefixed("teacher.", body(plain))}
    found, given = (resnet18(image_size=128).eval() for _ in range(2))
    load_weights(found, both, "x")
    load_weights(given, both, "x", prefix="teacher.")
    with torch.no_grad():
        assert torch.allclose(given(IMAGES), expected, atol=1e-4)
        assert not torch.allclose(found(IMAGES), expected, atol=1e-2)
    with pytest.raises(CheckpointError, match="missing: "):
        load_weights(given, both, "x", prefix="elsewhere.")


def test_what_does_not_fit_is_named_and_nothing_is_changed(plain):
    backbone = resnet18(image_size=128)
    before = {name: one.clone() for name, one in backbone.state_dict().items()}
    wrong = dict(body(plain))
    del wrong["layer4.1.conv2.weight"]
    wrong["layer1.0.conv1.weight"] = torch.zeros(1, 1)
    wrong["layer9.weight"] = torch.zeros(1)
    with pytest.raises(CheckpointError) as caught:
        load_weights(backbone, prefixed("m.", wrong), "weights.pth")
    message = str(caught.value)
    for expected in (
        "119 names fit after 'm.'",
        "missing: stages.3.1.conv2.weight",
        "unexpected: m.layer9.weight",
        r"of another shape: m.layer1.0.conv1.weight (1, 1) instead of (64, 64, 3, 3)",
    ):
        assert expected in message
    assert all(torch.equal(one, before[name]) for name, one in backbone.state_dict().items())


def test_another_network_and_another_stem_are_refused(plain):
    with pytest.raises(CheckpointError, match="does not fit the backbone ResNet"):
        load_weights(resnet50(image_size=128), plain.state_dict(), "x")
    with pytest.raises(
        CheckpointError, match=r"conv1\.weight \(64, 3, 7, 7\) instead of \(64, 3, 3, 3\)"
    ):
        load_weights(resnet18(image_size=32), plain.state_dict(), "x")
    with pytest.raises(CheckpointError, match="unexpected: a, b"):
        load_weights(resnet18(image_size=32), {"a": torch.ones(1), "b": torch.ones(1)}, "x")


@pytest.mark.parametrize("is_ours", [True, False])
def test_a_file_for_large_images_is_answered_with_what_to_set(is_ours, plain):
    small = {"image_size": 32}
    backbone = resnet18(**small) if is_ours else torchvision_model("resnet18", **small)
    with pytest.raises(CheckpointError, match="only the first convolution differs") as caught:
        load_weights(backbone, plain.state_dict(), "x")
    message = str(caught.value)
    assert "set data.options.image_size to at least 100" in message
    assert "torchvision:<model> with its option imagenet_stem=true" in message
    load_weights(resnet18(image_size=100), plain.state_dict(), "x")
    theirs = torchvision_model("resnet18", **small, imagenet_stem=True)
    load_weights(theirs, plain.state_dict(), "x")


def test_what_differs_in_more_than_the_first_convolution_is_another_backbone(plain):
    wrong = {**plain.state_dict(), "layer9.weight": torch.zeros(1)}
    for backbone, tensors in (
        (resnet18(image_size=32), wrong),
        (resnet18(image_size=32, in_channels=1), plain.state_dict()),
    ):
        with pytest.raises(CheckpointError, match="name the backbone, and its options"):
            load_weights(backbone, tensors, "x")


def test_one_notice_says_that_a_network_for_small_images_has_other_strides():
    tensors = torchvision.models.mobilenet_v2().state_dict()

    def notices(**options):
        said = load_weights(mobilenet_v2(**options), tensors, "m.pth")
        return [one for one in said if "does not halve" in one]

    (notice,) = notices(image_size=32)
    assert notice.startswith(
        "m.pth: for images below 100 px the backbone does not halve at features.0.0"
    )
    assert "imagenet_stem=true" in notice
    assert notices(image_size=100) == notices(image_size=32, imagenet_stem=True) == []
    assert load_weights(resnet18(image_size=32), resnet18(image_size=32).state_dict(), "x") == []


CLASSES = {
    "argparse.Namespace": lambda p: {"state_dict": body(p), "args": argparse.Namespace(lr=0.1)},
    "torchvision.models.resnet.ResNet": lambda p: p,
    "torchvision.models.resnet.ResNet ": lambda p: {"epoch": 2, "net": p, "args": [1, 2]},
    "argparse.Namespace ": lambda p: {
        "student": prefixed("module.", body(p)),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(1)}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(lr=0.1),
    },
}


@pytest.mark.parametrize("named", CLASSES)
def test_a_class_in_a_pickle_is_named_with_the_safe_way_out(
    named, plain, expected, tmp_path, monkeypatch
):
    path = tmp_path / "classes.pth"
    torch.save(CLASSES[named](plain), path)
    with pytest.raises(CheckpointError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert f"holds a {named.strip()} beside its tensors" in message
    code = re.search(r'python -c "(.*)"', message)[1]
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # the way out works
    backbone = resnet18(image_size=128).eval()
    load_weights(backbone, read_weights(tmp_path / "weights.pt"), "weights.pt")
    with torch.no_grad():
        assert torch.allclose(backbone(IMAGES), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html><html>log in</html>", "is a web page and no weights file"),
        (b"\n  <html lang='en'>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "git lfs pull"),
        (b"", "can't be read as weights"),
        (b"nonsense", "can't be read as weights"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_files_that_are_no_weights_are_called_what_they_are(content, says, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        read_weights(tmp_path / name)


def test_a_network_that_asks_for_a_version_takes_tensors_of_a_file_too():
    """torchvision's MNASNet refuses tensors that come without one."""
    first, second = (torchvision_model("mnasnet0_5", image_size=32) for _ in range(2))
    load_weights(second, dict(first.state_dict()), "the file")
    taken, given = second.state_dict(), first.state_dict()
    assert all(torch.equal(taken[name], given[name]) for name in given)


def test_weights_for_images_of_another_size_or_other_channels_say_so():
    """The network is the right one, so advice to name another leads nowhere."""

    class Patches(nn.Module):
        def __init__(self, channels, places):
            super().__init__()
            self.embed = nn.Conv2d(channels, 4, 2)
            self.pos_embed = nn.Parameter(torch.zeros(1, places, 4))

    file = Patches(3, 50).state_dict()
    with pytest.raises(
        CheckpointError, match=r"images of another size: set data\.options\.image_size"
    ):
        load_weights(Patches(3, 17), file, "vit.pth")
    with pytest.raises(
        CheckpointError, match=r"only the channels .*: type data\.options\.channels=3"
    ):
        load_weights(Patches(1, 50), file, "vit.pth")
    with pytest.raises(CheckpointError, match="name the backbone, and its options"):
        load_weights(Patches(1, 17), file, "vit.pth")


def test_weights_of_colours_do_not_fit_a_grey_network_and_that_is_said(plain):
    with pytest.raises(CheckpointError, match=r"type data\.options\.channels=3"):
        load_weights(resnet18(image_size=128, in_channels=1), plain.state_dict(), "x")
