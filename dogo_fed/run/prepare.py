"""The checks before a run starts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from dogo_fed.config import Host, RunConfig
from dogo_fed.data.labels import num_labelled, why_no_accuracy
from dogo_fed.data.source import DataSet
from dogo_fed.engine.build import resolve_device
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from dogo_fed.errors import ConfigError


def notes_of(run: LoadedRun) -> tuple[str, ...]:
    """Returns what a user should know about the images of a run, a sentence each."""
    data = run.data.evaluated
    reason = why_no_accuracy(data)
    if reason is None:
        return data.notes
    return (
        *data.notes,
        f"no kNN and no linear probe: {reason}; the health of the features is told",
    )


def prepare(
    config: RunConfig,
    *,
    dataset: DataSet | None = None,
    backbones: Mapping[str, nn.Module] | None = None,
) -> LoadedRun:
    """Loads the data set and checks that every peer can be built.

    Args:
        config: the run.
        dataset: in place of the one that `config.data` names.
        backbones: peer name to a module in place of the one that the peer's settings name.

    Raises:
        ConfigError: a setting is impossible, alone or with this data set.
        DataError: the data set is missing or broken.
    """
    backbones = dict(backbones or {})
    strangers = sorted(set(backbones) - set(config.peers))
    if strangers:
        raise ConfigError(
            f"there is a backbone for {strangers[0]!r}, but no such peer; the peers are "
            f"{', '.join(config.peers)}"
        )
    run = load_run(config, dataset, backbones)
    _check_neighbours(run)
    if config.host in (Host.LOCAL, Host.PROCESSES):  # elsewhere, each peer's own node decides
        resolve_device(config.device)
    for peer_id in run.peer_ids:
        run.build_peer(peer_id, resolve_device("cpu"))
    return run


def _check_neighbours(run: LoadedRun) -> None:
    """Raises ConfigError if kNN asks for more neighbours than there are."""
    k, number = run.config.eval.knn_k, num_labelled(run.data.evaluated.train.labels)
    if k is not None and k > number and why_no_accuracy(run.data.evaluated) is None:
        raise ConfigError(
            f"eval.knn_k={k} neighbours are more than the {number} labelled training images of "
            f"{run.config.data.name}; leave it out, or set it to at most {number}"
        )
