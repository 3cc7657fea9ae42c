"""What every process of a run must agree on, as named values that can be compared and told apart.

A peer sends its agreement when it joins; the coordinator compares it with its own and refuses with
the names and both values of what differs. Each peer's own settings (backbone, objective,
augmentation, optimizer, weights) are not part of it: they are the peer's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from operator import attrgetter
from typing import TYPE_CHECKING

from dogo_fed.contracts import PROTOCOL_VERSION
from dogo_fed.packages import source_digest

if TYPE_CHECKING:
    from dogo_fed.config import RunConfig
    from dogo_fed.data.source import DataSet

_SHARED_SETTINGS = (
    "data.name",
    "data.default_rounds",
    "batch_size",
    "seed",
    "rounds",
    "steps",
    "steps_per_round",
    "exchange.enabled",
    "exchange.symmetric",
    "exchange.every_steps",
    "exchange.deadline_s",
)
"""Settings that must be equal. A data set's options are not among them (its folder may be anywhere):
its fingerprint is."""

_MAX_NAMED_DIFFERENCES = 5


def make_agreement(config: RunConfig, dataset: DataSet) -> dict[str, str]:
    """Returns the named values that all processes of a run must share."""
    settings = {key: str(attrgetter(key)(config)) for key in _SHARED_SETTINGS}
    settings["peers"] = ",".join(sorted(config.peers))
    settings["exchange.graph"] = _graph_text(config.exchange.graph)
    joined = "\n".join(f"{key}={settings[key]}" for key in sorted(settings))
    return {
        "protocol_version": str(PROTOCOL_VERSION),
        "source_digest": source_digest(),
        "configuration_hash": hashlib.blake2b(joined.encode(), digest_size=16).hexdigest(),
        "data_fingerprint": dataset.fingerprint,
        "data_size": str(len(dataset.train)),
        **{f"config.{key}": value for key, value in settings.items()},
    }


def differences(
    mine: Mapping[str, str], theirs: Mapping[str, str], *, my_name: str, their_name: str
) -> list[str]:
    """Returns one phrase for each value that differs, the telling ones first; empty if none does."""
    keys = [key for key in sorted({*mine, *theirs}) if mine.get(key) != theirs.get(key)]
    if any(key.startswith("config.") for key in keys):
        keys = [key for key in keys if key != "configuration_hash"]
    phrases = [
        f"{key.removeprefix('config.')} is {_shown(theirs.get(key))} at {their_name} and "
        f"{_shown(mine.get(key))} at {my_name}"
        for key in keys
    ]
    if len(phrases) > _MAX_NAMED_DIFFERENCES:
        left_out = len(phrases) - _MAX_NAMED_DIFFERENCES
        phrases = [*phrases[:_MAX_NAMED_DIFFERENCES], f"and {left_out} more differ"]
    return phrases


def _graph_text(graph: Mapping[str, Mapping[str, float]] | None) -> str:
    """Returns the same text for the same graph, whatever the order it was written in."""
    if graph is None:
        return "None"
    edges = [(learner, *edge) for learner in graph for edge in graph[learner].items()]
    return ",".join(
        f"{learner}<-{teacher}:{weight!r}" for learner, teacher, weight in sorted(edges)
    )


def _shown(value: str | None) -> str:
    return "missing" if value is None else value if len(value) <= 80 else value[:77] + "..."
