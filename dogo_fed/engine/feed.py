"""Brings the images of each pass to the peer's device before it waits for them.

A set that fits lies on the device as uint8, so that a pass is gathered there. Else the next pass is
gathered in a thread while this step computes or waits for its answer. On a CPU that is done for
large sets, which may lie on disk (`data/files/pixel_cache.py`), and for images that are decoded
whenever a pass needs them; others are in its memory already. Which images a pass holds is
`passes.py`'s to say.
"""

# C, H, W = channels and pixels

from __future__ import annotations

import dataclasses
import weakref
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch

from dogo_fed.data.roles import StepImages
from dogo_fed.data.source import DataSet, ImageSource, TensorImages, takes_time
from dogo_fed.engine.passes import Passes
from dogo_fed.errors import DataError

SHARE_OF_MEMORY = 0.25
"""Of the device's free memory; larger sets stay where they are."""

LARGE_BYTES = 2**30
"""Of a set that a CPU may have to read from disk."""

_IMAGES_AT_A_TIME = 4096
_resident: dict[tuple[int, torch.device], TensorImages] = {}
_kept: list[ImageSource] = []
"""Sources that can't be watched: they stay, so that no other gets the identity of one."""
_GATHERED_WITHIN_S = 600.0
"""A pass; then the disk hangs, which ends the peer. See `clients.__main__`."""


def resident(passes: Passes, device: torch.device, room_bytes: int) -> Passes | None:
    """Returns the same passes with all their images on the device; None if there is no room.

    Args:
        passes: of one peer.
        device: where the images are to lie.
        room_bytes: how much of its memory they may take; what lies there already takes none.
    """
    sources = _sources(passes)
    missing = [source for key, source in sources.items() if (key, device) not in _resident]
    if sum(map(_bytes_of, missing)) > room_bytes:
        return None
    moved = {key: _moved(source, device) for key, source in sources.items()}

    def there(dataset: DataSet) -> DataSet:
        return dataclasses.replace(dataset, train=moved[id(dataset.train)])

    own, shared = there(passes.data.own), there(passes.data.shared)
    data = dataclasses.replace(
        passes.data, own=shared if passes.data.own is passes.data.shared else own, shared=shared
    )
    return dataclasses.replace(passes, data=data)


def _sources(passes: Passes) -> dict[int, ImageSource]:
    """Returns the images of a peer's passes, by their identity."""
    return {id(dataset.train): dataset.train for dataset in (passes.data.shared, passes.data.own)}


def _first(source: ImageSource) -> torch.Tensor:
    """Returns the first image, or none, as a batch."""
    return source.images(torch.arange(min(1, len(source))))


def _bytes_of(source: ImageSource) -> int:
    return len(source) * _first(source).nbytes if len(source) else 0


def _moved(source: ImageSource, device: torch.device) -> TensorImages:
    """Returns the images on the device; once for all peers of a process."""
    key = (id(source), device)
    if key not in _resident:
        shape = (len(source), *_first(source).shape[1:])
        there_NCHW = torch.empty(shape, dtype=torch.uint8, device=device)
        for ids in torch.split(torch.arange(len(source)), _IMAGES_AT_A_TIME):
            if len(ids):
                there_NCHW[int(ids[0]) : int(ids[-1]) + 1] = source.images(ids)
        _resident[key] = TensorImages(there_NCHW, source.labels)
        try:
            weakref.finalize(source, _resident.pop, key, None)
        except TypeError:  # somebody's own class, with __slots__
            _kept.append(source)
    return _resident[key]


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
        self._taken: tuple[int, StepImages] | None = None

    @classmethod
    def of(cls, passes: Passes, device: torch.device, *, with_labels: bool) -> Feed:
        """Returns the feed that suits the device, and on a CPU the set.

        On a GPU it returns when the set lies there, which may take minutes: nobody may wait for this
        peer yet.
        """
        if device.type != "cuda":
            sources = list(_sources(passes).values())
            ahead = any(map(takes_time, sources)) or sum(map(_bytes_of, sources)) >= LARGE_BYTES
            return cls(passes, device, with_labels=with_labels, ahead=ahead)
        free_bytes, _ = torch.cuda.mem_get_info(device)
        there = resident(passes, device, int(SHARE_OF_MEMORY * free_bytes))
        return cls(there or passes, device, with_labels=with_labels, ahead=there is None)

    def is_ready(self, step: int) -> bool:
        """Whether the images of a step were gathered ahead, and need not be waited for."""
        return self._next is not None and self._next[0] == step and self._next[1].done()

    def take(self, step: int) -> StepImages:
        """Returns the images of a step's pass; the next one is gathered meanwhile.

        Who asks again for the step that was taken last gets the same images.

        Raises:
            DataError: they can't be read, or not in time.
        """
        if self._taken is not None and self._taken[0] == step:
            return self._taken[1]
        images = None
        if self._next is not None and self._next[0] == step:
            images = self._gathered_ahead(self._next[1])
        if images is None:
            images = self._gathered(step)
        if self._worker is not None:
            self._next = (step + 1, self._worker.submit(self._gathered, step + 1))
        self._taken = (step, images)
        return images

    def close(self) -> None:
        """Gathers no more."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)

    def _gathered_ahead(self, future: Future[StepImages]) -> StepImages:
        wait([future], _GATHERED_WITHIN_S)
        if not future.done():
            raise DataError(
                f"the images of a pass could not be read in {_GATHERED_WITHIN_S:.0f} s; is the disk away?"
            )
        return future.result()

    def _gathered(self, step: int) -> StepImages:
        images = self._passes.images(step, with_labels=self._with_labels)
        if self._device.type != "cuda" or images.images_NCHW.device.type != "cpu":
            return images
        # Pinned, so that their copies do not hold up the device.
        labels_P = None if images.labels_P is None else images.labels_P.pin_memory()
        pinned_NCHW = images.images_NCHW.pin_memory()
        return dataclasses.replace(images, images_NCHW=pinned_NCHW, labels_P=labels_P)
