"""Little-endian float16, row by row: half the bytes, a relative error of at most 2**-11.

Numbers below 2**-14 (6.1e-5) have an absolute error of at most 2**-25 instead; those below 2**-25
become 0.
"""

# N = images in the step's batch

from __future__ import annotations

import numpy as np

from dogo_fed.contracts import FloatMatrix
from dogo_fed.wire import dogo_pb2 as pb

_LITTLE_ENDIAN = np.dtype("<f2")


class Float16:
    """The numbers, rounded to float16."""

    code: pb.DType = pb.FLOAT16
    is_exact = False
    row_sum_tolerance = 2e-3
    """Rounding: 2**-11 of the sum, and 2**-25 for each of up to 16,384 small entries."""

    def num_bytes(self, size: int) -> int:
        """Returns the length of an encoded size x size matrix, in bytes."""
        return size * size * _LITTLE_ENDIAN.itemsize

    def encode(self, p_NN: FloatMatrix) -> bytes:
        """Returns the matrix as bytes, row by row, whatever its order in memory."""
        return np.ascontiguousarray(p_NN).astype(_LITTLE_ENDIAN).tobytes()

    def decode(self, rows: bytes, size: int) -> FloatMatrix:
        """Returns the size x size matrix."""
        p_NN = np.frombuffer(rows, dtype=_LITTLE_ENDIAN).reshape(size, size)
        return p_NN.astype(np.float32)
