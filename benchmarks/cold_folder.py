"""A step fed from a folder whose pixels are on the disk alone, beside one fed from ready tensors.

    python -m benchmarks.cold_folder [--images 4096] [--image-size 224] [--batch-size 64] [--steps 8]
        [--rounds 3] [--threads 1] [--device auto] [--folder FOLDER]

The folder's images are decoded once, before the clock runs, as a run does it. Before each turn the pixels
are dropped from the system's cache, so a pass is read from the disk at random places. `read_mib` says how
much that was: 0 where the folder lies in memory (tmpfs). The pixels of 100,000 images of 224 take 15 GB, and
the files lie beside them.

folder    a session of one peer (small_cnn) with the images of the folder. However few they are, they are
          read as those of a folder that fits into no memory: from the disk, during the step before
ready     the same with the images of a few batches, in memory; on a GPU they lie on it
disk      nothing but reading the same number of batches' bytes from the cache's file, one after the other
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.images import write_folder
from benchmarks.machine import Result
from benchmarks.sessions import Sessions
from benchmarks.settings import peers_named, steps_alone
from benchmarks.turns import Found, clocked, finish, spread, take_turns, told
from dogo_fed.config import DataConfig
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.source import DataSet, TensorImages
from dogo_fed.engine import feed
from dogo_fed.engine.numerics import fix_numerics, resolve_device

HOW = (
    "The three took turns; the spread is over rounds. Before each turn the folder's pixels were dropped from "
    "the system's cache. Images a second are of the wall; the disk's are what it could give in a row."
)
_BLOCK = 2**22
_BATCHES = 4
"""That are ready; a part of them is held out."""


@dataclasses.dataclass(frozen=True)
class Turn:
    """What a turn has done."""

    images_per_s: float
    read_mib: float


def drop_from_cache(cache: Path) -> None:
    """Lets the system forget what it keeps of these files in memory."""
    for path in filter(Path.is_file, cache.rglob("*")):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def nothing_fits() -> Iterator[None]:
    """Has sessions that are opened meanwhile take each set for one that fits into no memory.

    So the images of a GPU stay on the disk, and those of a step are gathered during the step before it.
    """
    with ExitStack() as after:
        for name in ("SHARE_OF_MEMORY", "LARGE_BYTES"):
            after.callback(setattr, feed, name, getattr(feed, name))
            setattr(feed, name, 0)
        yield


def fed(
    make: Callable[[], DataSet], cache: Path, steps: int, batch_size: int, device: torch.device,
    *, stays_on_disk: bool,
) -> Turn:  # fmt: skip
    """Does steps of one peer with these images."""
    name, peer = next(iter(peers_named("tiny").items()))
    config = steps_alone(
        {name: peer}, DataConfig(name="synthetic"), exchanges=False,
        batch_size=batch_size, device=device.type,
    )  # fmt: skip
    with nothing_fits() if stays_on_disk else nullcontext():
        sessions = Sessions(config, make())  # anew: pages that are mapped would not be dropped
    try:
        drop_from_cache(cache)
        before = _read_bytes()
        took = clocked(sessions.step, steps, partial(finish, device))
        return Turn(batch_size / took.wall_s, (_read_bytes() - before) / 2**20)
    finally:
        sessions.close()


def from_disk(cache: Path, num_bytes: int, bytes_per_image: int) -> Turn:
    """Reads so many bytes of the largest file, in a row."""
    drop_from_cache(cache)
    largest = max(filter(Path.is_file, cache.rglob("*")), key=lambda one: one.stat().st_size)
    before, started_s, done = _read_bytes(), time.perf_counter(), 0
    with largest.open("rb", buffering=0) as file:
        while done < num_bytes and (block := file.read(min(_BLOCK, num_bytes - done))):
            done += len(block)
    seconds = time.perf_counter() - started_s
    return Turn(done / bytes_per_image / seconds, (_read_bytes() - before) / 2**20)


def kind_of_disk(folder: Path) -> str:
    """Returns the kind of the file system that a folder lies on, e.g. ext4; tmpfs is in memory."""
    disks = {Path(one.mountpoint): one.fstype for one in psutil.disk_partitions(all=True)}
    places = [folder.resolve(), *folder.resolve().parents]
    return next((disks[one] for one in places if one in disks), "unknown")


def _read_bytes() -> int:
    """Returns what this process has had read from disks so far."""
    return int(psutil.Process().io_counters().read_bytes)


def measure(
    root: Path, number: int, image_size: int, batch_size: int, steps: int, rounds: int,
    device: torch.device,
) -> Found[str, Turn]:  # fmt: skip
    """Writes a folder, and returns what the three have found."""
    cache = root / "cache"
    cache.mkdir()
    write_folder(root / "images", number, image_size)
    options = {
        "root": str(root / "images"), "image_size": image_size, "cache_dir": str(cache)
    }  # fmt: skip

    def folder() -> DataSet:
        return build_dataset("image_folder", options)

    whole = folder()
    some = whole.train.images(torch.arange(min(_BATCHES * batch_size, len(whole.train))))
    ready = dataclasses.replace(whole, train=TensorImages(some, whole.train.labels[: len(some)]))
    del whole
    bytes_per_image = some[0].nbytes
    turns = {
        "folder": partial(fed, folder, cache, steps, batch_size, device, stays_on_disk=True),
        "ready": partial(fed, lambda: ready, cache, steps, batch_size, device, stays_on_disk=False),
        "disk": partial(from_disk, cache, steps * batch_size * bytes_per_image, bytes_per_image),
    }
    return take_turns(turns, rounds, warm_up=1)


def row(name: str, found: Sequence[Turn]) -> dict[str, Any]:
    """Returns the figures of one contestant."""
    return {
        "images_from": name,
        "images_per_s": spread([one.images_per_s for one in found]),
        "read_mib": spread([one.read_mib for one in found]),
    }


def main() -> None:
    """Measures, prints a table and writes the figures."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", type=int, default=4096)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    asked = parser.parse_args()
    fix_numerics(asked.threads)
    device = resolve_device(asked.device)
    with (
        Result("cold_folder", HOW, parser, asked, named_by=["images"], aside=["folder"]) as result,
        tempfile.TemporaryDirectory(prefix="cold-folder-", dir=asked.folder) as made,
    ):
        del result.settings["folder"]
        result.settings |= {"device": device.type, "disk": kind_of_disk(Path(made))}
        found = measure(
            Path(made), asked.images, asked.image_size, asked.batch_size, asked.steps,
            asked.rounds, device,
        )  # fmt: skip
        result.failed.update(found.failed)
        result.found["rows"] = [row(name, rounds) for name, rounds in found.rounds().items()]
        for one in result.found["rows"]:
            print(
                f"{one['images_from']:<8} {told(one['images_per_s'])} images a second, "
                f"{told(one['read_mib'])} MiB read"
            )


if __name__ == "__main__":
    main()
