"""A table that gives images their classes; images that it does not name have none."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
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
_MOST_HEADINGS = 8
_MARKS = "\t;,"
_NO_TABLES = {
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "is a spreadsheet; save it as .csv"),
    **dict.fromkeys(
        (".json", ".jsonl", ".xml"),
        "is no table; make one of it, with a line for each image: image,class",
    ),
}
"""What to do with files in which people have their labels."""


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


def read_label_table(
    root: Path,
    table: str,
    files: Listing,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
) -> LabelTable:
    """Returns the names of the classes, and the class of each image that has one.

    A line has the path of an image, relative to root, and a class. The separator is the tab, semicolon
    or comma that all lines have. If the first line has headings, they say which columns these are; if
    nobody knows them, the column with the images is the one whose next cell names one; else they are
    the first two. A line with an empty class is skipped, and so is one about an image that is not
    there, which is counted. An image may be named without its ending, and without its folder, if no
    other is called like it. Classes that are all whole numbers are in the order of the numbers, others
    in alphabetical order.

    Args:
        root: folder of the images.
        table: path of the table, relative to root or to the current folder.
        files: the images.
        image_column: heading of the column with the images; None finds it.
        label_column: heading of the column with the classes; None finds it.

    Raises:
        DataError: the table can't be read, has no such column, names none of the images, or one that
            several may be, or gives one two classes.
    """
    path = _find(root, table)
    places = _Places(root, files)
    lines = lines_of(path)
    mark = _separator([line for _, line in lines], places)
    second = _cells(lines[1][1], mark) if len(lines) > 1 else []
    first = _cells(lines[0][1], mark)
    columns, has_headings, notes = _columns(path, first, second, places)
    if image_column is not None or label_column is not None:
        named_columns = {"image_column": image_column, "label_column": label_column}
        columns, has_headings, notes = _named(path, first, columns, named_columns), True, []
    rows = []
    for where, line in lines[has_headings:]:
        cells = _cells(line, mark)
        if len(cells) <= max(columns.image, columns.class_name):
            raise no_row(where, line)
        row = Row(where, cells[columns.image], cells[columns.class_name])
        if row.class_name:
            rows.append(row)
    named, elsewhere = _found(rows, places)
    if elsewhere:
        if not named:
            raise DataError(
                f"{elsewhere[0].where}: there is no image {elsewhere[0].image!r} below {root}, and none "
                "of the other lines' either; paths are relative to it. data.options.image_column and "
                "label_column name the columns, if others are meant"
            )
        notes.append(
            f"{len(elsewhere)} of {len(rows)} lines of {path.name} name no image that is here (the "
            f"first: {one_line(elsewhere[0].image, 60)})"
        )
    classes = sorted({row.class_name for row in named.values()}, key=class_order)
    to_class = {name: label for label, name in enumerate(classes)}
    labels = {image: to_class[row.class_name] for image, row in named.items()}
    return LabelTable(path, classes, labels, notes)


def _find(root: Path, table: str) -> Path:
    """Returns the path of a table.

    Raises:
        DataError: there is none, or it is a file of another kind.
    """
    path = next(
        (candidate for candidate in (root / table, Path(table)) if candidate.is_file()), None
    )
    if path is None:
        raise DataError(
            f"data.options.labels must be folders, none or a table; there is no {root / table} and "
            f"no {table}"
        )
    if path.suffix.lower() in _NO_TABLES:
        raise DataError(f"data.options.labels={table} {_NO_TABLES[path.suffix.lower()]}")
    return path


def _found(rows: Sequence[Row], places: _Places) -> tuple[dict[Path, Row], list[Row]]:
    """Returns the images that lines name, each with the first one, and the lines that name none.

    Raises:
        DataError: a line may mean several images, or two give an image different classes.
    """
    named: dict[Path, Row] = {}
    elsewhere = []
    for row in rows:
        image = places.one(row)
        if image is None:
            elsewhere.append(row)
            continue
        before = named.setdefault(image, row)
        if before.class_name != row.class_name:
            raise DataError(
                f"{row.where}: {row.image!r} is of class {row.class_name!r}, and in {before.where} of "
                f"class {before.class_name!r}"
            )
    return named, elsewhere


class _Places:
    """The images of a folder, by the ways in which a table may name them."""

    def __init__(self, root: Path, files: Listing) -> None:
        self._root = root
        self._roots = (os.path.abspath(root), root.resolve())
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
        for place in (PurePosixPath(name), PurePosixPath(name.replace("\\", "/"))):
            inside = self._below_root(place)
            exact = self._exact.get(inside)
            found = [exact] if exact is not None else self._by_name.get(str(inside), [])
            if found:
                return found
        return []

    def _below_root(self, place: PurePosixPath) -> PurePosixPath:
        """Returns a place relative to the folder of the images, if it is a whole path below it."""
        root = next((root for root in self._roots if place.is_relative_to(root)), None)
        return place if root is None else place.relative_to(root)

    def may_be_image(self, name: str) -> bool:
        """Whether a word is the name of an image, or looks like one."""
        return bool(self.called(name)) or PurePosixPath(name).suffix.lower() in suffixes()

    def one(self, row: Row) -> Path | None:
        """Returns the image that a line names; None if it is not here.

        Raises:
            DataError: there are several.
        """
        found = self.called(row.image)
        if not found:
            return None
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


def _named(
    path: Path, headings: Sequence[str], found: _Columns, named: Mapping[str, str | None]
) -> _Columns:
    """Returns the columns that the user has named; one that he has not is as it was found.

    Raises:
        DataError: there is no such heading, or no second column.
    """
    words = [heading.lower() for heading in headings]
    places: dict[str, int | None] = {}
    for option, name in named.items():
        if name is not None and name.lower() not in words:
            raise DataError(
                f"{path} has no column {name!r} (data.options.{option}); its first line has "
                f"{some_of([one_line(heading, 40) for heading in headings], _MOST_HEADINGS)}"
            )
        places[option] = None if name is None else words.index(name.lower())
    image, class_name = places["image_column"], places["label_column"]
    if image is None:
        image = found.image if found.image != class_name else found.class_name
    if class_name is None:
        class_name = found.class_name if found.class_name != image else found.image
    if image == class_name or max(image, class_name) >= len(words):
        raise DataError(
            f"{path} has one column for both the images and their classes; two are needed"
        )
    return _Columns(image, class_name)


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
    """Returns the cells of a line; none if it is no row of a table."""
    if len(line) > csv.field_size_limit():  # outlines of masks are long
        csv.field_size_limit(len(line))
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=mark), [])]
    except csv.Error:
        return []


def class_order(name: str) -> tuple[bool, int, str]:
    """Returns what names of classes are sorted by: numbers come first, by their values."""
    is_number = name.isascii() and name.isdigit()
    return not is_number, int(name) if is_number else 0, name
