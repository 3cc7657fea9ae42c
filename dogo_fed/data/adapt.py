"""Images of one data set in the size and channels that an encoder or an augmentation expects."""

# B = images, C = channels, H, W = pixels

from __future__ import annotations

import torch
import torch.nn.functional as F

from dogo_fed.data.source import ImageSource, MappedImages
from dogo_fed.errors import DataError


def adapted(source: ImageSource, image_size: int, channels: int) -> ImageSource:
    """Returns the images of a source, resized and with grey repeated in every channel if need be.

    Images that fit already are passed on as they are. Pixel values are not changed in any other
    way: to normalise is the encoder's business. Reading images of other channels that are not grey
    raises DataError.
    """
    return MappedImages(source, lambda images_BCHW, ids_B: _fit(images_BCHW, image_size, channels))


def resized(images_BCHW: torch.Tensor, image_size: int) -> torch.Tensor:
    """Returns uint8 images of this side.

    Resizing is bilinear with a filter against aliasing, in floating point, rounded to uint8.
    """
    size = (image_size, image_size)
    if tuple(images_BCHW.shape[2:]) == size:
        return images_BCHW
    resized_BCHW = F.interpolate(
        images_BCHW.float(), size=size, mode="bilinear", align_corners=False, antialias=True
    )
    return resized_BCHW.clamp(0, 255).round().to(torch.uint8)


def _fit(images_BCHW: torch.Tensor, image_size: int, channels: int) -> torch.Tensor:
    """Returns images of this size with so many channels."""
    found = images_BCHW.shape[1]
    if found != channels:
        if found != 1:
            raise DataError(
                f"the encoder takes images of {channels} channels, but these have {found}; only grey "
                "images can be adapted"
            )
        images_BCHW = images_BCHW.expand(-1, channels, -1, -1)
    return resized(images_BCHW, image_size)
