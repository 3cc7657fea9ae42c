"""Backbones: the published architectures, pooled features, and no dead weight."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from configs.compose import compose_run
from dogo_fed import components
from dogo_fed.models.catalog import BACKBONES
from dogo_fed.models.mobile import mobilenet_v2, shufflenet_v2
from dogo_fed.models.resnet import resnet10, resnet18, resnet34, resnet50
from dogo_fed.models.small_cnn import SmallCNN
from dogo_fed.models.wide_resnet import WideResNet

SMALL = {
    "resnet10": lambda **options: resnet10(width=4, **options),
    "resnet18": lambda **options: resnet18(width=4, **options),
    "resnet34": lambda **options: resnet34(width=4, **options),
    "resnet50": lambda **options: resnet50(width=4, **options),
    "wide_resnet": lambda **options: WideResNet(depth=16, width=2, **options),
    "mobilenet_v2": lambda **options: mobilenet_v2(width=0.25, last_channels=24, **options),
    "shufflenet_v2": lambda **options: shufflenet_v2(width=8, last_channels=24, **options),
    "small_cnn": lambda **options: SmallCNN(width=4, **options),
}
FEATURE_DIMS = {
    "resnet10": 32, "resnet18": 32, "resnet34": 32, "resnet50": 128, "wide_resnet": 128, "mobilenet_v2": 24,
    "shufflenet_v2": 24, "small_cnn": 16,
}  # fmt: skip
RESNETS = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}
MOBILE = ["mobilenet_v2", "shufflenet_v2"]
PUBLISHED_MOBILE = [
    (mobilenet_v2, torchvision.models.mobilenet_v2),
    (
        lambda **options: mobilenet_v2(width=0.35, **options),
        lambda: torchvision.models.mobilenet_v2(width_mult=0.35),
    ),
    (
        lambda **options: mobilenet_v2(width=1.4, **options),
        lambda: torchvision.models.mobilenet_v2(width_mult=1.4),
    ),
    (lambda **options: shufflenet_v2(width=48, **options), torchvision.models.shufflenet_v2_x0_5),
    (lambda **options: shufflenet_v2(width=116, **options), torchvision.models.shufflenet_v2_x1_0),
    (lambda **options: shufflenet_v2(width=176, **options), torchvision.models.shufflenet_v2_x1_5),
    (lambda **options: shufflenet_v2(width=244, **options), torchvision.models.shufflenet_v2_x2_0),
]
"""Ours beside torchvision's."""


def images(number: int, size: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(number, channels, size, size, generator=generator)


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def feature_dim(backbone: nn.Module) -> int:
    device = next(backbone.parameters()).device
    return backbone(torch.empty(2, 3, 32, 32, device=device)).shape[1]


def test_every_short_name_is_covered_here():
    """Libraries (a name with a colon) are covered by test_library.py."""
    assert set(SMALL) == {name for name in BACKBONES if not name.endswith(":")}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_pooled(name, channels):
    backbone = SMALL[name](image_size=32, in_channels=channels)
    for size in (16, 32):
        assert backbone(images(2, size, channels)).shape == (2, FEATURE_DIMS[name])


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name):
    """The published wide ResNet registered a block it never used."""
    backbone = SMALL[name](image_size=32).train()
    weight_NF = torch.randn(4, FEATURE_DIMS[name], generator=torch.Generator().manual_seed(1))
    (backbone(images(4, 32)) * weight_NF).sum().backward()
    without = [
        parameter_name
        for parameter_name, parameter in backbone.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().max() > 0
    ]
    assert without == []


@pytest.mark.parametrize("name", SMALL)
def test_a_state_loads_into_a_fresh_model(name):
    first, second = SMALL[name](image_size=32), SMALL[name](image_size=32)
    first(images(4, 32))  # moves the running statistics
    first.eval()
    second.eval()
    assert not torch.equal(first(images(2, 32)), second(images(2, 32)))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images(2, 32)), second(images(2, 32)))


@pytest.mark.parametrize("name", RESNETS)
def test_parameters_are_torchvisions_without_the_classifier(name):
    with torch.device("meta"):
        ours = RESNETS[name](image_size=224)
        theirs = getattr(torchvision.models, name)()
    expected = num_parameters(theirs) - num_parameters(theirs.fc)
    assert num_parameters(ours) == expected
    assert feature_dim(ours) == theirs.fc.in_features


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_features_are_torchvisions_before_the_classifier(name):
    theirs = getattr(torchvision.models, name)()
    theirs.fc = nn.Identity()
    ours = RESNETS[name](image_size=224)
    values = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(values))
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(images(1, 64)), theirs(images(1, 64)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", RESNETS)
@pytest.mark.parametrize(("image_size", "shrinks_to"), [(99, 99), (100, 25)])
def test_the_stem_depends_on_the_image_size(name, image_size, shrinks_to):
    with torch.device("meta"):
        backbone = RESNETS[name](image_size=image_size)
        stem_NCHW = backbone.stem(torch.empty(1, 3, image_size, image_size))
    assert stem_NCHW.shape == (1, 64, shrinks_to, shrinks_to)
    has_pool = any(isinstance(module, nn.MaxPool2d) for module in backbone.modules())
    assert has_pool == (image_size >= 100)
    assert backbone.stem[0].kernel_size == ((7, 7) if image_size >= 100 else (3, 3))


def test_the_names_are_different_networks():
    """The published code gave ResNet-18 for resnet34 at 100 pixels and above."""
    with torch.device("meta"):
        sizes = [
            num_parameters(build(image_size=image_size))
            for build in RESNETS.values()
            for image_size in (32, 224)
        ]
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize("build", RESNETS.values())
def test_width_is_a_factor_of_every_stage(build):
    with torch.device("meta"):
        thin, wide = build(image_size=32, width=8), build(image_size=32, width=16)
    assert feature_dim(wide) == 2 * feature_dim(thin)
    assert wide.stem[0].out_channels == 2 * thin.stem[0].out_channels == 16


@pytest.mark.parametrize("depth", [10, 16, 22, 28])
def test_a_wide_resnet_is_as_deep_as_its_name(depth):
    """6 n + 4 counts the first convolution and the three shortcuts (Zagoruyko and Komodakis)."""
    with torch.device("meta"):
        backbone = WideResNet(image_size=32, depth=depth, width=2)
    assert sum(isinstance(module, nn.Conv2d) for module in backbone.modules()) == depth


@pytest.mark.parametrize(("depth", "width", "millions"), [(16, 8, 11.0), (28, 10, 36.5)])
def test_wide_resnets_have_the_published_numbers_of_parameters(depth, width, millions):
    """Table 4 of the paper, for CIFAR-10 with a classifier."""
    with torch.device("meta"):
        backbone = WideResNet(image_size=32, depth=depth, width=width)
    with_classifier = num_parameters(backbone) + (feature_dim(backbone) + 1) * 10
    assert round(with_classifier / 1e6, 1) == millions


@pytest.mark.parametrize("depth", [4, 9, 11, 18, 27, 0, -2])
def test_other_depths_are_refused(depth):
    with pytest.raises(ValueError, match=r"6 n \+ 4"):
        WideResNet(image_size=32, depth=depth)


@pytest.mark.parametrize(
    "build",
    [
        lambda: resnet18(image_size=32, width=0),
        lambda: WideResNet(image_size=32, width=0),
        lambda: SmallCNN(image_size=32, width=0),
        lambda: SmallCNN(image_size=7),
        lambda: mobilenet_v2(image_size=32, width=0.0),
        lambda: mobilenet_v2(image_size=32, last_channels=0),
        lambda: mobilenet_v2(image_size=32, stem_stride=0),
        lambda: shufflenet_v2(image_size=32, width=15),
        lambda: shufflenet_v2(image_size=32, last_channels=0),
        lambda: shufflenet_v2(image_size=32, stem_stride=0),
    ],
)
def test_impossible_sizes_are_refused(build):
    with pytest.raises(ValueError, match="at least"):
        build()


@pytest.mark.parametrize(("build", "published"), PUBLISHED_MOBILE)
def test_mobile_networks_are_the_published_ones(build, published):
    """With ImageNet's strides and torchvision's weights, the features are torchvision's."""
    theirs, ours = published(), build(image_size=224)
    name = "fc" if hasattr(theirs, "fc") else "classifier"
    setattr(theirs, name, nn.Identity())
    ours.load_state_dict(theirs.state_dict())
    ours.eval()
    theirs.eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(images(1, 64)), theirs(images(1, 64)))


def map_side(backbone: nn.Module, image_size: int) -> int:
    """Returns the side of the last map before the pooling."""
    sides = []
    last = backbone.features if hasattr(backbone, "features") else backbone.conv5
    hook = last.register_forward_hook(lambda *args: sides.append(args[2].shape[-1]))
    with torch.no_grad():
        backbone.eval()(images(1, image_size))
    hook.remove()
    return sides[0]


@pytest.mark.parametrize("name", MOBILE)
def test_small_images_keep_their_resolution(name):
    """The published code left 1 x 1 of 32 x 32."""
    build = SMALL[name]
    assert map_side(build(image_size=32), 32) == 4
    assert map_side(build(image_size=64), 64) == 8
    assert map_side(build(image_size=224), 224) == 7
    assert map_side(build(image_size=32, stem_stride=2), 32) == 2
    assert map_side(build(image_size=32, imagenet_stem=True), 32) == 1
    at_the_border = [map_side(build(image_size=size), size) for size in (99, 100)]
    assert at_the_border == [13, 4]


@pytest.mark.parametrize("name", MOBILE)
def test_the_stem_has_no_part_in_the_number_of_parameters(name):
    sizes = {
        num_parameters(SMALL[name](image_size=32, **options))
        for options in ({}, {"stem_stride": 2}, {"imagenet_stem": True})
    }
    assert len(sizes) == 1


@pytest.mark.parametrize("name", sorted(set(SMALL) - {"small_cnn"}))
def test_the_published_classifier_can_be_kept(name):
    """Defect B8: the features of the published code are 1000 outputs of a linear layer."""
    kept = SMALL[name](image_size=32, keep_classifier=True)
    without = SMALL[name](image_size=32)
    assert kept(images(2, 32)).shape == (2, 1000)
    assert num_parameters(kept) == num_parameters(without) + (FEATURE_DIMS[name] + 1) * 1000
    kept.load_state_dict(without.state_dict(), strict=False)
    pooled_NF = []
    head = getattr(kept, {"mobilenet_v2": "classifier", "shufflenet_v2": "fc"}.get(name, "head"))
    head.register_forward_pre_hook(lambda module, inputs: pooled_NF.append(inputs[0]))
    kept.eval()
    without.eval()
    kept(images(2, 32))
    assert torch.equal(pooled_NF[0], without(images(2, 32)))


@pytest.mark.parametrize("depth", [10, 16, 28])
@pytest.mark.parametrize("width", [2, 4, 8])
def test_wide_resnets_of_the_publication_have_a_configuration(depth, width):
    peer = compose_run(
        [
            "peers=solo",
            f"backbone@peers.resnet.backbone=wrn{depth}",
            f"peers.resnet.backbone.options.width={width}",
        ]
    ).peers["resnet"]
    with torch.device("meta"):
        backbone = components.build(
            "backbone", peer.backbone.name, BACKBONES, peer.backbone.options, image_size=32
        )
    assert sum(isinstance(module, nn.Conv2d) for module in backbone.modules()) == depth
    assert feature_dim(backbone) == 64 * width
