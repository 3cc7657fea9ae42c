"""The digest of a file's content, in the file itself.

torch writes zip archives, and does not look at their check sums when it reads them. The digest
stands in the archive's comment, the last bytes of the file. So the file stays one that `torch.load`
reads, and the digest is there exactly if the file is.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

_MARK = b"dogo-fed sha256="
_COMMENT_BYTES = len(_MARK) + 64
_END_RECORD = b"PK\x05\x06"
_END_RECORD_BYTES = 22
_CHUNK_BYTES = 1 << 20


def seal(file: BinaryIO) -> None:
    """Adds the digest of its content to a zip archive without a comment.

    Raises:
        ValueError: it is no such archive.
    """
    if not _has_no_comment(_tail(file, _END_RECORD_BYTES)):
        raise ValueError("this is no zip archive without a comment")
    file.seek(-2, os.SEEK_END)
    file.write(_COMMENT_BYTES.to_bytes(2, "little"))
    size = file.seek(0, os.SEEK_END)
    digest = _digest(file, size)
    file.seek(size)
    file.write(_MARK + digest)


def check_seal(path: Path) -> bool:
    """Whether the file carries a digest, which is that of its content; False for one without.

    Raises:
        OSError: it can't be read.
        ValueError: the content is not what was written, or the file's end is not.
    """
    with path.open("rb") as file:
        tail = _tail(file, _COMMENT_BYTES)
        if _has_no_comment(tail[-_END_RECORD_BYTES:]):
            return False
        if not tail.startswith(_MARK):
            raise ValueError("the end of the file is not as it was written")
        size = file.seek(0, os.SEEK_END) - _COMMENT_BYTES
        if _digest(file, size) != tail.removeprefix(_MARK):
            raise ValueError("the content does not have the digest that was written with it")
    return True


def _has_no_comment(end: bytes) -> bool:
    return len(end) == _END_RECORD_BYTES and end.startswith(_END_RECORD) and end.endswith(b"\0\0")


def _tail(file: BinaryIO, length: int) -> bytes:
    """Returns the last bytes of a file, fewer if it is shorter."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - length))
    return file.read(length)


def _digest(file: BinaryIO, size: int) -> bytes:
    """Returns the SHA-256 of the first `size` bytes, as hexadecimal digits."""
    file.seek(0)
    digest = hashlib.sha256()
    while size > 0:
        chunk = file.read(min(_CHUNK_BYTES, size))
        if not chunk:
            break
        digest.update(chunk)
        size -= len(chunk)
    return digest.hexdigest().encode()
