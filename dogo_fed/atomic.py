"""Files that are there in full or not at all, whatever happens to the process or the machine.

A file is written under a hidden temporary name in the same folder, flushed to the disk, and renamed
over the old one; then the folder is flushed, so that the rename survives a power cut too.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path in the folder of `path`, with its suffix, that replaces it on success.

    If the block raises, the temporary file is removed and an older `path` stays as it was.

    Raises:
        FileNotFoundError: the block wrote nothing, or the folder does not exist.
    """
    target = Path(path)
    partial = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.partial{target.suffix}")
    try:
        yield partial
        _flush_file(partial)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def write_atomic(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Replaces `path` by `content` (text as UTF-8), in full or not at all."""
    with atomic_path(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json_atomic(path: str | os.PathLike[str], value: object) -> None:
    """Replaces `path` by `value` as indented JSON; numbers that are not finite become null."""
    write_atomic(path, json.dumps(without_nan(value), indent=2, allow_nan=False) + "\n")


def without_nan(value: object) -> object:
    """Returns `value` with null for every number that JSON can't express (NaN and infinities)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [without_nan(item) for item in value]
    return value


def _flush_file(path: Path) -> None:
    """Waits until the file's content is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Waits until the folder's entries are on the disk, where the file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse; the rename is done
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
