"""Named random streams, and the one place that touches torch's global random state.

Every draw in a run comes from a stream named by (run seed, names...), for example
`stream(seed, peer, step, "augmentation")`. A step is therefore a pure function of the state before
it, the stream's name, the images and the received mean: it does not matter which process runs it,
what ran before, or whether the run was resumed.

Only one thread of a process may be inside `stream` at a time, since torch's default generators are
global (libraries such as kornia draw from them). A second thread gets an error, not a silent race.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_owner = threading.RLock()  # re-entrant: a thread may open a stream inside a stream


def derive_seed(run_seed: int, *names: str | int) -> int:
    """Returns a 63-bit seed for the stream called `names`.

    The names are hashed with their types and lengths, so ("a", "bc") and ("ab", "c"), or 1 and "1",
    are different streams.
    """
    hasher = hashlib.blake2b(digest_size=8)
    for name in (run_seed, *names):
        part = (f"str:{name}" if isinstance(name, str) else f"int:{int(name)}").encode()
        hasher.update(len(part).to_bytes(4, "little") + part)
    return int.from_bytes(hasher.digest(), "little") >> 1


def generator(run_seed: int, *names: str | int) -> torch.Generator:
    """Returns a separate CPU generator, seeded for the stream called `names`."""
    return torch.Generator().manual_seed(derive_seed(run_seed, *names))


@contextmanager
def stream(run_seed: int, *names: str | int, device: torch.device | None = None) -> Iterator[None]:
    """Makes torch's default generators the stream called `names` inside the block.

    Args:
        run_seed: the run's seed.
        names: the stream's name, e.g. peer, step, purpose.
        device: an accelerator whose generator is seeded and restored too; None for CPU only.

    Raises:
        RuntimeError: another thread of this process is inside a stream.
    """
    # Not blocking: two threads that draw at once are a mistake, and waiting would hide it.
    if not _owner.acquire(blocking=False):
        raise RuntimeError(
            f"random stream {names} was asked for while another thread of this process uses one; "
            "torch's generators are global, so run one peer per process, or one after the other"
        )
    try:
        devices = [device] if device is not None and device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices, device_type="cuda"):
            seed = derive_seed(run_seed, *names)
            torch.default_generator.manual_seed(seed)
            for gpu in devices:
                with torch.cuda.device(gpu):
                    torch.cuda.manual_seed(seed)
            yield
    finally:
        _owner.release()
