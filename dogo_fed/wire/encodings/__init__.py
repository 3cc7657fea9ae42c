"""How the numbers of a distribution become bytes: one file for each encoding, and their table.

A new encoding needs a file here, a member of `config.Encoding`, a value of `DType` in dogo.proto
and a row of `ENCODINGS`. tests/unit/dogo_fed/wire/test_encodings.py fails for a member without a
row.
"""

from __future__ import annotations

from collections.abc import Mapping

from dogo_fed.config import Encoding
from dogo_fed.wire.encodings.base import MatrixEncoding
from dogo_fed.wire.encodings.float32 import Float32

ENCODINGS: Mapping[Encoding, MatrixEncoding] = {
    Encoding.FLOAT32: Float32(),
}
