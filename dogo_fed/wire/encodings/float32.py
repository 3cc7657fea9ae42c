"""Little-endian float32, row by row: exact, 4 bytes a number."""

# N = images in the step's batch

from __future__ import annotations

import numpy as np

from dogo_fed.contracts import FloatMatrix
from dogo_fed.wire import dogo_pb2 as pb

_LITTLE_ENDIAN = np.dtype("<f4")


class Float32:
    """The float32 numbers themselves."""

    code: pb.DType = pb.FLOAT32
    is_exact = True
    row_sum_tolerance = 1e-3
    """Rounding alone leaves rows of 2,048 entries within 1e-5."""

    def num_bytes(self, size: int) -> int:
        """Returns the length of an encoded size x size matrix, in bytes."""
        return size * size * _LITTLE_ENDIAN.itemsize

    def encode(self, p_NN: FloatMatrix) -> bytes:
        """Returns the matrix as bytes, row by row, whatever its order in memory."""
        return np.ascontiguousarray(p_NN, dtype=_LITTLE_ENDIAN).tobytes()

    def decode(self, rows: bytes, size: int) -> FloatMatrix:
        """Returns the matrix; it is read-only and shares the memory of the bytes."""
        p_NN = np.frombuffer(rows, dtype=_LITTLE_ENDIAN).reshape(size, size)
        return p_NN.astype(np.float32, copy=False)
