"""The table of encodings.

A new encoding needs a file here, a member of `config.Encoding`, a value of `DType` in dogo.proto
and a row of `ENCODINGS`. tests/unit/dogo_fed/wire/test_encodings.py fails for a member without a
row.
"""

from __future__ import annotations

from collections.abc import Mapping

from dogo_fed.config import Encoding
from dogo_fed.wire.encodings.base import MatrixEncoding
from dogo_fed.wire.encodings.float16 import Float16
from dogo_fed.wire.encodings.float32 import Float32
from dogo_fed.wire.encodings.log8 import Log8
from dogo_fed.wire.encodings.top_k import TopK

ENCODINGS: Mapping[Encoding, MatrixEncoding] = {
    Encoding.FLOAT32: Float32(),
    Encoding.FLOAT16: Float16(),
    Encoding.LOG8: Log8(),
    Encoding.TOP_K: TopK(),
}
