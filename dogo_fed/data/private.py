"""Images that peers have for themselves, and anchors of another kind that all share."""

# N = images, C = channels, H, W = pixels

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dogo_fed.config import DataConfig, RunConfig
from dogo_fed.data.digests import image_digests, stored_side
from dogo_fed.data.held_out import dataset_with_test_part
from dogo_fed.data.source import DataSet, Subset, fingerprint_of_part
from dogo_fed.errors import ConfigError, DataError

_FEWEST = 2
_SETTING_OF_DATA = re.compile(r"(?<![\w./])data(\.options\.|=)")


@dataclass(frozen=True, slots=True)
class _Shared:
    """The images that private ones are held against.

    Attributes:
        digests: of their pixels.
        side: at which the digests were taken.
        what: what a private image that is one of them is, for messages.
    """

    digests: frozenset[bytes]
    side: int
    what: str


def private_images(
    settings: Mapping[str, DataConfig],
    anchors: DataSet,
    test_share: float,
    drawn_from: str | None = None,
) -> dict[str, DataSet]:
    """Returns peers' private images, without those that are anchors too.

    In training such an image would count twice. In a test part it would have been trained on. Where
    anchors are drawn from a data set, all images of that one are left out: so which ones are left
    does not depend on the seed. Files that are stored at another side than the anchors are decoded
    once more at that side, to be compared.

    Args:
        settings: name the data sets, by the names of the peers.
        anchors: what all peers share, or the data set that it is drawn from.
        test_share: how much is held out if there are no test images.
        drawn_from: the setting that names the data set that anchors are drawn from; None if all of it
            is anchors.

    Raises:
        ConfigError: the images are not of the anchors' size or channels, or too few are left of the
            training or the test images.
        DataError: a data set is missing or broken.
    """
    if not settings:
        return {}
    what = "are anchors too"
    if drawn_from is not None:
        what = f"are in {drawn_from}, of which the anchors are drawn"
    side = stored_side(anchors.train)
    shared = _Shared(frozenset(image_digests(anchors.train, side, "the anchors")), side, what)
    found = {}
    for peer, data in settings.items():
        own = _of_peer(peer, data, anchors, test_share)
        compared = _as_stored(own, data, anchors, test_share)
        mine = stored_side(own.train)
        if mine != side:
            note = (
                f"they are stored at {mine} pixels a side and the anchors at {side}, so passes see both "
                f"at {own.image_size}, and crops of them are coarser; name the same "
                f"peers.{peer}.data.options.stored_size and data.options.stored_size if you can"
            )
            own = dataclasses.replace(own, notes=(*own.notes, note))
        found[peer] = _without_anchors(peer, own, compared, shared)
    return found


def set_of_anchors(config: RunConfig) -> str | None:
    """Returns the setting whose data set anchors are drawn from; None if all of `data` is anchors."""
    if not config.partition.is_private:
        return None
    return "data" if config.partition.anchors_from is None else "partition.anchors_from"


def other_anchors(config: RunConfig, private: DataSet) -> DataSet | None:
    """Returns the data set that the anchors of a partition are drawn from, if it is not `private`.

    Images that are in both are left out of it: in training such an image would count twice, and one
    of the test images would have been trained on.

    Args:
        config: the run.
        private: what is cut into private images.

    Raises:
        ConfigError: the images are not of the same size or channels, or fewer than two are left.
        DataError: the data set is missing or broken.
    """
    settings, share = config.partition.anchors_from, config.eval.test_share
    if settings is None:
        return None
    where = "partition.anchors_from"
    anchors = _loaded(where, settings, share)
    _check_alike(where, "the anchors", anchors, "the private images", private)
    compared = _as_stored(anchors, settings, private, share)
    if compared is None:
        note = (
            f"the images of {where} are stored at another size than those of data, so images that are "
            f"in both are not found; name the same data.options.stored_size and "
            f"{where}.options.stored_size if you can"
        )
        return dataclasses.replace(anchors, notes=(*anchors.notes, note))
    side = stored_side(private.train)
    known = frozenset(
        digest
        for source in (private.train, private.test)
        for digest in image_digests(source, side, "data")
    )
    digests = image_digests(compared.train, side, where)
    kept_N = _rows_without(digests, known)
    if len(kept_N) == len(digests):
        return anchors
    if len(kept_N) < _FEWEST:
        raise ConfigError(
            f"of the {len(digests)} images of {where}={settings.name}, {len(digests) - len(kept_N)} are "
            f"in data too, so {len(kept_N)} are left; leave out {where}, and anchors are drawn from data"
        )
    note = (
        f"{len(digests) - len(kept_N)} of {len(digests)} images of {where} are in data too, and are no "
        "anchors"
    )
    return dataclasses.replace(
        anchors,
        train=Subset(anchors.train, kept_N),
        fingerprint=fingerprint_of_part(anchors.fingerprint, kept_N),
        notes=(*anchors.notes, note),
    )


def _of_peer(peer: str, settings: DataConfig, anchors: DataSet, test_share: float) -> DataSet:
    """Returns a peer's data set as it is; it goes into one pass with the anchors."""
    where = f"peers.{peer}.data"
    dataset = _loaded(where, settings, test_share)
    _check_alike(where, f"the private images of peer {peer!r}", dataset, "the anchors", anchors)
    return dataset


def _loaded(where: str, settings: DataConfig, test_share: float) -> DataSet:
    """Returns a data set; what an error advises to type is about `where`, and not about `data`."""
    try:
        return dataset_with_test_part(settings, test_share)
    except (ConfigError, DataError) as error:
        advice = _SETTING_OF_DATA.sub(rf"{where}\1", str(error))
        kind = ConfigError if isinstance(error, ConfigError) else DataError
        raise kind(f"{where}: {advice}") from error


def _check_alike(where: str, what: str, mine: DataSet, others: str, theirs: DataSet) -> None:
    """Raises ConfigError if images of two data sets do not go into one pass.

    `where` is the setting that names `mine`; `what` and `others` are what the two are, for the message.
    """
    have, wanted = (
        {"channels": len(data.mean), "image_size": data.image_size} for data in (mine, theirs)
    )
    typed = [
        f"{where}.options.{option}={value}"
        for option, value in wanted.items()
        if have[option] != value
    ]
    if typed:
        first, second = (
            f"{one['channels']} x {one['image_size']} x {one['image_size']}"
            for one in (have, wanted)
        )
        raise ConfigError(
            f"{what} are {first} (channels, height, width), but {others} are {second}; both go into one "
            f"pass, so make them alike, e.g. by {' '.join(typed)}"
        )


def _as_stored(
    dataset: DataSet, settings: DataConfig, others: DataSet, test_share: float
) -> DataSet | None:
    """Returns a data set with its images stored as the others are; None if they can't be.

    The same file has other pixels at another side, so its digest would not be found.
    """
    side = stored_side(others.train)
    if side == stored_side(dataset.train):
        return dataset
    options = {**settings.options, "stored_size": side}
    try:
        again = dataset_with_test_part(dataclasses.replace(settings, options=options), test_share)
    except ConfigError:  # the loader has no such setting, or the side is below that of the views
        return None
    return again if stored_side(again.train) == side else None


def _without_anchors(
    peer: str, dataset: DataSet, compared: DataSet | None, shared: _Shared
) -> DataSet:
    """Returns a peer's data set without the images that are shared.

    Args:
        peer: whose.
        dataset: the images.
        compared: the same images as the anchors are stored; None if they can't be compared.
        shared: what is left out.
    """
    if compared is None:
        note = (
            f"the private images of peer {peer} are stored at another size than the anchors, so images "
            "that are in both are not found; name the same data.options.stored_size and "
            f"peers.{peer}.data.options.stored_size if you can"
        )
        return dataclasses.replace(dataset, notes=(*dataset.notes, note))
    train_N, left_train = _no_anchors(peer, compared, "training", shared)
    test_N, left_test = _no_anchors(peer, compared, "test", shared)
    changes: dict[str, Any] = {}
    if left_train:
        changes["train"] = Subset(dataset.train, train_N)
        changes["fingerprint"] = fingerprint_of_part(dataset.fingerprint, train_N)
    if left_test:
        changes["test"] = Subset(dataset.test, test_N)
        changes["test_fingerprint"] = fingerprint_of_part(dataset.test_fingerprint, test_N)
    if not changes:
        return dataset
    found = [
        f"{left} of {len(of)} {kind} images"
        for left, of, kind in (
            (left_train, dataset.train, "training"),
            (left_test, dataset.test, "test"),
        )
        if left
    ]
    note = (
        f"{' and '.join(found)} of peer {peer} {shared.what}, and are left out of its private ones"
    )
    return dataclasses.replace(dataset, notes=(*dataset.notes, note), **changes)


def _no_anchors(
    peer: str, dataset: DataSet, kind: str, shared: _Shared
) -> tuple[torch.Tensor, int]:
    """Returns the rows of the images that are no anchors, and the number of the others.

    Raises:
        ConfigError: fewer are left than are needed.
    """
    is_training = kind == "training"
    source = dataset.train if is_training else dataset.test
    fewest = _FEWEST if is_training else min(1, len(source))
    digests = image_digests(source, shared.side, f"the private {kind} images of peer {peer}")
    kept_N = _rows_without(digests, shared.digests)
    num_left_out = len(digests) - len(kept_N)
    if len(kept_N) < fewest:
        raise ConfigError(
            f"of the {len(digests)} private {kind} images of peer {peer!r}, {num_left_out} {shared.what}, "
            f"so {len(kept_N)} are left; it needs at least {fewest}"
        )
    return kept_N, num_left_out


def _rows_without(digests: Sequence[bytes], known: frozenset[bytes]) -> torch.Tensor:
    """Returns the rows whose digest is not known: int64."""
    kept = [row for row, digest in enumerate(digests) if digest not in known]
    return torch.tensor(kept, dtype=torch.int64)
