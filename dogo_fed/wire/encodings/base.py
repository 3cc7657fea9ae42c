"""The interface of an encoding of similarity distributions."""

# N = images in the step's batch

from __future__ import annotations

from typing import Protocol

from dogo_fed.contracts import FloatMatrix
from dogo_fed.wire import dogo_pb2 as pb


class MatrixEncoding(Protocol):
    """Turns an N x N matrix of float32 probabilities into bytes, and back."""

    @property
    def code(self) -> pb.DType:
        """The value of `DType` in dogo.proto that stands for it."""
        ...

    @property
    def is_exact(self) -> bool:
        """Whether what is decoded equals what was encoded, bit for bit."""
        ...

    @property
    def row_sum_tolerance(self) -> float:
        """How far the sum of a decoded row may be from 1."""
        ...

    def num_bytes(self, size: int) -> int:
        """Returns the length of an encoded size x size matrix, in bytes."""
        ...

    def encode(self, p_NN: FloatMatrix) -> bytes:
        """Returns the matrix as bytes, row by row."""
        ...

    def decode(self, rows: bytes, size: int) -> FloatMatrix:
        """Returns the size x size matrix in `rows`, whose length is right; it may be read-only."""
        ...
