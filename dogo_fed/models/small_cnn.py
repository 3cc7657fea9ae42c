"""A convolutional network small enough to learn something in a CPU minute."""

# N = images, C, H, W = channels and pixels, F = feature dimension

from __future__ import annotations

import torch
from torch import nn


class SmallCNN(nn.Module):
    """Plain stride-2 convolutions with BN and ReLU: N x C x H x W images to N x F pooled features."""

    def __init__(self, *, image_size: int, width: int = 16, in_channels: int = 3) -> None:
        """Builds the network; F = 4 * width.

        Args:
            image_size: side of the images in pixels, at least 8.
            width: channels of the first layer.
            in_channels: C.

        Raises:
            ValueError: the images are smaller than 8 pixels or the width is below 1.
        """
        if image_size < 8 or width < 1:
            raise ValueError(
                f"small_cnn needs images of at least 8 pixels and a width of at least 1, not "
                f"{image_size} and {width}"
            )
        super().__init__()
        widths = [in_channels, width, 2 * width, 4 * width, 4 * width]
        strides = [2, 2, 1, 2]
        layers: list[nn.Module] = []
        for channels_in, channels_out, stride in zip(widths, widths[1:], strides, strict=False):
            layers += [
                nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(channels_out),
                nn.ReLU(inplace=True),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Returns the globally average-pooled features, N x F."""
        features_NF: torch.Tensor = self.layers(images_NCHW).mean(dim=(2, 3))
        return features_NF
