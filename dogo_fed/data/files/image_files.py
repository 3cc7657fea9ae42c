"""Lists of image files as a `DataSet`: decoded once, kept as bytes on disk, broken ones named."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from dogo_fed.data.digests import DigestedImages
from dogo_fed.data.files.decode import Decoding, size_of, without_pillows_limit
from dogo_fed.data.files.digests_file import DigestsFile
from dogo_fed.data.files.listing import Broken, Splits, counted
from dogo_fed.data.files.pixel_cache import broken_files, cached_pixels, kept_rows
from dogo_fed.data.source import DataSet, Subset
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.text import some_of

MOST_NAMED = 20
"""Broken images that an error or a note names; the others are counted."""
LARGER = 2
"""Images are stored at up to this many times the side of the views."""
SIZES_READ = 256
"""Images whose sizes tell at which side all are stored."""


def dataset_from_files(
    name: str,
    splits: Splits,
    image_size: int,
    cache_dir: str | None,
    *,
    how: Decoding,
    title: str = "",
) -> DataSet:
    """Returns image files as a data set.

    Args:
        name: what it is, see `DataSet`.
        splits: the files.
        image_size: side of the views, in pixels.
        cache_dir: where decoded pixels are kept; None is `.dogo_fed_cache` in the splits' root; see
            `pixel_cache.cached_pixels`.
        how: how the files become pixels, at which side they are stored, and whether images that
            can't be read are left out.
        title: what people call it; empty is its name.

    Raises:
        DataError: images can't be read; all of them are named, or the first twenty.
    """
    pixels = cached_pixels(splits, how, cache_dir)
    facts = pixels.facts
    broken = [
        *splits.broken,
        *broken_files(splits.train, facts.broken_train),
        *broken_files(splits.test, facts.broken_test),
    ]
    if broken and not how.skip_broken:
        raise DataError(_broken_error(name, broken))
    if len(facts.broken_train) == len(splits.train):
        raise DataError(f"{name}: none of the training images in {splits.root} can be read")
    train, test = pixels.train, pixels.test
    if facts.broken_train:
        train = Subset(train, kept_rows(len(train), facts.broken_train))
    if facts.broken_test:
        test = Subset(test, kept_rows(len(test), facts.broken_test))
    root, side = splits.root, how.side
    of_train = DigestsFile(pixels.train_digests, root, facts.fingerprint, len(train))
    of_test = DigestsFile(pixels.test_digests, root, facts.test_fingerprint, len(test))
    return DataSet(
        name=name,
        train=DigestedImages(train, side, of_train),
        test=DigestedImages(test, side, of_test),
        num_classes=splits.num_classes,
        image_size=image_size,
        mean=facts.mean,
        std=facts.std,
        fingerprint=facts.fingerprint,
        test_fingerprint=facts.test_fingerprint,
        class_names=splits.class_names,
        notes=(*splits.notes, *pixels.notes, *frames_note(facts.num_several), *broken_note(broken)),
        title=title,
    )


def check_image_size(name: str, image_size: int) -> None:
    """Raises ConfigError if the size is below 1."""
    if image_size < 1:
        raise ConfigError(f"{name}: image_size must be at least 1, not {image_size}")


def side_to_store(given: int | None, image_size: int, splits: Splits) -> tuple[int, Splits]:
    """Returns the side at which images are stored, and the splits, noted if they are enlarged to it.

    Args:
        given: the setting `stored_size`; None stores what the images have, up to twice the views.
        image_size: side of the views.
        splits: the images; the heads of a few training images are read.

    Raises:
        ConfigError: the setting is below the side of the views.
    """
    if given is not None:
        return checked_side(given, image_size), splits
    chosen = splits.train[:: max(1, len(splits.train) // SIZES_READ)]
    with without_pillows_limit():
        side, note = typical_side((size_of(file.path) for file in chosen), image_size)
    return side, replace(splits, notes=(*splits.notes, *note))


def checked_side(given: int, image_size: int) -> int:
    """Returns the setting `stored_size`.

    Raises:
        ConfigError: it is below the side of the views.
    """
    if given < image_size:
        raise ConfigError(
            f"data.options.stored_size={given} is less than data.options.image_size={image_size}"
        )
    return given


def typical_side(
    sizes: Iterable[tuple[int, int] | None], image_size: int
) -> tuple[int, tuple[str, ...]]:
    """Returns the side to store at: what the images have, up to twice the views, and no less than these.

    Args:
        sizes: width and height of some images; None where that can't be read.
        image_size: side of the views.

    Returns:
        The side, and a note if the images are smaller than the views.
    """
    known = [min(size) for size in sizes if size is not None]
    typical = round(statistics.median(known)) if known else image_size
    return min(max(typical, image_size), LARGER * image_size), enlarged_note(typical, image_size)


def enlarged_note(side: int, image_size: int) -> tuple[str, ...]:
    """Returns the note about images that are smaller than the views; none if they are not."""
    note = (
        f"the images are typically {side} px wide, and are enlarged to the {image_size} px of the views "
        "(data.options.image_size)"
    )
    return (note,) if side < image_size else ()


def frames_note(number: int) -> tuple[str, ...]:
    """Returns the note about the images of which only the first frame is used; none if none are."""
    return (f"{number} images have more than one frame; the first is taken",) if number else ()


def left_out_note(left_out: Counter[str]) -> tuple[str, ...]:
    """Returns the note about what was left out, by reason; none if nothing was."""
    return (f"left out: {counted(left_out)}",) if left_out else ()


def broken_note(broken: Sequence[Broken]) -> tuple[str, ...]:
    """Returns the note about the broken images that were left out; none if there are none."""
    named = f"{len(broken)} ({some_of(broken, MOST_NAMED)})"
    return (f"left out, broken: {named}",) if broken else ()


def _broken_error(name: str, broken: Sequence[Broken]) -> str:
    if len(broken) == 1:
        return (
            f"{name}: {broken[0]}; repair or remove it, or leave it out with "
            "data.options.skip_broken=true"
        )
    return (
        f"{name}: {len(broken)} images can't be read: {some_of(broken, MOST_NAMED)}. Repair or "
        "remove them, or leave them out with data.options.skip_broken=true. What was decoded is kept"
    )
