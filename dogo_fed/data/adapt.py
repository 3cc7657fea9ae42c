"""Images of one data set in the size and channels that an encoder trained on another expects."""

# B = images, C = channels, H, W = pixels, N = images in the source

from __future__ import annotations

import torch
import torch.nn.functional as F

from dogo_fed.data.source import ImageSource
from dogo_fed.errors import DataError


class AdaptedImages:
    """The images of a source, resized and with grey repeated in every channel where that is needed.

    Resizing is bilinear with a filter against aliasing, in floating point, rounded to uint8. Images
    that fit already are passed on as they are. Pixel values are not changed in any other way: to
    normalise is the encoder's business.
    """

    def __init__(self, source: ImageSource, image_size: int, channels: int) -> None:
        self._source = source
        self._image_size = image_size
        self._channels = channels

    @property
    def labels(self) -> torch.Tensor:
        """Class of every image: int64, shape N."""
        return self._source.labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self._source)

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the images with these ids, in this order: uint8, B x C x H x W.

        Raises:
            DataError: the channels differ and the images are not grey.
        """
        images_BCHW = self._source.images(ids)
        found = images_BCHW.shape[1]
        if found != self._channels:
            if found != 1:
                raise DataError(
                    f"the encoder takes images of {self._channels} channels, but these have {found}; "
                    "only grey images can be adapted"
                )
            images_BCHW = images_BCHW.expand(-1, self._channels, -1, -1)
        size = (self._image_size, self._image_size)
        if tuple(images_BCHW.shape[2:]) == size:
            return images_BCHW
        resized_BCHW = F.interpolate(
            images_BCHW.float(), size=size, mode="bilinear", align_corners=False, antialias=True
        )
        return resized_BCHW.clamp(0, 255).round().to(torch.uint8)
