"""Runs for the benchmarks, made without Hydra: peers by the name of their set, and overrides.

An override is `key=value` with the path of one setting, such as `exchange.encoding=float16` or
`peers.wide.distill_weight=0`. `data=NAME` and the like name a component; its options are then the
defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml

from dogo_fed.components import close_matches
from dogo_fed.config import (
    PUBLISHED_DISTILL_WEIGHT,
    ComponentConfig,
    DataConfig,
    EvalConfig,
    ExchangeConfig,
    Host,
    OptimizerConfig,
    PeerConfig,
    RecoveryConfig,
    RunConfig,
)
from dogo_fed.config_text import from_mapping, to_mapping
from dogo_fed.errors import ConfigError

MANY_STEPS = 1_000_000
"""Steps of a run that a benchmark leaves before its end."""
PATIENCE_S = 3600.0
"""Contestants take turns, so a peer may wait for its next one; nobody is to be lost meanwhile."""


def component(name: str, **options: object) -> ComponentConfig:
    """Returns something that is built by name."""
    return ComponentConfig(name=name, options=options)


def simclr_peer(
    backbone: ComponentConfig,
    *,
    augmentation: str = "simclr",
    lr: float = 3e-4,
    distill_weight: float = PUBLISHED_DISTILL_WEIGHT,
) -> PeerConfig:
    """Returns a peer that learns by SimCLR, with the published recipe unless told otherwise."""
    return PeerConfig(
        backbone=backbone,
        objective=component("simclr", temperature=0.5, hidden_dim=512, output_dim=128),
        augmentation=component(augmentation),
        optimizer=OptimizerConfig(name="adam", options={"lr": lr, "weight_decay": 1e-6}),
        distill_weight=distill_weight,
    )


def _pair() -> dict[str, PeerConfig]:
    """Returns the peers of `dogo-fed train` without arguments (configs/peers/pair.yaml)."""
    small = component("resnet10", width=16, stem_stride=2)
    wide = component("wide_resnet", depth=10, width=1, stem_stride=2)
    return {
        "resnet": simclr_peer(small, augmentation="digits", lr=1e-3, distill_weight=1 / 256),
        "wide": simclr_peer(wide, augmentation="digits", lr=1e-3),
    }


def _wide() -> dict[str, PeerConfig]:
    """Returns WRN-10-2 and WRN-16-2."""
    return {
        name: simclr_peer(component("wide_resnet", depth=depth, width=2, stem_stride=1))
        for name, depth in (("one", 10), ("two", 16))
    }


def _resnet18() -> dict[str, PeerConfig]:
    """Returns two ResNet-18."""
    return {
        name: simclr_peer(component("resnet18", width=64, stem_stride=1)) for name in ("one", "two")
    }


def _tiny() -> dict[str, PeerConfig]:
    """Returns two networks that take next to no time."""
    return {name: simclr_peer(component("small_cnn", width=4)) for name in ("one", "two")}


PEERS: Mapping[str, Callable[[], dict[str, PeerConfig]]] = {
    "pair": _pair,
    "wide": _wide,
    "resnet18": _resnet18,
    "tiny": _tiny,
}
"""The sets of peers that a benchmark may name."""


def peers_named(name: str) -> dict[str, PeerConfig]:
    """Returns a set of peers.

    Raises:
        ConfigError: there is no such set.
    """
    if name not in PEERS:
        raise ConfigError(
            f"there are no peers {name!r} for benchmarks; known are {', '.join(PEERS)}"
            f"{close_matches(name, PEERS)}"
        )
    return PEERS[name]()


def run_of_processes(peers: str, steps: int, overrides: Sequence[str] = ()) -> RunConfig:
    """Returns a run on digits_m with a process for each peer, in which nobody evaluates on the way.

    Args:
        peers: a key of `PEERS`.
        steps: its length.
        overrides: changes to its settings, see this module.

    Raises:
        ConfigError: a setting is unknown or impossible.
    """
    config = RunConfig(
        peers=peers_named(peers),
        data=DataConfig(
            name="digits_m",
            options={"train_size": 8000, "test_size": 2000, "seed": 0},
            default_rounds=15,
        ),
        host=Host.PROCESSES,
        batch_size=256,
        steps=steps,
        steps_per_round=steps,
        threads_per_peer=1,
        eval=EvalConfig(linear=False),
        recovery=RecoveryConfig(max_restarts=0),
    )
    return with_overrides(config, overrides)


def steps_alone(
    peers: Mapping[str, PeerConfig], data: DataConfig, *, exchanges: bool = True, **own: Any
) -> RunConfig:
    """Returns a run of peers in one process, of which a benchmark does some steps.

    Args:
        peers: by name.
        data: what they see.
        exchanges: whether they teach each other.
        own: more settings of the run.
    """
    return RunConfig(
        peers=dict(peers),
        data=data,
        host=Host.LOCAL,
        steps=MANY_STEPS,
        steps_per_round=MANY_STEPS,
        exchange=ExchangeConfig(
            enabled=exchanges, deadline_s=PATIENCE_S, join_deadline_s=PATIENCE_S
        ),
        eval=EvalConfig(linear=False),
        **own,
    )


def with_overrides(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """Returns the run with some of its settings changed.

    Raises:
        ConfigError: an override is none, or its setting is unknown or impossible.
    """
    content = to_mapping(config)
    for one in overrides:
        key, equals, text = one.partition("=")
        if not equals:
            raise ConfigError(f"{one!r} is no override; type key=value, e.g. batch_size=128")
        _set(content, key, yaml.safe_load(text))
    return from_mapping(content)


def _set(content: dict[str, Any], key: str, value: object) -> None:
    """Sets one setting in nested mappings."""
    *above, last = key.split(".")
    inner, way = content, ""
    for name in above:
        _check_key(inner, name, key)
        inner, way = inner[name], name
        if not isinstance(inner, dict):
            raise ConfigError(f"there is no setting {key}: {way} has no settings of its own")
    if way != "options":
        _check_key(inner, last, key)
    before = inner.get(last)
    if isinstance(before, dict) and "options" in before and isinstance(value, str):
        value = {**before, "name": value, "options": {}}
    inner[last] = value


def _check_key(content: Mapping[str, Any], name: str, key: str) -> None:
    if name not in content:
        raise ConfigError(f"there is no setting {key}{close_matches(name, content)}")
