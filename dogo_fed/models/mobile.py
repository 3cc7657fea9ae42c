"""MobileNetV2 and ShuffleNetV2 of any width: torchvision's networks, for small images too.

Sources: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018; Ma et
al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design", ECCV 2018.
"""

# N = images, C, H, W = channels and pixels, F = feature dimension

from __future__ import annotations

from torch import nn
from torchvision.models import MobileNetV2, ShuffleNetV2
from torchvision.ops import Conv2dNormActivation

from dogo_fed.models.library import keep_resolution, take_channels
from dogo_fed.models.published_head import make_head

SHUFFLENET_WIDE_FROM = 244
"""From this width on (the paper's 2x) ShuffleNetV2 ends in 2048 channels instead of 1024."""


def mobilenet_v2(
    *,
    image_size: int,
    in_channels: int = 3,
    width: float = 1.0,
    last_channels: int | None = None,
    stem_stride: int = 1,
    imagenet_stem: bool = False,
    keep_classifier: bool = False,
) -> nn.Module:
    """Returns a MobileNetV2: N x C x H x W images to N x F pooled features.

    Args:
        image_size: side of the images in pixels; decides the first two strides.
        in_channels: C.
        width: the paper's width multiplier.
        last_channels: F; None is the paper's 1280, times the width where that is above 1.
        stem_stride: of the first convolution, for images below 100 pixels.
        imagenet_stem: keep ImageNet's strides for small images too, as the published code does.
        keep_classifier: end in 1000 linear outputs, as the published code does.

    Raises:
        ValueError: a width, a number of channels or the stride is too small.
    """
    if width <= 0 or (last_channels is not None and last_channels < 1):
        raise ValueError(
            f"width must be above 0 and last_channels at least 1, not {width} and {last_channels}"
        )
    network = MobileNetV2(width_mult=width)
    if last_channels is None:
        last_channels = network.last_channel
    else:  # torchvision has no option for it
        channels = network.features[-1][0].in_channels
        network.features[-1] = Conv2dNormActivation(
            channels, last_channels, kernel_size=1, activation_layer=nn.ReLU6
        )
    network.classifier = make_head(last_channels, keep_classifier)
    take_channels(network, in_channels)
    return keep_resolution(network, image_size, in_channels, stem_stride, imagenet_stem)


def shufflenet_v2(
    *,
    image_size: int,
    in_channels: int = 3,
    width: int = 116,
    last_channels: int | None = None,
    stem_stride: int = 1,
    imagenet_stem: bool = False,
    keep_classifier: bool = False,
) -> nn.Module:
    """Returns a ShuffleNetV2: N x C x H x W images to N x F pooled features.

    Args:
        image_size: side of the images in pixels; decides the first two strides.
        in_channels: C.
        width: channels of the first stage, even; doubles from stage to stage. The paper's 0.5x,
            1x, 1.5x and 2x are 48, 116, 176 and 244.
        last_channels: F; None is the paper's 1024, or 2048 from a width of 244 on.
        stem_stride: of the first convolution, for images below 100 pixels; these are not pooled.
        imagenet_stem: keep ImageNet's strides for small images too, as the published code does.
        keep_classifier: end in 1000 linear outputs, as the published code does.

    Raises:
        ValueError: the width is not even, or a number is too small.
    """
    if width < 2 or width % 2 or (last_channels is not None and last_channels < 1):
        raise ValueError(
            "width must be even and at least 2 and last_channels at least 1, not "
            f"{width} and {last_channels}"
        )
    if last_channels is None:
        last_channels = 2048 if width >= SHUFFLENET_WIDE_FROM else 1024
    network = ShuffleNetV2([4, 8, 4], [24, width, 2 * width, 4 * width, last_channels])
    network.fc = make_head(last_channels, keep_classifier)
    take_channels(network, in_channels)
    return keep_resolution(network, image_size, in_channels, stem_stride, imagenet_stem)
