"""The backbones that have a short name; any other is named by its import path.

A backbone builder takes `image_size` and `in_channels` as keywords, besides its own options, and
returns a module that maps N x C x H x W images to N x F features.
"""

from __future__ import annotations

BACKBONES = {
    "resnet10": "dogo_fed.models.resnet:resnet10",
    "resnet18": "dogo_fed.models.resnet:resnet18",
    "resnet34": "dogo_fed.models.resnet:resnet34",
    "resnet50": "dogo_fed.models.resnet:resnet50",
    "wide_resnet": "dogo_fed.models.wide_resnet:WideResNet",
    "small_cnn": "dogo_fed.models.small_cnn:SmallCNN",
}
