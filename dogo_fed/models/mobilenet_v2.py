"""MobileNetV2 with pooled features, any width, for small and for ImageNet-sized images.

Source: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2.
The inverted residual blocks are torchvision's.
"""

# N = images, C, H, W = channels and pixels, F = feature dimension

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.mobilenetv2 import InvertedResidual

from dogo_fed.models.published_head import make_head
from dogo_fed.models.stem import first_strides

STEM_CHANNELS = 32
LAST_CHANNELS = 1280
STAGES = (
    # expansion t, channels c, blocks n, stride s
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
SECOND_HALVING = 1
"""Place in STAGES of the stage that halves the input for the second time, after the stem."""
CHANNEL_MULTIPLE = 8


class MobileNetV2(nn.Module):
    """MobileNetV2 without a classifier: N x C x H x W images to N x F pooled features."""

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int = 3,
        width: float = 1.0,
        last_channels: int | None = None,
        stem_stride: int = 1,
        imagenet_stem: bool = False,
        keep_classifier: bool = False,
    ) -> None:
        """Builds the network.

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
                "width must be above 0 and last_channels at least 1, not "
                f"{width} and {last_channels}"
            )
        super().__init__()
        stem, second = first_strides(image_size, stem_stride, imagenet_stem)
        channels_in = scaled(STEM_CHANNELS, width)
        layers: list[nn.Module] = [_convolution(in_channels, channels_in, 3, stem)]
        for place, (expansion, channels, num_blocks, stage_stride) in enumerate(STAGES):
            channels_out = scaled(channels, width)
            stride = second if place == SECOND_HALVING else stage_stride
            for index in range(num_blocks):
                layers.append(
                    InvertedResidual(
                        channels_in, channels_out, stride if index == 0 else 1, expansion
                    )
                )
                channels_in = channels_out
        if last_channels is None:
            last_channels = scaled(LAST_CHANNELS, max(1.0, width))
        layers.append(_convolution(channels_in, last_channels, 1, 1))
        self.layers = nn.Sequential(*layers)
        self.head, self.feature_dim = make_head(last_channels, keep_classifier)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Returns the globally average-pooled features, N x F."""
        features_NF: torch.Tensor = self.head(self.layers(images_NCHW).mean(dim=(2, 3)))
        return features_NF


def scaled(channels: int, width: float) -> int:
    """Returns channels * width as a multiple of 8: the nearest, but not below 90 % of the product."""
    wanted = channels * width
    rounded = max(CHANNEL_MULTIPLE, int(wanted / CHANNEL_MULTIPLE + 0.5) * CHANNEL_MULTIPLE)
    return rounded if rounded >= 0.9 * wanted else rounded + CHANNEL_MULTIPLE


def _convolution(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU6(inplace=True),
    )
