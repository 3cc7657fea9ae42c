"""What a run writes is for its owner alone: folders 700, files 600, whichever process writes them.

This is done by the umask, which holds for all code of a process and for the processes that it
starts: ours, torch's, safetensors', Ray's. A user's default access control list on a folder goes
before it, so that is how people share what is written there.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_FOR_OTHERS = 0o077

_lock = threading.Lock()  # the umask is the process's: two blocks must not restore it out of order
_num_inside = 0
_earlier = 0


def keep_files_private() -> None:
    """Makes what this process writes from now on private; for a process that is ours alone."""
    os.umask(os.umask(_FOR_OTHERS) | _FOR_OTHERS)


@contextmanager
def private_files() -> Iterator[None]:
    """Makes what this process writes in the block private; afterwards its umask is what it was.

    The umask is the process's: what other threads write meanwhile is private too. Blocks may
    overlap; the last one that ends puts the umask back.
    """
    global _num_inside, _earlier
    with _lock:
        if _num_inside == 0:
            _earlier = os.umask(_FOR_OTHERS)
            os.umask(_earlier | _FOR_OTHERS)
        _num_inside += 1
    try:
        yield
    finally:
        with _lock:
            _num_inside -= 1
            if _num_inside == 0:
                os.umask(_earlier)
