"""From which image size on a backbone has its ImageNet stem."""

from __future__ import annotations

SMALL_IMAGE_BELOW = 100
"""Below this many pixels a backbone does not halve its input twice at the start (as in DoGo)."""


def is_small(image_size: int, imagenet_stem: bool = False) -> bool:
    """Tells whether images of this size get the small-image stem.

    Args:
        image_size: side of the images in pixels.
        imagenet_stem: keep ImageNet's stem whatever the size, as the published code does for
            MobileNet and ShuffleNet.
    """
    return image_size < SMALL_IMAGE_BELOW and not imagenet_stem


def first_strides(image_size: int, stem_stride: int, imagenet_stem: bool) -> tuple[int, int]:
    """Returns the strides of the two places where a network for ImageNet halves its input first.

    A network for 224 pixels ends with a 7 x 7 map, 1/32 of the input. On 32 pixels that would be a
    single pixel, computed mostly from padding. Below 100 pixels the first two halvings are left
    out, so the map is 1/8 of the input, as in a ResNet for CIFAR.

    Args:
        image_size: side of the images in pixels.
        stem_stride: stride of the first convolution for small images.
        imagenet_stem: see `is_small`.

    Raises:
        ValueError: stem_stride < 1.
    """
    if stem_stride < 1:
        raise ValueError(f"stem_stride must be at least 1, not {stem_stride}")
    return (stem_stride, 1) if is_small(image_size, imagenet_stem) else (2, 2)
