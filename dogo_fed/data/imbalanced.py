"""A data set with fewer and fewer training images from class to class, as imbalanced CIFAR-10 has.

The number of images of class c = 1, 2, ..., C falls by a power law with an offset,

    n_c = a / (b + c ** gamma),

whose a and b are such that n_1 = largest and n_C = smallest. With gamma = 0.2 and 5000 to 250
images, as in the published code of DoGo, CIFAR-10's ten classes get
5000, 858, 557, 439, 375, 333, 304, 282, 264, 250 images, 8662 in all.
"""

# C = classes, N = images

from __future__ import annotations

from collections.abc import Mapping

import torch

from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.map_style import fingerprint, pixel_statistics
from dogo_fed.data.source import DataSet, TensorImages
from dogo_fed.errors import ConfigError, DataError


def imbalanced(
    base: str = "cifar10",
    base_options: Mapping[str, object] | None = None,
    gamma: float = 0.2,
    largest: int = 5000,
    smallest: int = 250,
) -> DataSet:
    """Returns a data set with the first n_c training images of every class of another; same test.

    Label 0 keeps the most images. They stay in the order in which the other data set has them, and
    are copied into memory.

    Args:
        base: name of the other data set.
        base_options: options for it.
        gamma: exponent of the power law, above 0; the larger, the slower the fall at the start.
        largest: images of label 0.
        smallest: images of the last label.

    Raises:
        ConfigError: a number is out of range, or the other data set's name or options are wrong.
        DataError: the other data set is broken, or has too few images of a class.
    """
    try:
        data = build_dataset(base, base_options or {})
    except (ConfigError, DataError) as error:
        kind = ConfigError if isinstance(error, ConfigError) else DataError
        raise kind(str(error).replace("data.options.", "data.options.base_options.")) from error
    counts = class_counts(data.num_classes, gamma, largest, smallest)
    labels_N = data.train.labels
    kept = torch.zeros(len(labels_N), dtype=torch.bool)
    for label, number in enumerate(counts):
        (ids,) = torch.nonzero(labels_N == label, as_tuple=True)
        if len(ids) < number:
            raise DataError(
                f"imbalanced: {number} images of label {label} are asked for, but {base} has "
                f"{len(ids)}; set data.options.largest and data.options.smallest to less"
            )
        kept[ids[:number]] = True
    (ids_N,) = torch.nonzero(kept, as_tuple=True)
    images_NCHW = data.train.images(ids_N)
    mean, std = pixel_statistics(images_NCHW)
    return DataSet(
        name=f"{data.name}_imbalanced",
        train=TensorImages(images_NCHW, labels_N[ids_N]),
        test=data.test,
        num_classes=data.num_classes,
        image_size=data.image_size,
        mean=mean,
        std=std,
        fingerprint=fingerprint(images_NCHW),
        test_fingerprint=data.test_fingerprint,
        class_names=data.class_names,
        notes=data.notes,
        title=f"{data.title}_imbalanced",
    )


def class_counts(num_classes: int, gamma: float, largest: int, smallest: int) -> list[int]:
    """Returns n_c for every class, rounded; see the formula at the top.

    From n_1 = largest and n_C = smallest follow b = (smallest * C ** gamma - largest) / (largest -
    smallest) and a = largest * (b + 1).

    Raises:
        ConfigError: fewer than 2 classes, gamma is not above 0, or not 1 <= smallest < largest.
    """
    if num_classes < 2 or not gamma > 0 or not 1 <= smallest < largest:
        raise ConfigError(
            "imbalanced needs at least 2 classes, gamma above 0 and 1 <= smallest < largest, not "
            f"{num_classes} classes, gamma={gamma}, smallest={smallest}, largest={largest}"
        )
    b = (smallest * num_classes**gamma - largest) / (largest - smallest)
    a = largest * (b + 1)
    return [round(a / (b + c**gamma)) for c in range(1, num_classes + 1)]
