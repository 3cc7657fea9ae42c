"""Digits-M, the data set that needs no download: handwritten digits over pieces of photographs.

It is built from what scikit-learn ships: 1,797 digits of 8 x 8 pixels and two colour photographs of
427 x 640. An image is the absolute difference of a photograph's patch and a digit, as in MNIST-M
(Ganin et al. 2016), so colour and brightness say nothing about the class. Size and place of the
digit vary. Train and test share neither digits nor parts of the photographs. All arithmetic is on
integers, and the random numbers are the raw output of PCG64, which numpy promises not to change. So
every machine gets the same bytes as long as its JPEG decoder does; the fingerprint tells.
"""

# D = digits, N = images, C = channels, H, W = pixels

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits, load_sample_images

from dogo_fed.data.kin import Kin
from dogo_fed.data.map_style import UInt8Array, dataset_from_arrays
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError

IntArray: TypeAlias = npt.NDArray[np.int64]

IMAGE_SIZE = 32
DIGIT_SIZE = 8
SMALLEST_SIDE = 28
"""A digit is drawn SMALLEST_SIDE to IMAGE_SIZE pixels wide and high."""
DIGIT_MAX = 16
NUM_CLASSES = 10
CLASS_NAMES = tuple("0123456789")
TEST_DIGITS_EVERY = 5
"""One digit in this many, in every class, is for testing."""
TRAIN_COLUMNS = slice(0, 448)
TEST_COLUMNS = slice(448, 640)
KIN = Kin(name="digits", pictures="digits", option="seed", default=0)
"""The same digits without photographs."""


def digits_m(train_size: int = 8000, test_size: int = 2000, seed: int = 0) -> DataSet:
    """Returns the digits_m data set: 32 x 32 RGB, 10 classes of nearly equal size.

    Args:
        train_size: number of training images.
        test_size: number of test images.
        seed: of the split of the digits, and of which digit is drawn where on which patch.

    Raises:
        ConfigError: a size is below 1.
    """
    if train_size < 1 or test_size < 1:
        raise ConfigError(f"digits_m: sizes must be at least 1, not {train_size} and {test_size}")
    digits = load_digits()
    pixels_DHW = np.rint(digits.images).astype(np.int64)
    classes_D = digits.target.astype(np.int64)
    photos = [np.asarray(photo) for photo in load_sample_images().images]
    draw = np.random.PCG64(seed)
    train_ids, test_ids = split_digits(classes_D, draw)
    parts = []
    for ids, columns, size in (
        (train_ids, TRAIN_COLUMNS, train_size),
        (test_ids, TEST_COLUMNS, test_size),
    ):
        chosen = ids[np.arange(size) % len(ids)]
        patches_NHWC = _draw_patches([photo[:, columns] for photo in photos], size, draw)
        placed_NHW = _place_digits(pixels_DHW[chosen], draw)
        parts.append((_overlay(patches_NHWC, placed_NHW), classes_D[chosen]))
    (train_NCHW, train_N), (test_NCHW, test_N) = parts
    return dataset_from_arrays(
        "digits_m", train_NCHW, train_N, test_NCHW, test_N, NUM_CLASSES, CLASS_NAMES
    )


def upscale(digits_NHW: IntArray, side: int) -> IntArray:
    """Returns 8 x 8 digits with values 0..16 as larger ones with values 0..255, bilinearly.

    The centre of pixel i lies at ((2i + 1) * 8 - side) / (2 * side) in the small image. All weights
    are whole multiples of 1 / (2 * side), so the sums are exact.
    """
    full = 2 * side
    places = (2 * np.arange(side, dtype=np.int64) + 1) * DIGIT_SIZE - side
    below, weight = places // full, places % full
    first = np.clip(below, 0, DIGIT_SIZE - 1)
    second = np.clip(below + 1, 0, DIGIT_SIZE - 1)
    rows = digits_NHW[:, first] * (full - weight)[:, None] + digits_NHW[:, second] * weight[:, None]
    both = rows[:, :, first] * (full - weight) + rows[:, :, second] * weight
    return (both * 255 // (full * full * DIGIT_MAX)).astype(np.int64)


def _place_digits(digits_NHW: IntArray, draw: np.random.PCG64) -> IntArray:
    """Returns digits of random size at random places of black images of IMAGE_SIZE."""
    raw_N3 = draw.random_raw((len(digits_NHW), 3)).astype(np.uint64)
    sides_N = SMALLEST_SIDE + raw_N3[:, 0] % np.uint64(IMAGE_SIZE - SMALLEST_SIDE + 1)
    placed_NHW = np.zeros((len(digits_NHW), IMAGE_SIZE, IMAGE_SIZE), dtype=np.int64)
    for side in range(SMALLEST_SIDE, IMAGE_SIZE + 1):
        (members,) = np.nonzero(sides_N == side)
        large = upscale(digits_NHW[members], side)
        corners_M2 = (raw_N3[members, 1:] % np.uint64(IMAGE_SIZE - side + 1)).astype(np.int64)
        for member, digit, (row, column) in zip(members, large, corners_M2, strict=True):
            placed_NHW[member, row : row + side, column : column + side] = digit
    return placed_NHW


def split_digits(classes_D: IntArray, draw: np.random.PCG64) -> tuple[IntArray, IntArray]:
    """Returns ids of the train and of the test digits, each in random order.

    The first numbers of a fresh `draw` decide, so the same seed gives the same split everywhere.
    """
    order: IntArray = np.argsort(draw.random_raw(len(classes_D)), kind="stable").astype(np.int64)
    is_test = np.zeros(len(classes_D), dtype=bool)
    for one_class in range(NUM_CLASSES):
        is_test[order[classes_D[order] == one_class][::TEST_DIGITS_EVERY]] = True
    return order[~is_test[order]], order[is_test[order]]


def _draw_patches(photos: list[UInt8Array], number: int, draw: np.random.PCG64) -> UInt8Array:
    """Returns `number` patches from random places of random photographs (N x H x W x C)."""
    raw_N3 = draw.random_raw((number, 3))
    patches = []
    for photo_raw, row_raw, column_raw in raw_N3:
        photo = photos[int(photo_raw) % len(photos)]
        row = int(row_raw) % (photo.shape[0] - IMAGE_SIZE + 1)
        column = int(column_raw) % (photo.shape[1] - IMAGE_SIZE + 1)
        patches.append(photo[row : row + IMAGE_SIZE, column : column + IMAGE_SIZE])
    return np.stack(patches)


def _overlay(patches_NHWC: UInt8Array, digits_NHW: IntArray) -> UInt8Array:
    """Returns the absolute differences of patches and digits, as N x C x H x W."""
    difference = np.abs(patches_NHWC.astype(np.int64) - digits_NHW[:, :, :, None])
    return np.ascontiguousarray(difference.astype(np.uint8).transpose(0, 3, 1, 2))
