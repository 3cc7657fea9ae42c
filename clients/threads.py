"""The thread count of a peer's process: it is part of what makes numbers repeat."""

from __future__ import annotations

_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def thread_environment(threads: int) -> dict[str, str]:
    """Returns the variables that the numerical libraries read when they are loaded."""
    return {name: str(threads) for name in _VARIABLES}
