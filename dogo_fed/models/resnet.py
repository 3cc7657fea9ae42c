"""ResNet-10/18/34/50 with pooled features, any width, for small and for ImageNet-sized images.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1 and section
3.4. The residual blocks are torchvision's. ResNet-10, one block a stage, is not in the paper.
"""

# N = images, C, H, W = channels and pixels, F = feature dimension

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from dogo_fed.models.published_head import make_head
from dogo_fed.models.stem import is_small


class ResNet(nn.Module):
    """A residual network without a classifier: N x C x H x W images to N x F pooled features."""

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: tuple[int, int, int, int],
        *,
        image_size: int,
        in_channels: int = 3,
        width: int = 64,
        stem_stride: int = 1,
        keep_classifier: bool = False,
    ) -> None:
        """Builds the network.

        Args:
            block: torchvision's BasicBlock or Bottleneck.
            layers: blocks in each of the four stages.
            image_size: side of the images in pixels; decides the stem.
            in_channels: C.
            width: channels of the first stage (64 in the paper); doubles from stage to stage.
            stem_stride: of the small-image stem; 2 makes every stage four times cheaper.
            keep_classifier: end in 1000 linear outputs, as the published code does.

        Raises:
            ValueError: width < 1 or stem_stride < 1.
        """
        if width < 1 or stem_stride < 1:
            raise ValueError(
                f"width and stem_stride must be at least 1, not {width} and {stem_stride}"
            )
        super().__init__()
        self.stem = _stem(image_size, in_channels, width, stem_stride)
        stages: list[nn.Module] = []
        channels_in = width
        for index, num_blocks in enumerate(layers):
            planes = width * 2**index
            stages.append(_stage(block, channels_in, planes, num_blocks, 1 if index == 0 else 2))
            channels_in = planes * block.expansion
        self.stages = nn.Sequential(*stages)
        self.head = make_head(channels_in, keep_classifier)

    def forward(self, images_NCHW: torch.Tensor) -> torch.Tensor:
        """Returns the globally average-pooled features, N x F."""
        maps_NCHW = self.stages(self.stem(images_NCHW))
        features_NF: torch.Tensor = self.head(maps_NCHW.mean(dim=(2, 3)))
        return features_NF


def _stem(image_size: int, in_channels: int, width: int, stride: int) -> nn.Sequential:
    if is_small(image_size):  # 3 x 3 and no pooling, as in SimCLR and DoGo
        convolution = nn.Conv2d(in_channels, width, 3, stride, padding=1, bias=False)
        return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    convolution = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
    pool = nn.MaxPool2d(3, stride=2, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True), pool)


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    channels_in: int,
    planes: int,
    num_blocks: int,
    stride: int,
) -> nn.Sequential:
    channels_out = planes * block.expansion
    shortcut = None
    if stride != 1 or channels_in != channels_out:
        shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False),
            nn.BatchNorm2d(channels_out),
        )
    blocks = [block(channels_in, planes, stride, shortcut)]
    blocks += [block(channels_out, planes) for _ in range(num_blocks - 1)]
    return nn.Sequential(*blocks)


resnet10 = partial(ResNet, BasicBlock, (1, 1, 1, 1))
"""F = 8 * width."""
resnet18 = partial(ResNet, BasicBlock, (2, 2, 2, 2))
"""F = 8 * width."""
resnet34 = partial(ResNet, BasicBlock, (3, 4, 6, 3))
"""F = 8 * width."""
resnet50 = partial(ResNet, Bottleneck, (3, 4, 6, 3))
"""F = 32 * width."""
