"""The k largest numbers of each row, exactly, and the rest's sum spread evenly over the others.

6 bytes for each number that is sent. Of the others, none is off by more than the k-th largest, and
all together by at most twice their sum.
"""

# N = images in the step's batch

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dogo_fed.contracts import FloatMatrix
from dogo_fed.errors import MalformedDistribution
from dogo_fed.wire import dogo_pb2 as pb

MOST_COLUMNS = 2**16

_COLUMN, _NUMBER = np.dtype("<u2"), np.dtype("<f4")


@dataclass(frozen=True, slots=True)
class TopK:
    """The largest numbers of each row.

    Attributes:
        k: how many; all of them if a row has no more.
    """

    k: int = 16

    @property
    def code(self) -> pb.DType:
        """The value of `DType` that stands for it."""
        return pb.TOP_K

    @property
    def is_exact(self) -> bool:
        """Whether what is decoded equals what was encoded."""
        return False

    @property
    def row_sum_tolerance(self) -> float:
        """How far the sum of a decoded row may be from 1; its rest is what the largest leave."""
        return 1e-3

    def num_bytes(self, size: int) -> int:
        """Returns the length of an encoded size x size matrix, in bytes."""
        return size * min(self.k, size) * (_COLUMN.itemsize + _NUMBER.itemsize)

    def encode(self, p_NN: FloatMatrix) -> bytes:
        """Returns the columns of all rows, and then their numbers."""
        size = len(p_NN)
        if size > MOST_COLUMNS:
            raise ValueError(f"top_k numbers at most {MOST_COLUMNS} images, not {size}")
        k = min(self.k, size)
        # Sorted by number and then by column, so that equal numbers give equal bytes everywhere.
        columns_NK = np.sort(np.argsort(-p_NN, axis=1, kind="stable")[:, :k], axis=1)
        numbers_NK = np.take_along_axis(p_NN, columns_NK, axis=1)
        return columns_NK.astype(_COLUMN).tobytes() + numbers_NK.astype(_NUMBER).tobytes()

    def decode(self, rows: bytes, size: int) -> FloatMatrix:
        """Returns the size x size matrix.

        Raises:
            MalformedDistribution: a column is not of the matrix, or is named twice.
        """
        k = min(self.k, size)
        split = size * k * _COLUMN.itemsize
        columns_NK = np.frombuffer(rows[:split], dtype=_COLUMN).reshape(size, k).astype(np.int64)
        numbers_NK = np.frombuffer(rows[split:], dtype=_NUMBER).reshape(size, k)
        if columns_NK.max(initial=0) >= size or (np.diff(columns_NK, axis=1) <= 0).any():
            raise MalformedDistribution(
                f"the columns of a row must be {k} numbers below {size}, each once and in order"
            )
        with np.errstate(all="ignore"):  # a stranger's numbers; the caller checks what comes out
            rest_N1 = 1.0 - numbers_NK.sum(axis=1, keepdims=True, dtype=np.float64)
            # The numbers of a whole row may sum to a little more than 1; more than that is checked.
            rest_N1 = np.where(
                np.abs(rest_N1) < self.row_sum_tolerance, np.maximum(rest_N1, 0), rest_N1
            )
            p_NN = np.repeat(rest_N1 / max(size - k, 1), size, axis=1).astype(np.float32)
        np.put_along_axis(p_NN, columns_NK, numbers_NK, axis=1)
        return p_NN
