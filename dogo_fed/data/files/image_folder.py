"""Images in class folders: `train/<class>/*.jpg` and `test/<class>/*.jpg` (or `val/`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dogo_fed.data.files.image_files import (
    Listing,
    Splits,
    check_image_size,
    class_folders,
    dataset_from_files,
    images_in,
)
from dogo_fed.data.source import DataSet
from dogo_fed.errors import DataError

TEST_FOLDERS = ("test", "val")
LAYOUT = "train/<class>/*.jpg (or jpeg, png) and test/<class>/ (or val/<class>/)"


def image_folder(root: str, image_size: int = 32, cache_dir: str | None = None) -> DataSet:
    """Returns the images of a folder as RGB, image_size x image_size.

    Images of another size are resized so that the shorter side fits, then cropped to the centre.
    Labels count the class folders in alphabetical order.

    Args:
        root: folder with train/<class>/ and test/<class>/ (or val/<class>/).
        image_size: side in pixels.
        cache_dir: where decoded pixels are kept; None is `.dogo_fed_cache` in root. If it can't be
            written to, nothing is kept, and every process decodes the images anew.

    Raises:
        ConfigError: image_size is below 1.
        DataError: the layout is not as expected, or an image can't be decoded.
    """
    check_image_size("image_folder", image_size)
    train_folder, test_folder = _find_splits(Path(root))
    classes = _class_names(train_folder)
    splits = Splits(
        root=Path(root),
        train=list_classes(train_folder, classes),
        test=list_classes(test_folder, classes),
        num_classes=len(classes),
        class_names=tuple(classes),
    )
    return dataset_from_files("image_folder", splits, image_size, cache_dir)


def list_classes(folder: Path, classes: Sequence[str]) -> Listing:
    """Returns the image files of a folder of class folders, by class and then by name.

    Raises:
        DataError: there is a class folder too many, or no image.
    """
    strangers = set(_class_names(folder)) - set(classes)
    if strangers:
        raise DataError(
            f"{folder} has the class {min(strangers)!r}, which the train folder has not"
        )
    files = []
    for label, name in enumerate(classes):
        if (folder / name).is_dir():
            files += images_in(folder / name, label)
    if not files:
        raise DataError(f"{folder} has no images; expected is {LAYOUT}")
    return files


def _find_splits(root: Path) -> tuple[Path, Path]:
    """Returns the training and the test folder, or raises DataError."""
    tests = [root / name for name in TEST_FOLDERS if (root / name).is_dir()]
    if not (root / "train").is_dir() or not tests:
        there = "that folder does not exist" if not root.is_dir() else "one of the two is missing"
        raise DataError(
            f"image_folder expects {LAYOUT} in {root}, but {there}; set data.options.root"
        )
    return root / "train", tests[0]


def _class_names(folder: Path) -> list[str]:
    """Returns the names of the class folders in alphabetical order, or raises DataError."""
    names = class_folders(folder)
    if not names:
        raise DataError(f"image_folder expects {LAYOUT}, but {folder} has no class folders")
    return names
