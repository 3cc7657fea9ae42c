"""Runs a protocol by name: options checked first, the encoder proven unchanged afterwards."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from dogo_fed import components
from dogo_fed.contracts import Score
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.guard import frozen
from dogo_fed.evaluation.protocols.catalog import NOT_COUNTED, PROTOCOLS
from dogo_fed.evaluation.protocols.limited_labels import amounts_of
from dogo_fed.evaluation.protocols.probing import check_accuracy
from dogo_fed.evaluation.subject import Subject


def protocol_title(protocol: str) -> str:
    """Returns the name that scores and files of a protocol carry: of an import path, the function's."""
    return protocol.rpartition(":")[2].rpartition(".")[2]


def check_protocol(protocol: str, options: Mapping[str, object]) -> None:
    """Checks a protocol's name and the names of its options, before anything is loaded.

    Raises:
        ConfigError: the protocol or an option is unknown; names close matches.
    """
    function = components.resolve("protocol", protocol, PROTOCOLS)
    components.check_options("protocol", protocol, function, options, reserved=("subject",))


def complete_options(protocol: str, options: Mapping[str, object]) -> dict[str, object]:
    """Returns the options with the defaults of those that are not given, for the record.

    Raises:
        ConfigError: see `check_protocol`.
    """
    check_protocol(protocol, options)
    function = components.resolve("protocol", protocol, PROTOCOLS)
    parameters = inspect.signature(function).parameters
    defaults = {
        key: parameter.default
        for key, parameter in parameters.items()
        if parameter.default is not parameter.empty
    }
    return {**defaults, **options}


def check_labels(protocol: str, options: Mapping[str, object], dataset: DataSet) -> None:
    """Asks whether a data set has the labels that a protocol of ours counts; one's own may need none.

    Args:
        protocol: by name.
        options: of the protocol.
        dataset: that of the subject.

    Raises:
        DataError: it has not; says why, and what can be measured.
        ConfigError: it has fewer labels than the options ask for.
    """
    names = [name for name, path in PROTOCOLS.items() if protocol in (name, path)]
    if any(name not in NOT_COUNTED for name in names):
        check_accuracy(dataset)
    if "limited_labels" in names:
        given: dict[str, Any] = dict(options)
        try:
            amounts_of(dataset, **given)
        except ConfigError as error:
            raise ConfigError(f"protocol {protocol!r}: {error}") from error


def evaluate(subject: Subject, protocol: str, options: Mapping[str, object]) -> list[Score]:
    """Returns the scores of an encoder under a protocol.

    Args:
        subject: the encoder on a data set.
        protocol: a key of `PROTOCOLS`, or an import path "package.module:function".
        options: of the protocol.

    Raises:
        ConfigError: the protocol or an option is unknown, or impossible for this data set.
        DataError: no accuracy can be counted on the data set, or the encoder can't take its images.
        EvaluationError: a feature is not finite, or the protocol changed the encoder.
    """
    check_protocol(protocol, options)
    function = components.resolve("protocol", protocol, PROTOCOLS)
    check_labels(protocol, options, subject.dataset)
    with frozen(subject.encoder.backbone):
        try:
            scores = function(subject, **options)
        except ConfigError as error:
            raise ConfigError(f"protocol {protocol!r}: {error}") from error
    if not isinstance(scores, list) or not all(isinstance(score, Score) for score in scores):
        raise ConfigError(f"protocol {protocol!r} must return a list of dogo_fed.contracts.Score")
    return scores
