"""Cheap images with classes, for tests: a class is a stripe pattern, each image has its colours."""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import numpy as np

from dogo_fed.data.map_style import UInt8Array, dataset_from_arrays
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError

NOISE_BITS = 5
"""Pixels get noise of this many bits, 0 to 31 of 255."""
FADE = 160
"""A stripe's brightest pixel is this much brighter than its darkest."""


def synthetic(
    size: int = 512, test_size: int = 128, image_size: int = 16, num_classes: int = 4, seed: int = 0
) -> DataSet:
    """Returns striped RGB images; class i is image i modulo num_classes.

    A class is a direction and a width of stripes. Where the stripes start, their colour and some
    noise differ from image to image.

    Args:
        size: number of training images.
        test_size: number of test images.
        image_size: side in pixels.
        num_classes: number of classes.
        seed: of everything random; the bytes are the same on every machine.

    Raises:
        ConfigError: a value is too small.
    """
    values = (size, test_size, image_size, num_classes)
    if size < 1 or test_size < 1 or image_size < 4 or num_classes < 2:
        raise ConfigError(
            "synthetic needs size and test_size of at least 1, image_size of at least 4 and "
            f"num_classes of at least 2, not {values}"
        )
    draw = np.random.PCG64(seed)
    train_N = np.arange(size) % num_classes
    test_N = np.arange(test_size) % num_classes
    train_NCHW = _striped(train_N, image_size, draw)
    test_NCHW = _striped(test_N, image_size, draw)
    return dataset_from_arrays("synthetic", train_NCHW, train_N, test_NCHW, test_N, num_classes)


def _striped(classes_N: np.ndarray, image_size: int, draw: np.random.PCG64) -> UInt8Array:
    """Returns one striped image (C x H x W) for every class given; integer arithmetic only."""
    number = len(classes_N)
    # Directions (1,0), (0,1), (1,1), (1,-1); after these four the stripes get wider.
    across_N = np.array([1, 0, 1, 1])[classes_N % 4][:, None, None]
    down_N = np.array([0, 1, 1, -1])[classes_N % 4][:, None, None]
    period_N = (4 + 2 * (classes_N // 4))[:, None, None]
    start_N = _below(draw, 1 << 16, (number, 1, 1))
    rows_H1, columns_1W = np.ogrid[:image_size, :image_size]
    place_NHW = (start_N + across_N * columns_1W + down_N * rows_H1) % period_N
    height_NHW = np.minimum(place_NHW, period_N - place_NHW) * 256 // (period_N // 2)
    strength_NC11 = 96 + _below(draw, FADE - 96 + 1, (number, 3, 1, 1))
    base_NC11 = _below(draw, 255 - FADE - (1 << NOISE_BITS), (number, 3, 1, 1))
    noise_NCHW = _below(draw, 1 << NOISE_BITS, (number, 3, image_size, image_size))
    images_NCHW = base_NC11 + strength_NC11 * height_NHW[:, None] // 256 + noise_NCHW
    pixels: UInt8Array = images_NCHW.astype(np.uint8)
    return pixels


def _below(draw: np.random.PCG64, bound: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns random integers from 0 to bound - 1 (int64), from the generator's raw output."""
    return (draw.random_raw(shape) % np.uint64(bound)).astype(np.int64)
