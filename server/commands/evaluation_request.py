"""Reads the overrides of `dogo-fed evaluate` into a checked request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.compose import compose_named
from configs.shorthand import EVALUATION_WORDS
from dogo_fed import components
from dogo_fed.config import ComponentConfig, DataConfig
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.protocols import PROTOCOLS, check_protocol
from dogo_fed.plain import from_plain

_LISTS = {"protocol": "protocol", "peer": "peer_names"}
"""Keys that take several names on the command line, with the key in evaluate.yaml."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRequest:
    """What to evaluate, on what, and how; the keys are those of evaluate.yaml.

    Attributes:
        protocol: the protocols with their options.
    """

    protocol: Mapping[str, Mapping[str, Any]]
    run: str | None = None
    trust: bool | None = None
    peer_names: list[str] | None = None
    data: DataConfig | None = None
    out: str | None = None
    seed: int | None = None
    device: str | None = None
    threads: int = 1
    checkpoint: str | None = None
    backbone: ComponentConfig | None = None
    prefix: str | None = None
    image_size: int | None = None
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self) -> None:
        """Checks the settings and every protocol's options.

        Raises:
            ConfigError: not exactly one of run and checkpoint is set, a setting of the other one is
                set, checkpoint lacks a setting, a number is below 1, or an option is wrong.
        """
        if (self.run is None) == (self.checkpoint is None):
            raise ConfigError(
                "name what to evaluate: run=<folder of a finished run>, or "
                "checkpoint=<weights file> backbone=<name> data=<name> out=<folder>"
            )
        other, keys = (
            ("checkpoint", ("backbone", "prefix", "image_size", "mean", "std"))
            if self.checkpoint is None
            else ("run", ("peer_names", "trust"))
        )
        for key in keys:
            if getattr(self, key) is not None:
                said = key.removesuffix("_names")
                raise ConfigError(f"{said}=... goes with {other}=..., which is not given")
        for key in ("data", "out") if self.checkpoint is not None else ():
            if getattr(self, key) is None:
                raise ConfigError(f"checkpoint={self.checkpoint} needs {key}=... as well")
        if self.threads < 1 or (self.image_size is not None and self.image_size < 1):
            raise ConfigError("threads and image_size must be at least 1")
        if not self.protocol:
            raise ConfigError(f"name a protocol: protocol={','.join(PROTOCOLS)}")
        for name, options in self.protocol.items():
            check_protocol(name, options)


def as_lists(arguments: Sequence[str]) -> list[str]:
    """Returns the command line with protocol=a,b and peer=a,b as lists, as Hydra wants them.

    The key of `peer` changes, because Hydra has a config group of that name.

    Raises:
        ConfigError: there is no such protocol; the message names close matches.
    """
    changed = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in _LISTS:
            names = [name.strip() for name in value.strip("[]'\" ").split(",")]
            names = list(dict.fromkeys(name for name in names if name))
            if key == "protocol":
                _check_known(names)
            argument = f"{_LISTS[key]}=[{','.join(names)}]"
        changed.append(argument)
    return changed


def _check_known(names: Sequence[str]) -> None:
    """Raises ConfigError if a protocol has no short name."""
    for name in names:
        components.resolve("protocol", name, PROTOCOLS)
        if name not in PROTOCOLS:
            raise ConfigError(
                f"protocol {name!r}: on the command line, only {', '.join(PROTOCOLS)}; your own by "
                "its import path from Python, dogo_fed.run.evaluate.evaluate_run"
            )


def check_evaluation(arguments: Sequence[str]) -> None:
    """Checks a command line before Hydra sees it; see `configs.compose.check_overrides`.

    Raises:
        ConfigError: these overrides are not a possible request.
    """
    if not any(argument.startswith("-") for argument in arguments):
        compose_evaluation(arguments)


def compose_evaluation(overrides: Sequence[str] = ()) -> EvaluationRequest:
    """Returns the checked request for these overrides, e.g. ["run=runs/first", "protocol=[knn]"].

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible value.
    """
    return request_from_omegaconf(compose_named("evaluate", overrides, EVALUATION_WORDS))


def request_from_omegaconf(composed: DictConfig) -> EvaluationRequest:
    """Returns the checked request that Hydra has composed.

    Raises:
        ConfigError: see `compose_evaluation`.
    """
    try:
        content = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return from_plain(EvaluationRequest, content)
