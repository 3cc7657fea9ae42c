"""The plain digits of scikit-learn, 32 x 32 RGB: what digits_m looks like without photographs.

Split as in `digits_m`, so an encoder trained there has seen no test digit of these.
"""

# D = digits, N = images, C = channels, H, W = pixels

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_digits

from dogo_fed.data.digits_m import CLASS_NAMES, IMAGE_SIZE, NUM_CLASSES, split_digits, upscale
from dogo_fed.data.map_style import dataset_from_arrays
from dogo_fed.data.source import DataSet


def digits(seed: int = 0) -> DataSet:
    """Returns 1,433 training and 364 test images, white on black, three equal channels, 10 classes.

    Args:
        seed: of the split; the same as that of the digits_m it goes with.
    """
    bundled = load_digits()
    classes_D = bundled.target.astype(np.int64)
    large_DHW = upscale(np.rint(bundled.images).astype(np.int64), IMAGE_SIZE).astype(np.uint8)
    images_DCHW = np.repeat(large_DHW[:, None], 3, axis=1)
    train_ids, test_ids = split_digits(classes_D, np.random.PCG64(seed))
    return dataset_from_arrays(
        "digits",
        images_DCHW[train_ids],
        classes_D[train_ids],
        images_DCHW[test_ids],
        classes_D[test_ids],
        NUM_CLASSES,
        CLASS_NAMES,
    )
