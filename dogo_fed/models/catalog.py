"""The backbones that have a short name; any other is named by its import path.

A backbone builder takes `image_size` and `in_channels` as keywords, besides its own options, and
returns a module that maps N x C x H x W images to N x F features. A name that ends in a colon is a
library: what follows the colon is the name of one of its models.
"""

from __future__ import annotations

BACKBONES = {
    "resnet10": "dogo_fed.models.resnet:resnet10",
    "resnet18": "dogo_fed.models.resnet:resnet18",
    "resnet34": "dogo_fed.models.resnet:resnet34",
    "resnet50": "dogo_fed.models.resnet:resnet50",
    "wide_resnet": "dogo_fed.models.wide_resnet:WideResNet",
    "mobilenet_v2": "dogo_fed.models.mobile:mobilenet_v2",
    "shufflenet_v2": "dogo_fed.models.mobile:shufflenet_v2",
    "small_cnn": "dogo_fed.models.small_cnn:SmallCNN",
    "timm:": "dogo_fed.models.library:timm_model",
    "torchvision:": "dogo_fed.models.library:torchvision_model",
}
