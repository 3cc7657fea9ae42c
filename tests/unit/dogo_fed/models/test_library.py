"""Models of timm and torchvision as backbones: features, no classifier, no dead weight, no downloads."""

from __future__ import annotations

import sys

import pytest
import torch
import torchvision
from torch import nn

from configs.compose import compose_run
from dogo_fed import components
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.build import build_peer
from dogo_fed.errors import ConfigError
from dogo_fed.models.catalog import BACKBONES
from dogo_fed.models.library import timm_model, torchvision_model
from dogo_fed.models.resnet import resnet18

TORCHVISION = {
    "alexnet": 256,
    "efficientnet_b0": 1280,
    "mnasnet0_5": 1280,
    "mobilenet_v3_small": 576,
    "regnet_y_400mf": 440,
    "resnet18": 512,
    "shufflenet_v2_x0_5": 1024,
    "squeezenet1_1": 512,
}
"""Small convolutional models, and their F."""
TIMM = {
    "resnet18d": 512,
    "mobilenetv3_small_050": 1024,
    "efficientnet_lite0": 1280,
    "convnext_atto": 320,
    "regnetx_002": 368,
    "ghostnet_050": 1280,
    "mobilevit_xxs": 320,
}
SIDES = {"torchvision:alexnet": 7, "torchvision:squeezenet1_1": 7}
"""Last maps of 32 x 32 images, where they are not 4 x 4: these pool without a border."""
FIXED = {"vit_tiny_patch16_224": 192, "deit_tiny_distilled_patch16_224": 192, "mixer_s32_224": 512}
"""Models of timm for one image size."""


def build(name, image_size=32, in_channels=3, **options):
    return components.build(
        "backbone", name, BACKBONES, options, image_size=image_size, in_channels=in_channels
    )


def named(collection, names):
    return [f"{collection}:{name}" for name in names]


DIMS = {f"torchvision:{name}": dim for name, dim in TORCHVISION.items()}
DIMS |= {f"timm:{name}": dim for name, dim in TIMM.items()}


def images(number, size, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, channels, size, size, generator=generator)


def without_gradient(backbone, image_size, feature_dim):
    """Returns the parameters that have no part in the features.

    Some libraries start residual branches at 0, which would hide what is before it.
    """
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    weight_NF = torch.randn(4, feature_dim, generator=torch.Generator().manual_seed(1))
    (backbone(images(4, image_size)) * weight_NF).sum().backward()
    return [
        name
        for name, parameter in backbone.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]


def map_sides(backbone, image_size, channels=3):
    """Returns the sides of all maps that convolutions give, without those of 1 x 1 maps (gates)."""
    sides = []

    def watch(module, inputs, output):
        if inputs[0].shape[-1] > 1:
            sides.append(output.shape[-1])

    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(watch)
    backbone.eval()
    with torch.no_grad():
        backbone(images(1, image_size, channels))
    return sides


@pytest.mark.parametrize("name", DIMS)
def test_features_without_a_classifier(name):
    backbone = build(name)
    assert without_gradient(backbone, 32, DIMS[name]) == []
    outputs = [one.out_features for one in backbone.modules() if isinstance(one, nn.Linear)]
    assert 1000 not in outputs
    assert min(map_sides(backbone, 32)) == SIDES.get(name, 4)


@pytest.mark.parametrize("name", named("timm", FIXED))
def test_models_for_one_image_size_are_built_for_it(name):
    backbone = build(name, image_size=64)
    assert without_gradient(backbone, 64, FIXED[name.removeprefix("timm:")]) == []


def test_vision_transformers_can_have_smaller_patches():
    backbone = build("timm:vit_tiny_patch16_224", patch_size=8, depth=2)
    assert backbone(images(2, 32)).shape == (2, 192)
    assert backbone.patch_embed.num_patches == 16


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_a_library_resnet_below_100_pixels_is_our_resnet(name):
    """The same network as dogo_fed.models.resnet, down to the numbers."""
    theirs, ours = build(name), resnet18(image_size=32)
    values = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(values))
    ours.eval()
    theirs.eval()
    torch.testing.assert_close(ours(images(2, 32)), theirs(images(2, 32)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_large_images_and_those_who_ask_get_imagenets_stem(name):
    for backbone in (build(name, image_size=100), build(name, imagenet_stem=True)):
        assert backbone.conv1.kernel_size == (7, 7)
        assert map_sides(backbone, 32)[-1] == 1
        assert sum(one.numel() for one in backbone.parameters()) == 11_689_512 - 513 * 1000


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "torchvision:alexnet", "timm:convnext_atto"]
)
def test_stem_stride_halves_once(name):
    assert map_sides(build(name, stem_stride=2), 32)[-1] == map_sides(build(name), 32)[-1] // 2
    with pytest.raises(ConfigError, match="stem_stride must be at least 1"):
        build(name, stem_stride=0)


@pytest.mark.parametrize(
    "name",
    ["torchvision:mnasnet0_5", "torchvision:squeezenet1_1", "timm:ghostnet_050"],
)
def test_images_may_have_one_channel(name):
    assert build(name, in_channels=1)(images(2, 32, channels=1)).shape == (2, DIMS[name])


def test_a_model_is_left_in_train_mode_with_fresh_statistics():
    backbone = build("torchvision:resnet18")
    assert all(module.training for module in backbone.modules())
    assert backbone.bn1.num_batches_tracked == 0
    assert not backbone.bn1._forward_pre_hooks and not backbone.conv1._forward_pre_hooks


# ---- names and options ----


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("torchvision:efficientnet_b", "'efficientnet_b[0-7]'"),
        ("torchvision:resnet19", "'resnet18'"),
        ("timm:resnet19", "'resnet18'"),
        ("timm:efficientnetb0", "'efficientnet_b0'"),
    ],
)
def test_a_wrong_name_lists_close_matches(name, close):
    with pytest.raises(ConfigError, match=f"unknown backbone '{name}'; did you mean.*{close}"):
        build(name)


@pytest.mark.parametrize("name", ["torchvision:", "timm:", "timm:hf-hub:someone/model"])
def test_a_name_like_no_other_says_where_they_are_listed(name):
    with pytest.raises(ConfigError, match=r"list_models\(.*lists all there are"):
        build(name)


@pytest.mark.parametrize(
    "name", ["fasterrcnn_resnet50_fpn", "deeplabv3_resnet50", "raft_small", "r3d_18"]
)
def test_torchvisions_other_tasks_are_no_backbones(name):
    assert name in torchvision.models.list_models()
    with pytest.raises(ConfigError, match="unknown backbone"):
        build(f"torchvision:{name}")


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
@pytest.mark.parametrize("option", ["pretrained", "weights", "num_classes", "checkpoint_path"])
def test_weights_and_classifiers_are_refused(name, option):
    with pytest.raises(ConfigError, match=f"can't have '{option}'"):
        build(name, **{option: True})


def test_nothing_is_downloaded(monkeypatch):
    def no_network(*args, **options):
        raise AssertionError("a download was tried")

    monkeypatch.setattr("socket.socket.connect", no_network)
    for name in ("torchvision:resnet18", "timm:resnet18"):
        build(name)


def test_without_timm_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'dogo-fed\[timm\]'"):
        timm_model("resnet18", image_size=32)


def test_options_go_to_the_library():
    assert build("torchvision:mobilenet_v2", width_mult=0.25).last_channel == 1280
    assert build("timm:resnet18", block_args={}).num_features == 512


def settings(*overrides):
    return compose_run(["peers=solo", *overrides]).peers["resnet"]


def build_from(peer):
    data = synthetic(size=32, test_size=8)
    return build_peer("resnet", peer, dataset=data, run_seed=0, device=torch.device("cpu"))


@pytest.mark.parametrize("collection", ["timm", "torchvision"])
def test_a_peer_can_have_one(collection):
    peer = settings(
        f"backbone@peers.resnet.backbone={collection}",
        f"peers.resnet.backbone.name={collection}:resnet18",
        "+peers.resnet.backbone.options.stem_stride=2",
    )
    assert str(peer.backbone) == f"{collection}:resnet18(stem_stride=2)"
    first, second = (build_from(peer).objective.state_dict() for _ in range(2))
    assert all(torch.equal(one, second[name]) for name, one in first.items())


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("peers.resnet.backbone.name=torchvision:resnet19", "did you mean 'resnet18'"),
        ("+peers.resnet.backbone.options.widht=3", "widht"),
        ("+peers.resnet.backbone.options.image_size=3", "image_size"),
        ("+peers.resnet.backbone.options.weights=DEFAULT", "untrained"),
        ("peers.resnet.backbone.name=torchvision:inception_v3", "can't take 2 images"),
        ("peers.resnet.backbone.name=torchvision:vit_b_16x", "vit_b_16"),
    ],
)
def test_what_is_wrong_names_the_peer(change, says):
    with pytest.raises(ConfigError) as caught:
        build_from(settings("backbone@peers.resnet.backbone=torchvision", change))
    assert str(caught.value).startswith("peer 'resnet': ")
    assert says in str(caught.value)


# ---- whole families, some minutes ----


SLOW_TORCHVISION = {
    "resnet50": 2048,
    "resnext50_32x4d": 2048,
    "wide_resnet50_2": 2048,
    "convnext_tiny": 768,
    "efficientnet_v2_s": 1280,
    "mobilenet_v3_large": 960,
    "swin_t": 768,
    "swin_v2_t": 768,
    "densenet121": 1024,
    "googlenet": 1024,
    "mobilenet_v2": 1280,
    "regnet_x_400mf": 400,
    "vgg11": 512,
    "vgg16_bn": 512,
    "vit_b_16": 768,
}
SLOW_TIMM = {
    "resnet50": 2048,
    "seresnet50": 2048,
    "densenet121": 1024,
    "repvgg_a0": 1280,
    "tf_efficientnetv2_b0": 1280,
    "poolformer_s12": 512,
    "swin_tiny_patch4_window7_224": 768,
    "xcit_nano_12_p16_224": 128,
    "hrnet_w18_small": 2048,
    "dla34": 512,
    "vgg11": 4096,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "feature_dim"),
    [(f"torchvision:{name}", dim) for name, dim in SLOW_TORCHVISION.items()]
    + [(f"timm:{name}", dim) for name, dim in SLOW_TIMM.items()],
)
def test_larger_models_too(name, feature_dim):
    assert without_gradient(build(name, image_size=64), 64, feature_dim) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "image_size", "feature_dim"),
    [("inception_v3", 96, 2048), ("maxvit_t", 224, 512)],
)
def test_models_that_need_larger_images(model, image_size, feature_dim):
    backbone = torchvision_model(model, image_size=image_size)
    assert without_gradient(backbone, image_size, feature_dim) == []
