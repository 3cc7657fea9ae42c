"""What every process of a run must agree on, as named values that can be compared and told apart.

A peer sends its agreement when it joins; the coordinator compares it with its own and refuses with
the names and both values of what differs. Each peer's own settings (backbone, objective,
augmentation, optimizer, weights) are not part of it: they are the peer's business.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from dogo_fed.contracts import PROTOCOL_VERSION
from dogo_fed.errors import ConfigError

if TYPE_CHECKING:
    from dogo_fed.config import RunConfig
    from dogo_fed.data.source import DataSet

_SOURCE_PACKAGES = ("dogo_fed", "server", "clients", "configs")
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


def source_digest() -> str:
    """Returns a digest over the source of all our packages: Python and YAML files, by name and content."""
    hasher = hashlib.blake2b(digest_size=16)
    for package in _SOURCE_PACKAGES:
        root = package_folder(package)
        for path in sorted(root.rglob("*"), key=lambda path: path.relative_to(root).as_posix()):
            if path.suffix in (".py", ".yaml"):
                name = f"{package}/{path.relative_to(root).as_posix()}".encode()
                content = path.read_bytes()
                hasher.update(len(name).to_bytes(4, "little") + name)
                hasher.update(len(content).to_bytes(8, "little") + content)
    return hasher.hexdigest()


def package_folder(package: str) -> Path:
    """Returns the folder that `package` is imported from; does not import it.

    Raises:
        ConfigError: there is no such package.
    """
    spec = find_spec(package)
    locations = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not locations:
        raise ConfigError(f"package {package!r} can't be found; is dogo-fed installed?")
    return Path(locations[0]).resolve()


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
