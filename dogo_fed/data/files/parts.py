"""Which part of a data set is to train with and which to test with, by what the parts are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dogo_fed.text import one_line, some_of

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation", "eval")
"""The first one that is there is used."""
_PICTURES = frozenset({"images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "rgb"})
_DRAWN = frozenset(
    {"mask", "masks", "annotation", "annotations", "label", "labels", "trimaps", "gt", "groundtruth",
     "ground", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "depth"}
)  # fmt: skip
"""Words in the names of folders whose images say something of those in a folder beside them."""
_MOST_NAMED = 6
_NO_LETTERS = re.compile(r"[\W\d_]+")


def words_of(name: str) -> set[str]:
    """Returns the words in a name: "train" and "images" of "Train_images2017"."""
    return set(_NO_LETTERS.split(name.lower())) - {""}


def pictures_beside_masks(names: Sequence[str]) -> str | None:
    """Returns the folder of the pictures, if all others beside it have masks or the like of them."""
    pictures = [name for name in names if name.lower() in _PICTURES]
    others = [name for name in names if name not in pictures]
    if len(pictures) == 1 and others and all(words_of(name) & _DRAWN for name in others):
        return pictures[0]
    return None


def not_used_note(parts: Sequence[str], where: object) -> tuple[str, ...]:
    """Returns the note about parts that are for neither; none if there are none."""
    named = some_of([one_line(part, 60) for part in parts], _MOST_NAMED)
    return (f"not used: {named} in {where}",) if parts else ()
