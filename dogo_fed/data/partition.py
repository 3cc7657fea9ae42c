"""Cuts one data set into anchors, which all peers share, and private images for each of them.

For the laboratory: several sites on one machine. Every process makes the same cut from the data set
and the seed, so nothing about it has to be sent.
"""

# N = images, P = peers, G = groups of images, dealt out one by one

from __future__ import annotations

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from dogo_fed import seeding
from dogo_fed.config import PartitionConfig, PartitionKind
from dogo_fed.data.source import DataSet, ImageSource, Subset, fingerprint_of_part
from dogo_fed.errors import ConfigError

IntArray: TypeAlias = npt.NDArray[np.int64]
FloatArray: TypeAlias = npt.NDArray[np.float64]

_MOST_DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Cut:
    """A data set in parts. Mean and deviation of all parts are those of what they are parts of.

    Attributes:
        anchors: what all peers share; with all test images of the data set that they are from.
        private: what each peer has for itself; its test images have its classes in its proportions.
        anchors_from: the data set that the anchors are drawn from, where it is another one than the
            private images are from.
    """

    anchors: DataSet
    private: Mapping[str, DataSet]
    anchors_from: DataSet | None = None

    def to_csv(self) -> str:
        """Returns a table with a row for each part: its images, and how many of each class.

        The classes are those of the private images. Anchors with others have none in the table.
        """
        whose = next(iter(self.private.values()), self.anchors)
        text, classes = io.StringIO(), range(whose.num_classes)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["part", "images", "test_images", *(f"class_{label}" for label in classes)])
        for name, part in [("anchors", self.anchors), *sorted(self.private.items())]:
            counts = Counter(part.train.labels.tolist())
            has_others = part is self.anchors and self.anchors_from is not None
            of_each = ["" if has_others else counts[label] for label in classes]
            writer.writerow([name, len(part.train), len(part.test), *of_each])
        return text.getvalue()


def cut(
    dataset: DataSet,
    peers: Iterable[str],
    settings: PartitionConfig,
    seed: int,
    anchors_from: DataSet | None = None,
) -> Cut:
    """Returns the parts of a data set.

    Args:
        dataset: the whole.
        peers: the names of those that get private images.
        settings: how it is cut; its kind must not be "shared".
        seed: the run's seed; the same gives the same cut.
        anchors_from: another data set, of which the anchors are drawn; all of `dataset` is private
            then.

    Raises:
        ConfigError: there are too few images, or the cut is by class and an image has none.
    """
    names, number = sorted(peers), len(dataset.train)
    source = dataset if anchors_from is None else anchors_from
    order = seeding.generator(seed, "partition", "anchors")
    shuffled = torch.randperm(len(source.train), generator=order).numpy()
    num_anchors = round(settings.anchors * len(source.train))
    rest = number - num_anchors if anchors_from is None else number
    if num_anchors < 2 or rest < settings.least_images * len(names):
        raise ConfigError(
            f"partition.anchors={settings.anchors:g} leaves {num_anchors} anchors and {rest} private "
            f"images of {number} for {len(names)} peers, each of which is to get at least "
            f"{settings.least_images} (partition.least_images)"
        )
    anchors, left = np.sort(shuffled[:num_anchors]), np.sort(shuffled[num_anchors:])
    others = left if anchors_from is None else np.arange(number)
    train_groups = _groups(dataset, dataset.train, settings)[others]
    shares_GP = _shares(dataset, len(names), settings, seed, train_groups)
    private_ids = _dealt(others, train_groups, shares_GP, seed, "train")
    test_groups = _groups(dataset, dataset.test, settings)
    test_ids = _dealt(np.arange(len(test_groups)), test_groups, shares_GP, seed, "test")
    private = {
        name: _part(dataset, name, train_ids_N, test_ids_N)
        for name, train_ids_N, test_ids_N in zip(names, private_ids, test_ids, strict=True)
    }
    shared = _part(source, "anchors", anchors, None)
    if anchors_from is not None:
        shared = dataclasses.replace(shared, notes=anchors_from.notes)
    return Cut(shared, private, anchors_from)


def _groups(dataset: DataSet, source: ImageSource, settings: PartitionConfig) -> IntArray:
    """Returns the group of every image; images of a group are dealt out by the same shares.

    The groups are the classes; where classes do not matter, all images are of one.

    Raises:
        ConfigError: an image has no class, and the cut is by class.
    """
    if settings.kind is PartitionKind.IID:
        return np.zeros(len(source), dtype=np.int64)
    labels_N: IntArray = source.labels.numpy()
    if len(labels_N) and labels_N.min() < 0:
        raise ConfigError(
            f"partition={settings.kind.value} cuts by class, but {int((labels_N < 0).sum())} images of "
            f"{dataset.title} have none; partition=iid needs no classes"
        )
    return labels_N


def _shares(
    dataset: DataSet,
    num_peers: int,
    settings: PartitionConfig,
    seed: int,
    groups_N: IntArray,
) -> FloatArray:
    """Returns which share of each group each peer gets, G x P.

    Raises:
        ConfigError: no draw gives every peer as many images as asked for, or there are fewer classes
            than each peer is to have.
    """
    draws = np.random.Generator(np.random.PCG64(seeding.derive_seed(seed, "partition", "shares")))
    if settings.kind is PartitionKind.IID:
        return np.full((1, num_peers), 1.0 / num_peers)
    tries: Iterator[FloatArray]
    if settings.kind is PartitionKind.CLASSES:
        tries = iter([_some_classes(dataset, num_peers, settings, draws)])
    else:
        alphas = [settings.alpha] * num_peers
        tries = (draws.dirichlet(alphas, dataset.num_classes) for _ in range(_MOST_DRAWS))
    sizes_G = np.bincount(groups_N, minlength=dataset.num_classes)
    for shares_GP in tries:
        if _sizes(sizes_G, shares_GP).sum(axis=0).min() >= settings.least_images:
            return shares_GP
    raise ConfigError(
        f"partition={settings.kind.value} gives some peer fewer than {settings.least_images} of "
        f"{len(groups_N)} images (partition.least_images); lower that, or raise partition.alpha or "
        "partition.classes_per_peer"
    )


def _some_classes(
    dataset: DataSet, num_peers: int, settings: PartitionConfig, draws: np.random.Generator
) -> FloatArray:
    """Returns the shares if each peer has the next few classes of a shuffled row, round and round."""
    number, each = dataset.num_classes, settings.classes_per_peer
    if each > number:
        raise ConfigError(
            f"partition.classes_per_peer={each} is more than the {number} classes of {dataset.title}"
        )
    row = draws.permutation(number)
    has_GP = np.zeros((number, num_peers))
    for peer in range(num_peers):
        has_GP[row[(peer * each + np.arange(each)) % number], peer] = 1.0
    has_GP /= np.maximum(has_GP.sum(axis=1, keepdims=True), 1.0)
    return has_GP


def _sizes(sizes_G: IntArray, shares_GP: FloatArray) -> IntArray:
    """Returns how many images of each group each peer gets, G x P; rounded so that all are dealt."""
    ends_GP = np.rint(np.cumsum(shares_GP, axis=1) * sizes_G[:, None]).astype(np.int64)
    return np.diff(ends_GP, axis=1, prepend=0)


def _dealt(
    ids_N: IntArray, groups_N: IntArray, shares_GP: FloatArray, seed: int, of: str
) -> list[IntArray]:
    """Returns the sorted ids of each peer's images."""
    sizes_GP = _sizes(np.bincount(groups_N, minlength=len(shares_GP)), shares_GP)
    draws = seeding.generator(seed, "partition", of)
    parts: list[list[IntArray]] = [[] for _ in range(shares_GP.shape[1])]
    for group, sizes_P in enumerate(sizes_GP):
        members = ids_N[groups_N == group]
        members = members[torch.randperm(len(members), generator=draws).numpy()]
        for part, dealt in zip(parts, np.split(members, np.cumsum(sizes_P))[:-1], strict=True):
            part.append(dealt)
    return [np.sort(np.concatenate(part)) for part in parts]


def _part(dataset: DataSet, name: str, train_N: IntArray, test_N: IntArray | None) -> DataSet:
    """Returns some images of a data set; all test images if none are named."""
    changes: dict[str, Any] = {}
    if test_N is not None:
        test_ids_N = torch.from_numpy(test_N)
        changes["test"] = Subset(dataset.test, test_ids_N)
        changes["test_fingerprint"] = fingerprint_of_part(dataset.test_fingerprint, test_ids_N)
    train_ids_N = torch.from_numpy(train_N)
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}:{name}",
        title=f"{dataset.title}:{name}",
        train=Subset(dataset.train, train_ids_N),
        fingerprint=fingerprint_of_part(dataset.fingerprint, train_ids_N),
        notes=(),
        **changes,
    )
