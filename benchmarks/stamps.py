"""Notes the clock once in each step of each peer, by wrapping the peers' augmentation."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dogo_fed.config import ComponentConfig, Host, RunConfig
from dogo_fed.data.augment import Augmentation, build_augmentation

START_TOGETHER_WITHIN_S = 300.0


class StampedViews:
    """An augmentation that notes the clock whenever it draws the views of a step.

    That is at the beginning of a step, or, where a peer draws ahead while it waits for others, in the
    middle of the step before. What is drawn before the run has its folder is a trial of the peers in
    the process that prepares the run: it is no step, and is not noted.
    """

    def __init__(self, inner: Augmentation, path: Path, run_dir: Path, num_peers: int) -> None:
        """Notes nothing yet.

        Args:
            inner: draws the views.
            path: takes the notes; those of all peers are in one folder.
            run_dir: the run folder.
            num_peers: so many peers begin their first step together.
        """
        self._inner = inner
        self._path = path
        self._run_dir = run_dir
        self._num_peers = num_peers
        self._has_begun = False

    def __call__(self, images_BCHW: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the wrapped augmentation's views; in a run the first call waits for the others."""
        if not self._has_begun and (self._run_dir / "config.yaml").is_file():
            self._path.touch()
            self._wait_for_others()
            self._has_begun = True
        if self._has_begun:
            # The monotonic clock is the system's, so notes of several processes can be compared.
            note = f"{time.monotonic_ns()} {time.process_time_ns()}\n"
            with self._path.open("a", encoding="ascii") as notes:
                notes.write(note)
        return self._inner(images_BCHW)

    def _wait_for_others(self) -> None:
        give_up_at_s = time.monotonic() + START_TOGETHER_WITHIN_S
        while (there := len(list(self._path.parent.glob("*.stamps")))) < self._num_peers:
            if time.monotonic() > give_up_at_s:
                raise TimeoutError(
                    f"{there} of {self._num_peers} peers have begun within "
                    f"{START_TOGETHER_WITHIN_S:g} s; the other peers' logs say why they have not"
                )
            time.sleep(0.001)


def stamped_views(
    *,
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    inner: str,
    inner_options: Mapping[str, object],
    path: str,
    run_dir: str,
    num_peers: int,
) -> StampedViews:
    """Returns the augmentation called `inner`, wrapped; peers find this by its import path."""
    made = build_augmentation(inner, inner_options, image_size, mean, std)
    return StampedViews(made, Path(path), Path(run_dir), num_peers)


@dataclass(frozen=True)
class Stamps:
    """When each step's views were drawn, in seconds: on the wall clock, and of processor time."""

    wall_s: list[float]
    processor_s: list[float]


def with_stamps(config: RunConfig, stamps_dir: Path) -> RunConfig:
    """Returns the run with every peer's augmentation wrapped; notes go to <folder>/<peer>.stamps.

    Args:
        config: the run, with the folder that it will have (`run_dir`).
        stamps_dir: takes the notes.
    """
    assert config.run_dir is not None, "the wrapper looks whether the run has begun"
    takes_turns = config.host is Host.LOCAL  # then nobody can wait for the others
    peers = {}
    for name, peer in config.peers.items():
        options = {
            "inner": peer.augmentation.name,
            "inner_options": dict(peer.augmentation.options),
            "path": str(stamps_dir / f"{name}.stamps"),
            "run_dir": config.run_dir,
            "num_peers": 1 if takes_turns else len(config.peers),
        }
        wrapped = ComponentConfig(name="benchmarks.stamps:stamped_views", options=options)
        peers[name] = dataclasses.replace(peer, augmentation=wrapped)
    return dataclasses.replace(config, peers=peers)


def read_stamps(path: Path) -> Stamps:
    """Returns what a peer has noted."""
    rows = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
    return Stamps([int(wall) / 1e9 for wall, _ in rows], [int(used) / 1e9 for _, used in rows])
