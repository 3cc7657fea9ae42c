"""A table that gives images their classes; images that it does not name have none."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from dogo_fed.data.files.file_lists import Row, lines_of, no_row
from dogo_fed.data.files.listing import Listing, suffixes
from dogo_fed.errors import DataError
from dogo_fed.text import one_line, some_of

IMAGE_HEADINGS = (
    "image", "images", "image_id", "imageid", "image_name", "img", "image_path", "file", "filename",
    "file_name", "filepath", "file_path", "path", "name", "id", "id_code",
)  # fmt: skip
CLASS_HEADINGS = (
    "class", "classes", "class_name", "classname", "class_id", "label", "labels", "label_name",
    "category", "category_id", "target", "diagnosis", "dx", "species", "breed", "level", "grade",
)  # fmt: skip
"""What columns are called, in any case; of several, the first in this order is taken."""
_MARKS = "\t;,"


@dataclass(frozen=True, slots=True)
class LabelTable:
    """What a table of labels says.

    Attributes:
        path: the table.
        classes: names of the classes.
        labels: image to the number of its class; images without one are not in it.
        notes: what a user should know about how it was read, a sentence each.
    """

    path: Path
    classes: list[str]
    labels: dict[Path, int]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which columns of a table are read, counted from 0."""

    image: int = 0
    class_name: int = 1


def read_label_table(root: Path, table: str, files: Listing) -> LabelTable:
    """Returns the names of the classes, and the class of each image that has one.

    A line has the path of an image, relative to root, and a class. The separator is the tab, semicolon
    or comma that all lines have. If the first line has headings, they say which columns these are; if
    nobody knows them, the column with the images is the one whose next cell names one; else they are
    the first two. A line with an empty class is skipped. An image may be named without its
    ending, and without its folder, if no other is called like it. Classes that are all whole numbers
    are in the order of the numbers, others in alphabetical order.

    Args:
        root: folder of the images.
        table: path of the table, relative to root or to the current folder.
        files: the images.

    Raises:
        DataError: the table can't be read, or names an image that is not there, or that several may
            be, or names one twice.
    """
    path = next(
        (candidate for candidate in (root / table, Path(table)) if candidate.is_file()), None
    )
    if path is None:
        raise DataError(
            f"data.options.labels must be folders, none or a table; there is no {root / table} and "
            f"no {table}"
        )
    places = _Places(root, files)
    lines = lines_of(path)
    mark = _separator([line for _, line in lines], places)
    second = _cells(lines[1][1], mark) if len(lines) > 1 else []
    columns, has_headings, notes = _columns(path, _cells(lines[0][1], mark), second, places)
    rows = []
    for where, line in lines[has_headings:]:
        cells = _cells(line, mark)
        if len(cells) <= max(columns.image, columns.class_name):
            raise no_row(where, line)
        row = Row(where, cells[columns.image], cells[columns.class_name])
        if row.class_name:
            rows.append(row)
    classes = sorted({row.class_name for row in rows}, key=class_order)
    to_class = {name: label for label, name in enumerate(classes)}
    found: dict[Path, int] = {}
    named: dict[Path, Row] = {}
    for row in rows:
        image = places.one(row)
        first = named.setdefault(image, row)
        if first is not row:
            raise DataError(f"{row.where}: {row.image!r} was named before, in {first.where}")
        found[image] = to_class[row.class_name]
    return LabelTable(path, classes, found, notes)


class _Places:
    """The images of a folder, by the ways in which a table may name them."""

    def __init__(self, root: Path, files: Listing) -> None:
        self._root = root
        self._by_name: dict[str, list[Path]] = {}
        self._exact: dict[PurePath, Path] = {}
        for file in files:
            place = file.path.relative_to(root)
            self._exact[place] = file.path
            without_ending = place.with_suffix("")
            for name in {str(without_ending), place.name, without_ending.name}:
                self._by_name.setdefault(name, []).append(file.path)

    def called(self, name: str) -> list[Path]:
        """Returns the images that a name may mean."""
        place = PurePosixPath(name)
        exact = self._exact.get(place)
        return [exact] if exact is not None else self._by_name.get(str(place), [])

    def may_be_image(self, name: str) -> bool:
        """Whether a word is the name of an image, or looks like one."""
        return bool(self.called(name)) or PurePosixPath(name).suffix.lower() in suffixes()

    def one(self, row: Row) -> Path:
        """Returns the image that a line names.

        Raises:
            DataError: there is none, or there are several.
        """
        found = self.called(row.image)
        if not found:
            raise DataError(
                f"{row.where}: there is no image {row.image!r} below {self._root}; paths are relative "
                "to it"
            )
        if len(found) > 1:
            several = some_of([one_line(path) for path in found], 2)
            raise DataError(
                f"{row.where}: {row.image!r} may be any of {len(found)} images ({several}); give the "
                f"path below {self._root} and the ending"
            )
        return found[0]


def _columns(
    path: Path, first: Sequence[str], second: Sequence[str], places: _Places
) -> tuple[_Columns, bool, list[str]]:
    """Returns the columns to read, whether the first line has their headings, and notes."""
    words = [cell.lower() for cell in first]
    image, class_name = _heading(words, IMAGE_HEADINGS), _heading(words, CLASS_HEADINGS)
    if image is None and not any(map(places.may_be_image, first)):
        image = next((column for column, cell in enumerate(second) if places.called(cell)), None)
    is_known = image is not None or class_name is not None
    if image is None:
        image = 1 if class_name == 0 else 0
    if len(first) < 2 or not is_known or places.may_be_image(first[image]):
        note = f"{path.name} has no line of headings; its second column is taken as the class"
        return _Columns(), False, [note] if len(first) > 2 else []
    if class_name is None:
        class_name = image + 1 if image + 1 < len(first) else image - 1
    note = f"{path.name}: its column {one_line(first[class_name], 60)!r} is taken as the class"
    return _Columns(image, class_name), True, [note] if len(first) > 2 else []


def _heading(words: Sequence[str], known: Sequence[str]) -> int | None:
    """Returns the column that has the first of the known headings; None if none has one."""
    return next((words.index(word) for word in known if word in words), None)


def _separator(lines: Sequence[str], places: _Places) -> str:
    """Returns what stands between the cells of a table.

    A class may have such a mark in it ("cat;dog"). So it is one that divides every line, and, of
    several, one that leaves the name of an image whole.
    """
    dividing = [mark for mark in _MARKS if all(len(_cells(line, mark)) > 1 for line in lines)]
    if not dividing:
        return next((mark for mark in _MARKS if mark in lines[0]), ",")
    names_images = (
        mark
        for mark in dividing
        for line in lines[:2]
        if any(map(places.called, _cells(line, mark)))
    )
    return next(names_images, dividing[0])


def _cells(line: str, mark: str) -> list[str]:
    """Returns the cells of a line."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=mark), [])]


def class_order(name: str) -> tuple[bool, int, str]:
    """Returns what names of classes are sorted by: numbers come first, by their values."""
    is_number = name.isascii() and name.isdigit()
    return not is_number, int(name) if is_number else 0, name
