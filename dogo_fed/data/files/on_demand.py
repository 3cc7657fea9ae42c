"""Image files that are decoded whenever a batch needs them: for folders whose pixels can't be kept."""

# B = images asked for, C = channels

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from dogo_fed.data.files.decode import Decoding, decode, num_threads, without_pillows_limit
from dogo_fed.data.files.listing import ImageFile, Listing, labels_of
from dogo_fed.data.map_style import UInt8Array
from dogo_fed.errors import DataError

_DECODED_WITHIN_S = 600.0
"""A batch; then the disk hangs, which ends the peer. See `clients.__main__`."""


class FileImages:
    """An `ImageSource` of files. Images are decoded side by side, in as many threads as there are cores."""

    takes_time = True

    def __init__(self, files: Listing, how: Decoding) -> None:
        """Takes the files as they are now, with what tells whether they have changed.

        Args:
            files: in the order of the sample ids.
            how: how they become pixels, always in the same way.
        """
        self._files = files
        self._how = how
        self._labels_N = labels_of(files)
        self._workers: ThreadPoolExecutor | None = None

    @property
    def labels(self) -> torch.Tensor:
        """Class of every file: int64, shape N; -1 if it has none."""
        return self._labels_N

    def __len__(self) -> int:
        return len(self._files)

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the images with these ids, in this order: uint8, B x C x side x side.

        Raises:
            DataError: a file has changed since the start, or can't be read any more.
        """
        if self._workers is None:
            self._workers = ThreadPoolExecutor(num_threads(), "decode")
        how = self._how
        images = np.empty((len(ids), how.colours.channels, how.side, how.side), np.uint8)
        files = [self._files[row] for row in ids.tolist()]
        try:
            with without_pillows_limit():
                decoded = self._workers.map(self._pixels, files, timeout=_DECODED_WITHIN_S)
                for place, pixels in enumerate(decoded):
                    images[place] = pixels
        except TimeoutError as error:
            raise DataError(
                f"{len(files)} images near {files[0].path} could not be read in {_DECODED_WITHIN_S:.0f} s; "
                "is the disk away?"
            ) from error
        return torch.from_numpy(images)

    def _pixels(self, file: ImageFile) -> UInt8Array:
        try:
            now = file.path.stat()
            if (now.st_size, now.st_mtime_ns) != (file.num_bytes, file.modified_ns):
                raise DataError("it has changed since the start")
            return decode(file.path, self._how).pixels
        except (DataError, OSError) as error:
            reason = error if isinstance(error, DataError) else error.strerror
            raise DataError(
                f"{file.path}: {reason}. It could be read when the images were looked through; put it "
                "back, or start again"
            ) from error
