"""The manifest of an anchor set: which images it is, without the images.

Partners who agree on anchors agree on this file. A site checks its copy of the images by it. A
coordinator that has no images knows from it what a run must know: how many there are, their size,
and their fingerprint.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dogo_fed.atomic import write_json_atomic
from dogo_fed.data.digests import image_digests
from dogo_fed.data.source import NO_LABEL, DataSet, check_image_facts
from dogo_fed.errors import DataError
from dogo_fed.text import one_line

_FORMAT = 1
_MOST_IMAGES = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is said of an anchor set.

    Attributes:
        name: of the data set.
        num_images: how many are for training, and so exchanged about.
        image_size: side in pixels.
        mean, std: per channel, of pixel values scaled to 0..1.
        fingerprint: of the training images in order.
        licence: under which the partners may use the images; a text for people.
        digests: of each image's pixels at `image_size`, in order, hex.
    """

    name: str
    num_images: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    licence: str
    digests: tuple[str, ...]

    @classmethod
    def of(cls, dataset: DataSet, licence: str) -> Manifest:
        """Returns the manifest of a data set's training images."""
        return cls(
            name=dataset.name,
            num_images=len(dataset.train),
            image_size=dataset.image_size,
            mean=dataset.mean,
            std=dataset.std,
            fingerprint=dataset.fingerprint,
            licence=licence,
            digests=tuple(
                digest.hex() for digest in image_digests(dataset.train, dataset.image_size)
            ),
        )

    def differences(self, dataset: DataSet) -> list[str]:
        """Returns what differs in a copy of the images, a phrase each; nothing if they are the same."""
        if dataset.fingerprint == self.fingerprint:
            return []
        here = Manifest.of(dataset, "")
        found = [
            f"{name} is {_shown(getattr(self, name))} in the manifest and {_shown(getattr(here, name))} "
            "here"
            for name in ("num_images", "image_size", "mean", "std")
            if getattr(self, name) != getattr(here, name)
        ]
        theirs, mine = Counter(self.digests), Counter(here.digests)
        missing, strange = (theirs - mine).total(), (mine - theirs).total()
        if missing or strange:
            found.append(
                f"{missing} images of the manifest are not here, and {strange} here are not in it"
            )
        elif self.digests != here.digests:
            place = next(
                row
                for row, pair in enumerate(zip(self.digests, here.digests, strict=True))
                if pair[0] != pair[1]
            )
            found.append(f"the images are the same, but in another order from image {place} on")
        return found or ["the images are stored otherwise (data.options.stored_size)"]

    def dataset(self) -> DataSet:
        """Returns a data set that knows all this and has no image."""
        nothing = torch.empty(0, dtype=torch.int64)
        return DataSet(
            name=self.name,
            train=_NoImages(torch.full((self.num_images,), NO_LABEL), self.name),
            test=_NoImages(nothing, self.name),
            num_classes=0,
            image_size=self.image_size,
            mean=self.mean,
            std=self.std,
            fingerprint=self.fingerprint,
        )

    def write(self, path: Path) -> None:
        """Writes the manifest as JSON, in full or not at all."""
        write_json_atomic(path, {"format": _FORMAT, **dataclasses.asdict(self)})

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Returns the manifest in a file, checked: it may be anybody's.

        Raises:
            DataError: there is no such file, or it is no manifest.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls._from_plain(content)
        except OSError as error:
            raise DataError(f"the manifest {path} can't be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(
                f"{path} is no manifest of anchors ({one_line(repr(error), 200)}); "
                "`dogo-fed anchors make` writes one"
            ) from error

    @classmethod
    def _from_plain(cls, content: Any) -> Manifest:
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']} is not {_FORMAT}")
        found = cls(
            name=one_line(str(content["name"]), 200),
            num_images=int(content["num_images"]),
            image_size=int(content["image_size"]),
            mean=tuple(float(value) for value in content["mean"]),
            std=tuple(float(value) for value in content["std"]),
            fingerprint=str(content["fingerprint"]),
            licence=str(content["licence"]),
            digests=tuple(str(digest) for digest in content["digests"]),
        )
        if not 2 <= found.num_images <= _MOST_IMAGES or len(found.digests) != found.num_images:
            raise ValueError(f"{found.num_images} images and {len(found.digests)} digests")
        check_image_facts(found.image_size, found.mean, found.std)
        return found


class _NoImages:
    """An `ImageSource` that knows how many images there are and has none."""

    def __init__(self, labels_N: torch.Tensor, name: str) -> None:
        self._labels_N = labels_N
        self._name = name

    @property
    def labels(self) -> torch.Tensor:
        """Class of every image: -1, it is not known."""
        return self._labels_N

    def __len__(self) -> int:
        return len(self._labels_N)

    def images(self, ids: torch.Tensor) -> torch.Tensor:
        """Raises DataError: there are none."""
        raise DataError(
            f"the images of {self._name} are not here: this process has the manifest alone"
        )


def _shown(value: object) -> str:
    return one_line(value, 80)
