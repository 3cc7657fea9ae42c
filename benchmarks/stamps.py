"""Notes when each step of each peer begins, by wrapping the peers' augmentation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import torch

from dogo_fed.config import ComponentConfig, RunConfig
from dogo_fed.data.augment import Augmentation, build_augmentation

START_TOGETHER_WITHIN_S = 300.0


class StampedViews:
    """An augmentation that notes the clock at the beginning of every step."""

    def __init__(self, inner: Augmentation, path: Path, num_peers: int) -> None:
        self._inner = inner
        self._path = path
        self._num_peers = num_peers
        self._file: TextIO | None = None

    def __call__(self, images_BCHW: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the wrapped augmentation's views; the first call waits for the other peers."""
        if self._file is None:
            self._file = self._path.open("w", buffering=1, encoding="ascii")
            self._wait_for_others()
        # The monotonic clock is the system's, so notes of several processes can be compared.
        self._file.write(f"{time.monotonic_ns()} {time.process_time_ns()}\n")
        return self._inner(images_BCHW)

    def _wait_for_others(self) -> None:
        give_up_at_s = time.monotonic() + START_TOGETHER_WITHIN_S
        while len(list(self._path.parent.glob("*.stamps"))) < self._num_peers:
            if time.monotonic() > give_up_at_s:
                raise TimeoutError("the other peers did not begin")
            time.sleep(0.001)


def stamped_views(
    *,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    inner: str,
    inner_options: Mapping[str, object],
    path: str,
    num_peers: int,
) -> StampedViews:
    """Returns the augmentation called `inner`, wrapped; peers find this by its import path."""
    return StampedViews(
        build_augmentation(inner, inner_options, image_size, mean, std), Path(path), num_peers
    )


@dataclass(frozen=True)
class Stamps:
    """When each step of a peer began, in seconds: on the wall clock, and of processor time."""

    wall_s: list[float]
    processor_s: list[float]


def with_stamps(config: RunConfig, stamps_dir: Path) -> RunConfig:
    """Returns the run with every peer's augmentation wrapped; notes go to <folder>/<peer>.stamps."""
    peers = {}
    for name, peer in config.peers.items():
        options = {
            "inner": peer.augmentation.name,
            "inner_options": dict(peer.augmentation.options),
            "path": str(stamps_dir / f"{name}.stamps"),
            "num_peers": len(config.peers),
        }
        wrapped = ComponentConfig(name="benchmarks.stamps:stamped_views", options=options)
        peers[name] = dataclasses.replace(peer, augmentation=wrapped)
    return dataclasses.replace(config, peers=peers)


def read_stamps(path: Path) -> Stamps:
    """Returns what a peer has noted."""
    rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    return Stamps([int(wall) / 1e9 for wall, _ in rows], [int(used) / 1e9 for _, used in rows])
