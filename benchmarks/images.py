"""The images of the benchmarks, in memory or in a folder, and SimCLR's views of one image by torchvision."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from dogo_fed.data.augment import BLUR_FROM_PIXELS

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
GRAIN = 24
"""Noise of so many of 255, so that a JPEG file is about as large as a photo's."""


CHUNK = 64
"""Images that are made at a time: a folder may have more than memory holds."""


def images_uint8(number: int, image_size: int) -> torch.Tensor:
    """Returns images whose bytes are the same everywhere."""
    return torch.cat(list(chunks_uint8(number, image_size)))


def chunks_uint8(number: int, image_size: int) -> Iterator[torch.Tensor]:
    """Yields the same images, some at a time."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(number, 3, 8, 8, generator=generator)
    for part in coarse.split(CHUNK):
        yield (F.interpolate(part, size=image_size, mode="bilinear") * 255).to(torch.uint8)


def pictures(number: int, image_size: int) -> list[Any]:
    """Returns the same images for PIL."""
    from torchvision.transforms.functional import to_pil_image

    return [to_pil_image(image) for image in images_uint8(number, image_size)]


def write_folder(root: Path, number: int, side: int) -> list[Path]:
    """Writes JPEG files of the same images with some grain into one class folder; returns their paths."""
    from torchvision.transforms.functional import to_pil_image

    folder = root / "train" / "one"
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(1)
    paths = []
    images = itertools.chain.from_iterable(chunks_uint8(number, side))
    for index, image_CHW in enumerate(images):
        grain = torch.randint(GRAIN, image_CHW.shape, generator=generator)
        grained = (image_CHW.to(torch.int64) + grain).clamp(max=255).to(torch.uint8)
        paths.append(folder / f"{index:06d}.jpg")
        to_pil_image(grained).save(paths[-1], quality=90)
    return paths


def torchvision_view(image_size: int) -> Callable[[Any], torch.Tensor]:
    """Returns SimCLR's view of a picture: crop, flip, colours, grey; blur from 224 pixels."""
    from torchvision.transforms import v2

    steps = [
        v2.RandomResizedCrop(image_size, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
        v2.RandomGrayscale(p=0.2),
    ]
    if image_size >= BLUR_FROM_PIXELS:
        width = image_size // 20 * 2 + 1
        steps.append(v2.RandomApply([v2.GaussianBlur(width, (0.1, 2.0))], p=0.5))
    return v2.Compose(
        [*steps, v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
