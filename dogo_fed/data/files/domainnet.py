"""Data sets that come as two lists of images, as the domains of DomainNet do."""

from __future__ import annotations

from pathlib import Path

from dogo_fed.data.files.file_lists import label_below, list_images, read_rows
from dogo_fed.data.files.image_files import check_image_size, dataset_from_files, side_to_store
from dogo_fed.data.files.listing import Splits
from dogo_fed.data.files.pixel_options import PixelOptions, with_pixel_options
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError, DataError


@with_pixel_options
def domainnet(
    root: str,
    domain: str = "quickdraw",
    image_size: int = 64,
    num_classes: int | None = 345,
    stored_size: int | None = None,
    cache_dir: str | None = None,
    *,
    pixels: PixelOptions,
) -> DataSet:
    """Returns a domain: the images of `<domain>_train.txt` and `<domain>_test.txt`, in their order.

    A line is a path relative to root, a blank, and a label from 0.

    Args:
        root: folder with the two lists and the images.
        domain: clipart, quickdraw, sketch or another one that has lists.
        image_size: side of the views in pixels.
        stored_size: side of the stored images, from which crops are taken. None stores what the
            images have, up to twice image_size.
        num_classes: 345 in DomainNet; None counts up to the largest label.
        cache_dir: where decoded pixels are kept; None is `.dogo_fed_cache` in root; see
            `pixel_cache.cached_pixels`.
        pixels: options of their own, see `PixelOptions`.

    Raises:
        ConfigError: an option is impossible.
        DataError: a list is missing or broken, an image is missing, listed twice or can't be
            decoded, or a label is out of range; names the line.
    """
    check_image_size("domainnet", image_size)
    if num_classes is not None and num_classes < 1:
        raise ConfigError(f"domainnet: num_classes must be at least 1, not {num_classes}")
    folder = Path(root)
    lists = {part: folder / f"{domain}_{part}.txt" for part in ("train", "test")}
    for path in lists.values():
        if not path.is_file():
            there = sorted(file.name for file in folder.glob("*_train.txt"))
            raise DataError(
                f"domainnet: there is no list {path}; set data.options.root and data.options.domain "
                f"(lists in {folder}: {', '.join(there) or 'none'})"
            )
    train, test = (
        list_images(
            read_rows(path, lambda line: line.rsplit(maxsplit=1)), folder, label_below(num_classes)
        )
        for path in lists.values()
    )
    both = {file.path for file in train} & {file.path for file in test}
    if both:
        raise DataError(f"{min(both)} is both in {lists['train'].name} and in {lists['test'].name}")
    counted = max(file.label for file in train + test) + 1
    splits = Splits(root=folder, train=train, test=test, num_classes=num_classes or counted)
    side, splits = side_to_store(stored_size, image_size, splits)
    how = pixels.decoding(side)
    return dataset_from_files(f"domainnet-{domain}", splits, image_size, cache_dir, how=how)
