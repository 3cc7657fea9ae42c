"""How a file begins, wherever it is."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO


def first_bytes(file: Path | BinaryIO, number: int) -> bytes:
    """Returns at most so many bytes from the beginning of a file, or of one that is open."""
    if isinstance(file, Path):
        with file.open("rb") as opened:
            return opened.read(number)
    file.seek(0)
    return file.read(number)
