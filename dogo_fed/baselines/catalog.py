"""The baselines by name."""

from __future__ import annotations

from collections.abc import Sequence

from dogo_fed import components
from dogo_fed.baselines.base import Baseline
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.errors import ConfigError

BASELINES = {
    "fccl": "dogo_fed.baselines.fccl:FCCL",
    "fedavg": "dogo_fed.baselines.fedavg:FedAvg",
    "fedx": "dogo_fed.baselines.fedx:FedX",
    "flesd": "dogo_fed.baselines.flesd:FLESD",
}


def make_baseline(run: LoadedRun, peers: Sequence[Peer]) -> Baseline:
    """Returns the method that the run's settings name.

    Args:
        run: its settings and data.
        peers: all of them, in name order.

    Raises:
        ConfigError: there is no such method, an option is wrong, or the peers do not go with it.
    """
    settings = run.config.baseline
    assert settings is not None, "asked only where there is one"
    _check_name(settings.name)
    made = components.build(
        "baseline", settings.name, BASELINES, settings.options, run=run, peers=tuple(peers)
    )
    assert isinstance(made, Baseline)
    return made


def baseline_class(name: str) -> type[Baseline]:
    """Returns the class of the method with this name; its module is imported only now.

    Raises:
        ConfigError: there is no such method.
    """
    _check_name(name)
    found = components.resolve("baseline", name, BASELINES)
    assert isinstance(found, type) and issubclass(found, Baseline)
    return found


def _check_name(name: str) -> None:
    if name not in BASELINES:
        raise ConfigError(
            f"there is no baseline {name!r}; there are {', '.join(sorted(BASELINES))}"
        )
