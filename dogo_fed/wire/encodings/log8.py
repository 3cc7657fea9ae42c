"""A byte for the logarithm of each number: a quarter of the bytes of float32.

The 256 levels of a row lie evenly between its lowest and its highest logarithm, which travel with
it; `DEPTH` nats below the highest is the lowest level that is kept. A row whose logarithms span s
nats has levels s / 255 apart, so the logarithm of a decoded number is at most s / 255 off: half of
that by rounding, and the rest by making the row's sum 1 again. Numbers further below the highest
than `DEPTH` come out at that level, less than 1e-13 of the highest.
"""

# N = images in the step's batch

from __future__ import annotations

import numpy as np

from dogo_fed.contracts import FloatMatrix
from dogo_fed.wire import dogo_pb2 as pb

DEPTH = 30.0
"""Nats below a row's highest number that are told apart."""
LEVELS = 255
"""Steps between a row's lowest level and its highest."""

_ENDS = np.dtype("<f4")


class Log8:
    """The logarithms, rounded to 256 levels a row."""

    code: pb.DType = pb.LOG8
    is_exact = False
    row_sum_tolerance = 1e-3
    """Decoded rows are made to sum to 1."""

    def num_bytes(self, size: int) -> int:
        """Returns the length of an encoded size x size matrix, in bytes."""
        return size * (2 * _ENDS.itemsize + size)

    def encode(self, p_NN: FloatMatrix) -> bytes:
        """Returns the ends of all rows, and then the levels, row by row."""
        with np.errstate(divide="ignore"):
            log_NN = np.log(p_NN, dtype=np.float32)
        high_N1 = log_NN.max(axis=1, keepdims=True)
        log_NN = np.maximum(log_NN, high_N1 - np.float32(DEPTH))
        low_N1 = log_NN.min(axis=1, keepdims=True)
        span_N1 = np.maximum(high_N1 - low_N1, np.finfo(np.float32).tiny)
        levels_NN = np.rint((log_NN - low_N1) / span_N1 * LEVELS).astype(np.uint8)
        ends_N2 = np.concatenate([low_N1, high_N1], axis=1).astype(_ENDS)
        return b"".join([ends_N2.tobytes(), levels_NN.tobytes()])

    def decode(self, rows: bytes, size: int) -> FloatMatrix:
        """Returns the size x size matrix; it is NaN where the ends of a row make no sense."""
        split = 2 * _ENDS.itemsize * size
        ends_N2 = np.frombuffer(rows[:split], dtype=_ENDS).reshape(size, 2).astype(np.float32)
        levels_NN = np.frombuffer(rows[split:], dtype=np.uint8).reshape(size, size)
        low_N1, high_N1 = ends_N2[:, :1], ends_N2[:, 1:]
        with np.errstate(all="ignore"):  # a stranger's ends; the caller checks what comes out
            # From the highest down, so that a row's largest number is exp(0) whatever its ends.
            below_NN = (levels_NN.astype(np.float32) / LEVELS - 1.0) * (high_N1 - low_N1)
            p_NN: FloatMatrix = np.exp(below_NN)
            p_NN /= p_NN.sum(axis=1, keepdims=True)
        return p_NN
