"""The file that keeps the digests of single images beside their pixels, checked when it is read."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from dogo_fed.atomic import write_atomic
from dogo_fed.data.digests import DIGEST_BYTES
from dogo_fed.data.files.pixel_cache import share_like

logger = logging.getLogger(__name__)

_VERSION = 1
"""Raised whenever the meaning of the file changes."""
_SEAL_BYTES = 16


class DigestsFile:
    """A seal, and then the digests of some images in order.

    The seal is a digest of all the rest and of the images' fingerprint. So a file that is damaged, or
    of other images, is never taken for one of these.
    """

    def __init__(self, path: Path, root: Path, fingerprint: str, number: int) -> None:
        """Names the file; it need not be there.

        Args:
            path: where it is.
            root: folder of the images; who may read it may read the file.
            fingerprint: of the images, see `DataSet`.
            number: how many there are.
        """
        self._path = path
        self._root = root
        self._identity = f"{_VERSION} {fingerprint} {number}\0".encode()
        self._num_bytes = _SEAL_BYTES + DIGEST_BYTES * number

    def read(self) -> bytes | None:
        """Returns the digests of these images; None if the file is not there, or not theirs."""
        try:
            if self._path.stat().st_size == self._num_bytes:
                content = self._path.read_bytes()
                digests = content[_SEAL_BYTES:]
                if content[:_SEAL_BYTES] == self._seal(digests):
                    return digests
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            logger.warning("%s can't be read (%s), and is made again", self._path, error.strerror)
            return None
        logger.warning("%s is damaged, or of other images, and is made again", self._path)
        return None

    def write(self, digests: bytes) -> None:
        """Writes the file, in full or not at all; a warning says if it can't be written."""
        try:
            write_atomic(self._path, self._seal(digests) + digests)
            share_like(self._root, self._path)
        except OSError as error:
            logger.warning("digests of images are made anew at every start: %s", error)

    def _seal(self, digests: bytes) -> bytes:
        hasher = hashlib.blake2b(self._identity, digest_size=_SEAL_BYTES)
        hasher.update(digests)
        return hasher.digest()
