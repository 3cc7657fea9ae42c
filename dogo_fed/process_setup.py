"""What a process sets before its work: thread counts, how malloc frees memory, its descriptors.

Numbers repeat bit for bit only with the same thread counts. Freed memory is kept, because every
step allocates the same large blocks again: activations, messages, matrices. By default glibc maps a
large block anew each time and gives it back when it is freed. The page faults cost more than the
work: on two cores they made up half of an exchange of 4 MiB. Torch's CPU allocator uses the same
malloc.
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1 << 30
_MOST_DESCRIPTORS = 65_536  # a limit of a million makes some programs close a million descriptors
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def thread_environment(threads: int) -> dict[str, str]:
    """Returns the variables that the numerical libraries read when they are loaded."""
    return {name: str(threads) for name in _THREAD_VARIABLES}


def raise_descriptor_limit() -> int:
    """Raises how many descriptors this process may have, as far as it is allowed to.

    Returns:
        How many it may have now.
    """
    try:
        import resource
    except ImportError:  # not on Windows
        return _MOST_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    endless = resource.RLIM_INFINITY
    wanted = _MOST_DESCRIPTORS if hard == endless else min(hard, _MOST_DESCRIPTORS)
    if soft == endless or soft >= wanted:
        return _MOST_DESCRIPTORS if soft == endless else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS allows less than it says
        return soft
    return wanted


def keep_freed_memory() -> bool:
    """Tells glibc's malloc to reuse large blocks; changes nothing but speed and peak memory.

    Returns:
        Whether it took effect; only glibc on Linux can do it.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES) and mallopt(_M_TRIM_THRESHOLD, _LARGE_BYTES)
    )
