"""Transfer: a probe trained and tested on another data set, with the same frozen encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dogo_fed.config import DataConfig, EvalConfig
from dogo_fed.contracts import Score
from dogo_fed.data.held_out import dataset_with_test_part
from dogo_fed.data.kin import check_split, split_alike
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.evaluation.protocols.probing import check_accuracy, probe_score
from dogo_fed.evaluation.subject import Subject

_NAME = "ood"


def ood(
    subject: Subject, *, targets: Sequence[str | Mapping[str, object] | DataSet] = ()
) -> list[Score]:
    """Returns a score per target data set.

    Images are resized to what the encoder expects (bilinear, antialiased), grey ones get equal
    channels, and they are normalised with the constants of the encoder's own data set.

    Args:
        subject: the encoder, on any data set; only the encoder is used.
        targets: data sets by name, by {name: ..., options: {...}}, or as a `DataSet`. Empty takes
            the subject's data set.

    Raises:
        ConfigError: there is no target, or it is what the encoder was trained on.
        DataError: a target is missing or broken, or no accuracy can be counted on it.
    """
    if isinstance(targets, str | Mapping) or not isinstance(targets, Sequence):
        raise ConfigError(f"targets must be a list of data sets, not {targets!r}")
    datasets = [_load(target) for target in targets] or [subject.dataset]
    titles = [dataset.title for dataset in datasets]
    if len(set(titles)) != len(titles):
        raise ConfigError(
            f"two targets have the same name: {', '.join(titles)}; rename one, or evaluate on them one "
            "after the other"
        )
    for dataset in datasets:
        if dataset.fingerprint == subject.encoder.trained_on:
            raise ConfigError(
                f"{dataset.title} is what the encoder was trained on; name another data set by data=... "
                "or protocol.ood.targets=[...]"
            )
    subjects = [subject.on(dataset) for dataset in datasets]
    for there in subjects:
        check_accuracy(there.dataset)
        there.tell_if_enlarged()
    return [
        probe_score(
            there,
            there.probe_train,
            protocol=_NAME,
            condition=there.dataset.title,
            stream=there.dataset.name,
        )
        for there in subjects
    ]


def with_targets(
    protocol: str, options: Mapping[str, object], home: DataConfig
) -> dict[str, object]:
    """Returns the options of a protocol for encoders that were trained on `home`.

    This protocol gets a target if none is named and `home` has kin. Others keep their options.

    Args:
        protocol: by name.
        options: as they were given.
        home: what the encoders were trained on.

    Raises:
        ConfigError: the test images of a target are training images of `home`.
    """
    if protocol != _NAME:
        return dict(options)
    given = options.get("targets") or ()
    if not given:
        usual = split_alike(home)
        return dict(options) if usual is None else {**options, "targets": [usual]}
    for target in given if isinstance(given, Sequence) else [given]:
        if isinstance(target, str):
            check_split(home, target, {})
        elif isinstance(target, Mapping):
            check_split(home, str(target.get("name")), target.get("options") or {})
    return dict(options)


def with_loaded_targets(protocol: str, options: Mapping[str, object]) -> dict[str, object]:
    """Returns the options with data sets in place of their descriptions; other protocols keep theirs.

    Raises:
        ConfigError: a target is not described as `ood` says.
        DataError: a target is missing or broken.
    """
    targets = options.get("targets")
    if protocol != _NAME or not isinstance(targets, Sequence) or isinstance(targets, str):
        return dict(options)  # what is no list is told by the protocol itself
    return {**options, "targets": [_load(target) for target in targets]}


def _load(target: str | Mapping[str, object] | DataSet) -> DataSet:
    """Returns the data set that a target stands for."""
    if isinstance(target, DataSet):
        return target
    if isinstance(target, str):
        return _built(target, {})
    name, options = target.get("name"), target.get("options") or {}
    if not isinstance(name, str) or not isinstance(options, Mapping):
        raise ConfigError(
            f"a target is a data set's name or {{name: ..., options: {{...}}}}, not {dict(target)}"
        )
    return _built(name, options)


def _built(name: str, options: Mapping[str, object]) -> DataSet:
    try:
        settings = DataConfig(name=name, options=options)
        return dataset_with_test_part(settings, EvalConfig().test_share)
    except DataError as error:
        place = "; options of a target are typed as "
        place += f"'protocol.ood.targets=[{{name: {name}, options: {{<option>: <value>}}}}]'"
        advises = "data.options." in str(error)
        raise DataError(f"target {name}: {error}{place if advises else ''}") from error
