"""ShuffleNetV2 with pooled features, any width, for small and for ImageNet-sized images.

Source: Ma et al., "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design",
ECCV 2018, table 5. The units are torchvision's.
"""

# N = images, C, H, W = channels and pixels, F = feature dimension

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.shufflenetv2 import InvertedResidual

from dogo_fed.models.published_head import make_head
from dogo_fed.models.stem import first_strides

STEM_CHANNELS = 24
UNITS = (4, 8, 4)
"""Units in each of the three stages; the first of each halves the map."""
LAST_CHANNELS = 1024
WIDE_FROM = 244
"""From this width on (the paper's 2x) there are twice LAST_CHANNELS."""


class ShuffleNetV2(nn.Module):
    """ShuffleNetV2 without a classifier: N x C x H x W images to N x F pooled features."""

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int = 3,
        width: int = 116,
        last_channels: int | None = None,
        stem_stride: int = 1,
        imagenet_stem: bool = False,
        keep_classifier: bool = False,
    ) -> None:
        """Builds the network.

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
        super().__init__()
        stem, pool = first_strides(image_size, stem_stride, imagenet_stem)
        layers: list[nn.Module] = [_convolution(in_channels, STEM_CHANNELS, 3, stem)]
        if pool > 1:
            layers.append(nn.MaxPool2d(3, pool, padding=1))
        channels_in = STEM_CHANNELS
        for stage, num_units in enumerate(UNITS):
            channels_out = width * 2**stage
            layers.append(InvertedResidual(channels_in, channels_out, 2))
            layers += [
                InvertedResidual(channels_out, channels_out, 1) for _ in range(num_units - 1)
            ]
            channels_in = channels_out
        if last_channels is None:
            last_channels = LAST_CHANNELS * (2 if width >= WIDE_FROM else 1)
        layers.append(_convolution(channels_in, last_channels, 1, 1))
        self.layers = nn.Sequential(*layers)
        self.head, self.feature_dim = make_head(last_channels, keep_classifier)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Returns the globally average-pooled features, N x F."""
        features_NF: torch.Tensor = self.head(self.layers(images_NCHW).mean(dim=(2, 3)))
        return features_NF


def _convolution(channels_in: int, channels_out: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )
