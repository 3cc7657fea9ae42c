"""Where a run's numbers come from: which images, which code, which libraries, which device.

A run folder keeps the provenance of each of its starts, and an exported encoder that of its peer.
Whoever goes on with a run, evaluates it or compares it holds what is there against what was there.
Other images are refused. Other code or libraries are said, since they may change a number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from dogo_fed.data.source import DataSet, check_image_facts
from dogo_fed.errors import CheckpointError, DataError
from dogo_fed.text import one_line

_LIBRARIES = ("torch", "torchvision", "kornia", "numpy", "pillow", "scikit-learn")
"""Those that the numbers of a run go through."""
_WITHHELD = "withheld"
"""Stands for the name of images of which an encoder does not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFacts:
    """A data set in a few values, by which it is known again.

    Attributes:
        name: its own.
        fingerprint, test_fingerprint: of the training and of the test images, in order. The latter
            is empty if it is not known.
        labels: digest of the classes of all images.
        num_train, num_test: how many images.
        image_size: side in pixels.
        mean, std: per channel, of pixel values scaled to 0..1.
        num_classes: labels are below it.
        class_names: in the order of the labels; empty if they have no names.
        title: what people call it. A folder that was moved may have another one, so the data set is
            not known by it.
    """

    name: str
    fingerprint: str
    test_fingerprint: str
    labels: str
    num_train: int
    num_test: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_classes: int
    class_names: tuple[str, ...]
    title: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name)

    @classmethod
    def of(cls, dataset: DataSet) -> DataFacts:
        """Returns the facts of a data set."""
        hasher = hashlib.blake2b(digest_size=16)
        for source in (dataset.train, dataset.test):
            hasher.update(source.labels.numpy().astype("<i8").tobytes())
        return cls(
            name=dataset.name,
            fingerprint=dataset.fingerprint,
            test_fingerprint=dataset.test_fingerprint,
            labels=hasher.hexdigest(),
            num_train=len(dataset.train),
            num_test=len(dataset.test),
            image_size=dataset.image_size,
            mean=dataset.mean,
            std=dataset.std,
            num_classes=dataset.num_classes,
            class_names=dataset.class_names,
            title=dataset.title,
        )

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> DataFacts:
        """Returns what `dataclasses.asdict` has made of facts, checked: it may be anybody's.

        Raises:
            KeyError, TypeError, ValueError: these are no facts.
        """
        facts = cls(
            name=str(plain["name"]),
            fingerprint=str(plain["fingerprint"]),
            test_fingerprint=str(plain["test_fingerprint"]),
            labels=str(plain["labels"]),
            num_train=int(plain["num_train"]),
            num_test=int(plain["num_test"]),
            image_size=int(plain["image_size"]),
            mean=tuple(float(value) for value in plain["mean"]),
            std=tuple(float(value) for value in plain["std"]),
            num_classes=int(plain["num_classes"]),
            class_names=tuple(str(name) for name in plain["class_names"]),
            title=str(plain.get("title", "")),  # earlier versions wrote none
        )
        check_image_facts(facts.image_size, facts.mean, facts.std)
        return facts

    def withheld(self) -> DataFacts:
        """Returns what one has to know to use an encoder, and nothing else of the images."""
        return DataFacts(
            name=_WITHHELD, fingerprint="", test_fingerprint="", labels="", num_train=0, num_test=0,
            image_size=self.image_size, mean=self.mean, std=self.std, num_classes=0, class_names=(),
            title=_WITHHELD,
        )  # fmt: skip

    def differences(self, now: DataFacts) -> list[str]:
        """Returns a phrase, with both values, for everything that is not as it was."""
        return [
            f"{fact.name} was {_shown(then)} and is {_shown(value)}"
            for fact in dataclasses.fields(self)
            if fact.compare
            and (then := getattr(self, fact.name)) != (value := getattr(now, fact.name))
            and not (fact.name == "test_fingerprint" and "" in (then, value))
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where numbers come from.

    Attributes:
        data: the data set that is trained on.
        source: digest of dogo-fed's source.
        packages: versions of Python, dogo-fed and the libraries, by name.
        device: what computes, e.g. "cpu x86_64 AVX512" or "cuda NVIDIA H200".
        anchors: the data set that the anchors of a partition are drawn from, where it is another one.
    """

    data: DataFacts
    source: str
    packages: Mapping[str, str]
    device: str
    anchors: DataFacts | None = None

    @classmethod
    def of(
        cls,
        dataset: DataSet,
        device: torch.device,
        source: str,
        anchors: DataSet | None = None,
    ) -> Provenance:
        """Returns the provenance of what this process computes on a device.

        Args:
            dataset: what is trained on.
            device: what computes.
            source: digest of the source that this process has loaded; the files may be others by now.
            anchors: see the attribute.
        """
        return cls(
            data=DataFacts.of(dataset),
            source=source,
            packages=_packages(),
            device=_named(device),
            anchors=None if anchors is None else DataFacts.of(anchors),
        )

    def check_same_images(self, now: Provenance, *, of: str, instead: str) -> None:
        """Checks that the images are those that something was made with; see `check_same_images`.

        Raises:
            DataError: they are not.
        """
        check_same_images(self.data, now.data, of=of, instead=instead)
        if self.anchors is not None and now.anchors is not None:
            check_same_images(self.anchors, now.anchors, of=f"the anchors of {of}", instead=instead)

    def changes(self, now: Provenance) -> list[str]:
        """Returns a phrase for all that is not as it was and may change numbers, data apart."""
        return changed_origin(self.origin, now.origin)

    @property
    def origin(self) -> dict[str, str]:
        """What computed: source, device and each package, by name, with its digest or version."""
        return {"source": self.source, "device": self.device, **self.packages}

    def to_plain(self) -> dict[str, Any]:
        """Returns this as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, plain: object) -> Provenance:
        """Returns what `to_plain` has written.

        Raises:
            CheckpointError: these are not values of `to_plain`.
        """
        try:
            if not isinstance(plain, Mapping):
                raise TypeError(f"a {type(plain).__name__} is no provenance")
            anchors = plain.get("anchors")  # earlier versions wrote none
            return cls(
                data=DataFacts.from_plain(plain["data"]),
                source=str(plain["source"]),
                packages={str(name): str(release) for name, release in plain["packages"].items()},
                device=str(plain["device"]),
                anchors=None if anchors is None else DataFacts.from_plain(anchors),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"this is no provenance of this version: {error!r}") from error


def origin_here(device: torch.device, source: str) -> dict[str, str]:
    """Returns what computes on a device in this process; see `Provenance.origin`.

    Args:
        device: what computes.
        source: digest of the source that this process has loaded.
    """
    return {"source": source, "device": _named(device), **_packages()}


def changed_origin(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Returns a phrase, with both values, for all that is not as it was and may change numbers."""
    missing = "not there"
    return [
        f"{name} was {_shown(then.get(name, missing))} and is {_shown(now.get(name, missing))}"
        for name in dict.fromkeys([*then, *now])
        if then.get(name) != now.get(name)
    ]


def check_same_images(then: DataFacts, now: DataFacts, *, of: str, instead: str) -> None:
    """Checks that a data set is the one that something was made with.

    Args:
        then: the data set that it was made with.
        now: the data set that is there.
        of: what was made, for the message.
        instead: what the user can do if he wants the present images.

    Raises:
        DataError: it is not; the message has both values of all that differs.
    """
    found = then.differences(now)
    if found:
        raise DataError(
            f"the images are not those of {of}: {'; '.join(found)}. Put the images back, or {instead}"
        )


def _packages() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("dogo-fed", *_LIBRARIES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _named(device: torch.device) -> str:
    if device.type == "cuda":
        return f"cuda {torch.cuda.get_device_name(device)}"
    return f"{device.type} {platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def _shown(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return one_line(f"[{', '.join(map(str, value))}]", 200)
    return one_line(value, 80) or "empty"
