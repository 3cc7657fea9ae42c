"""Wide residual networks with pooled features, for small images.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, table 1: depth 6 n + 4, three
groups of n pre-activation blocks with 16 k, 32 k and 64 k channels.
"""

# N = images, C, H, W = channels and pixels, F = feature dimension

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from dogo_fed.models.published_head import make_head


class _PreActivationBlock(nn.Module):
    """BN - ReLU - conv - BN - ReLU - conv, added to the input (He et al., ECCV 2016, figure 1b)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.shortcut: nn.Conv2d | None = None
        if channels_in != channels_out or stride != 1:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)

    def forward(self, x_NCHW: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.bn1(x_NCHW))
        residual = x_NCHW if self.shortcut is None else self.shortcut(activated)
        output_NCHW: torch.Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return residual + output_NCHW


class WideResNet(nn.Module):
    """WRN-depth-width without a classifier: N x C x H x W images to N x F pooled features."""

    def __init__(
        self,
        *,
        image_size: int,
        depth: int = 16,
        width: int = 2,
        in_channels: int = 3,
        stem_stride: int = 1,
        keep_classifier: bool = False,
    ) -> None:
        """Builds WRN-depth-width; F = 64 * width.

        Args:
            image_size: side of the images; accepted for the common signature, the stem is 3 x 3.
            depth: 6 n + 4, for example 10, 16, 28.
            width: widening factor k, at least 1.
            in_channels: C.
            stem_stride: 1 in the paper; 2 makes every group four times cheaper.
            keep_classifier: end in 1000 linear outputs, as the published code does.

        Raises:
            ValueError: the depth is not 6 n + 4, or the width or the stride is below 1.
        """
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(
                f"depth of a wide ResNet must be 6 n + 4 (10, 16, 22, 28), not {depth}"
            )
        if width < 1 or stem_stride < 1:
            raise ValueError(
                f"width and stem_stride must be at least 1, not {width} and {stem_stride}"
            )
        del image_size
        super().__init__()
        blocks_per_group = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, stem_stride, padding=1, bias=False)
        blocks: list[nn.Module] = []
        channels_in = 16
        for group in range(3):
            channels_out = 16 * width * 2**group
            for index in range(blocks_per_group):
                stride = 2 if group > 0 and index == 0 else 1
                blocks.append(_PreActivationBlock(channels_in, channels_out, stride))
                channels_in = channels_out
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels_in)
        self.head = make_head(channels_in, keep_classifier)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Returns the globally average-pooled features, N x F."""
        maps_NCHW = F.relu(self.bn(self.blocks(self.conv1(images_NCHW))))
        features_NF: torch.Tensor = self.head(maps_NCHW.mean(dim=(2, 3)))
        return features_NF
