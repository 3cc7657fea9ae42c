"""Sums of probabilities that are exact: their order is of no matter, and a term can be taken back.

Probabilities are added as integer multiples of 2**-52. A float32 of 2**-28 or more is such a
multiple; a smaller one is rounded by at most 2**-53.
"""

# N = images in the step's batch

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from dogo_fed.contracts import FloatMatrix

Units: TypeAlias = npt.NDArray[np.int64]
"""A matrix of probabilities, or a sum of some, in units of 2**-52; N x N."""

_UNIT = 2.0**52


def in_units(p_NN: FloatMatrix) -> Units:
    """Returns probabilities as integers; as many as a run may have peers can be added up."""
    scaled_NN = np.multiply(p_NN, _UNIT, dtype=np.float64)
    return np.rint(scaled_NN, out=scaled_NN).astype(np.int64)


def mean_of(total_NN: Units, number: int) -> FloatMatrix:
    """Returns the mean of the `number` matrices that were added up, rounded to float32."""
    mean_NN = total_NN.astype(np.float64)  # by itself: numpy multiplies other types in small pieces
    mean_NN *= 1.0 / (_UNIT * number)
    return mean_NN.astype(np.float32)
