"""Brings the images of each pass to the peer's device before it waits for them.

A set that fits lies on the device as uint8, so that a pass is gathered there. Else the next pass is
gathered in a thread while this step computes or waits for its answer. On a CPU neither is needed:
the images are in its memory already. Which images a pass holds is `passes.py`'s to say.
"""

# C, H, W = channels and pixels

from __future__ import annotations

import dataclasses
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from dogo_fed.data.roles import StepImages
from dogo_fed.data.source import DataSet, ImageSource, TensorImages
from dogo_fed.engine.passes import Passes

SHARE_OF_MEMORY = 0.25
"""Of the device's free memory; larger sets stay where they are."""

_CHUNK_IMAGES = 4096
_resident: dict[tuple[int, torch.device], TensorImages] = {}
_GATHERED_WITHIN_S = 600.0


def resident(passes: Passes, device: torch.device, room_bytes: int) -> Passes | None:
    """Returns the same passes with all their images on the device; None if there is no room.

    Args:
        passes: of one peer.
        device: where the images are to lie.
        room_bytes: how much of its memory they may take.
    """
    sets = {id(one.train): one for one in (passes.data.shared, passes.data.own)}
    if sum(_bytes_of(one.train) for one in sets.values()) > room_bytes:
        return None
    moved = {key: _moved(one.train, device) for key, one in sets.items()}

    def there(dataset: DataSet) -> DataSet:
        return dataclasses.replace(dataset, train=moved[id(dataset.train)])

    own, shared = there(passes.data.own), there(passes.data.shared)
    data = dataclasses.replace(
        passes.data, own=shared if passes.data.own is passes.data.shared else own, shared=shared
    )
    return dataclasses.replace(passes, data=data)


def _bytes_of(source: ImageSource) -> int:
    if len(source) == 0:
        return 0
    return len(source) * source.images(torch.zeros(1, dtype=torch.int64)).nbytes


def _moved(source: ImageSource, device: torch.device) -> TensorImages:
    """Returns the images on the device; once for all peers of a process."""
    key = (id(source), device)
    if key not in _resident:
        parts = [source.images(ids).to(device) for ids in _chunks(len(source))]
        _resident[key] = TensorImages(torch.cat(parts), source.labels)
        weakref.finalize(source, _resident.pop, key, None)
    return _resident[key]


def _chunks(number: int) -> tuple[torch.Tensor, ...]:
    return torch.split(torch.arange(number), _CHUNK_IMAGES)


class Feed:
    """The images of a peer's passes, step by step, as near to its device as can be."""

    def __init__(
        self, passes: Passes, device: torch.device, *, with_labels: bool, ahead: bool
    ) -> None:
        """Begins with nothing gathered.

        Args:
            passes: which images.
            device: where the peer computes.
            with_labels: whether the peer's own loss needs the classes.
            ahead: whether the pass after the one that is taken is gathered meanwhile.
        """
        self._passes = passes
        self._device = device
        self._with_labels = with_labels
        self._worker = ThreadPoolExecutor(1, "images") if ahead else None
        self._next: tuple[int, Future[StepImages]] | None = None

    @classmethod
    def of(cls, passes: Passes, device: torch.device, *, with_labels: bool) -> Feed:
        """Returns the feed that suits the device."""
        if device.type != "cuda":
            return cls(passes, device, with_labels=with_labels, ahead=False)
        free_bytes, _ = torch.cuda.mem_get_info(device)
        there = resident(passes, device, int(SHARE_OF_MEMORY * free_bytes))
        return cls(there or passes, device, with_labels=with_labels, ahead=there is None)

    def take(self, step: int) -> StepImages:
        """Returns the images of a step's pass; the next one is gathered meanwhile."""
        images = None
        if self._next is not None and self._next[0] == step:
            images = self._next[1].result(_GATHERED_WITHIN_S)
        if images is None:
            images = self._gathered(step)
        if self._worker is not None:
            self._next = (step + 1, self._worker.submit(self._gathered, step + 1))
        return images

    def close(self) -> None:
        """Gathers no more."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)

    def _gathered(self, step: int) -> StepImages:
        images = self._passes.images(step, with_labels=self._with_labels)
        if self._device.type == "cuda" and images.images_NCHW.device.type == "cpu":
            pinned = images.images_NCHW.pin_memory()  # so that its copy does not hold up the device
            return dataclasses.replace(images, images_NCHW=pinned)
        return images
