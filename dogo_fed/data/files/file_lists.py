"""Text files that say which image is of which class, a line each; every mistake names its line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dogo_fed.data.files.listing import Listing, image_at
from dogo_fed.errors import DataError

SHOWN_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a list.

    Attributes:
        where: the list and the line number, for messages.
        image: path of the image as the list gives it.
        class_name: what the list says the class is.
    """

    where: str
    image: str
    class_name: str


def read_rows(path: Path, split: Callable[[str], list[str]]) -> list[Row]:
    """Returns the lines of a list; empty lines are skipped.

    Args:
        path: the text file.
        split: from a line to the path of an image, its class, and whatever else is ignored.

    Raises:
        DataError: the file is missing, is no text, is empty, or a line has no two parts.
    """
    rows = []
    for where, line in lines_of(path):
        parts = split(line)
        if len(parts) < 2:
            raise no_row(where, line)
        rows.append(Row(where, parts[0], parts[1]))
    return rows


def lines_of(path: Path) -> list[tuple[str, str]]:
    """Returns the lines of a list that are not empty, each with where it is, for messages.

    Raises:
        DataError: the file is missing, is no text, or is empty.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(
            f"the list of images {path} can't be read: it is not in UTF-8; save it so ({error})"
        ) from error
    except OSError as error:
        raise DataError(f"the list of images {path} can't be read: {error}") from error
    numbered = [
        (f"{path}, line {number}", line.strip(" "))
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not numbered:
        raise DataError(f"the list of images {path} is empty")
    return numbered


def no_row(where: str, line: str) -> DataError:
    """Returns the error of a line that has not an image and its class."""
    return DataError(f"{where}: expected an image and its class, not {line[:SHOWN_CHARACTERS]!r}")


def list_images(rows: list[Row], folder: Path, to_label: Callable[[str], int]) -> Listing:
    """Returns the images of a list, in its order.

    Args:
        rows: the lines of the list.
        folder: what the paths are relative to.
        to_label: from the list's class to a label; raises ValueError for what is no class.

    Raises:
        DataError: an image is missing, listed twice or outside the folder, or its class is unknown.
    """
    files: Listing = []
    seen: dict[str, Row] = {}
    for row in rows:
        place = PurePosixPath(row.image)
        if place.is_absolute() or ".." in place.parts:
            raise DataError(f"{row.where}: {row.image!r} is not a path below {folder}")
        first = seen.setdefault(str(place), row)
        if first is not row:
            raise DataError(f"{row.where}: {row.image!r} was listed before, in {first.where}")
        try:
            files.append(image_at(folder / place, to_label(row.class_name)))
        except ValueError as error:
            raise DataError(f"{row.where}: {error}") from error
        except OSError as error:
            raise DataError(
                f"{row.where}: the image {folder / place} can't be found ({error.strerror})"
            ) from error
    return files


def label_below(num_classes: int | None) -> Callable[[str], int]:
    """Returns a reader of labels that are numbers from 0; None sets no upper limit."""

    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise ValueError(f"the label must be a whole number from 0, not {text!r}")
        if num_classes is not None and int(text) >= num_classes:
            raise ValueError(f"the label is {text}, but there are only {num_classes} classes")
        return int(text)

    return read
