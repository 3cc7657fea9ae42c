"""A table that gives images their classes; images that it does not name have none."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from dogo_fed.data.files.file_lists import Row, read_rows
from dogo_fed.data.files.listing import Listing
from dogo_fed.errors import DataError

HEADINGS = (
    "image", "images", "image_id", "imageid", "image_name", "img", "file", "filename", "file_name",
    "path", "name", "id", "id_code",
)  # fmt: skip
"""First words, in any case, of a line that names the columns."""


def read_label_table(root: Path, table: str, files: Listing) -> tuple[list[str], dict[Path, int]]:
    """Returns the names of the classes, and the class of each image that has one.

    A line has the path of an image, relative to root, and a class. The separator is a tab, a
    semicolon or a comma. A line of headings is skipped, and so is one with an empty class. Classes
    that are all whole numbers are in the order of the numbers, others in alphabetical order.

    Args:
        root: folder of the images.
        table: path of the table, relative to root or to the current folder.
        files: the images.

    Raises:
        DataError: the table can't be read, or names an image that is not there, or names one twice.
    """
    path = next(
        (candidate for candidate in (root / table, Path(table)) if candidate.is_file()), None
    )
    if path is None:
        raise DataError(
            f"data.options.labels must be folders, none or a table; there is no {root / table} and "
            f"no {table}"
        )
    rows = [row for row in read_rows(path, _cells) if row.class_name]
    if rows and rows[0].image.lower() in HEADINGS:
        rows = rows[1:]
    classes = sorted({row.class_name for row in rows}, key=class_order)
    to_class = {name: label for label, name in enumerate(classes)}
    there = {file.path.relative_to(root): file.path for file in files}
    found: dict[Path, int] = {}
    named: dict[Path, Row] = {}
    for row in rows:
        place = Path(PurePosixPath(row.image))
        if place not in there:
            raise DataError(
                f"{row.where}: there is no image {row.image!r} below {root}; paths are relative to it"
            )
        first = named.setdefault(place, row)
        if first is not row:
            raise DataError(f"{row.where}: {row.image!r} was named before, in {first.where}")
        found[there[place]] = to_class[row.class_name]
    return classes, found


def _cells(line: str) -> list[str]:
    """Returns the cells of a line."""
    separator = next((mark for mark in "\t;," if mark in line), ",")
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]


def class_order(name: str) -> tuple[bool, int, str]:
    """Returns what names of classes are sorted by: numbers come first, by their values."""
    is_number = name.isascii() and name.isdigit()
    return not is_number, int(name) if is_number else 0, name
