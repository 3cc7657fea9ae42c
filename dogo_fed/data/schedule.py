"""Which images a step uses, in which order: the same at every peer, from (seed, epoch) alone.

Row i of a similarity distribution is image i of the step's batch, so alignment is part of the
mathematics. The digest of a batch travels with every contribution; the coordinator, which computes
the same schedule, refuses one that differs.
"""

# N = images in the step's batch

from __future__ import annotations

import hashlib

import torch

from dogo_fed import seeding


class Schedule:
    """Step to sample ids. Every epoch is a permutation of the data set; the rest of it is dropped."""

    def __init__(
        self,
        *,
        seed: int,
        num_samples: int,
        batch_size: int,
        stream: tuple[str, ...] = ("schedule",),
    ) -> None:
        """Fixes the order of the whole run.

        Args:
            seed: the run's seed.
            num_samples: images in the training source.
            batch_size: N.
            stream: names the random stream of the order.

        Raises:
            ValueError: the batch is empty or larger than the data set.
        """
        if not 1 <= batch_size <= num_samples:
            raise ValueError(
                f"batch_size must be between 1 and the data set's {num_samples} images, not {batch_size}"
            )
        self._seed = seed
        self._num_samples = num_samples
        self._batch_size = batch_size
        self._stream = stream
        self._order: tuple[int, torch.Tensor] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in the data set."""
        return self._num_samples // self._batch_size

    def sample_ids(self, step: int) -> torch.Tensor:
        """Returns the ids of the images of `step`, int64, shape N."""
        epoch, index = divmod(step, self.steps_per_epoch)
        order = self._order  # read once: another thread may ask for another epoch meanwhile
        if order is None or order[0] != epoch:
            stream = seeding.generator(self._seed, *self._stream, epoch)
            order = self._order = (epoch, torch.randperm(self._num_samples, generator=stream))
        start = index * self._batch_size
        return order[1][start : start + self._batch_size].clone()

    def digest(self, step: int) -> str:
        """Returns the digest of the ordered sample ids of `step`, 32 hex digits."""
        ids = self.sample_ids(step).numpy().astype("<i8").tobytes()
        return hashlib.blake2b(ids, digest_size=16).hexdigest()
