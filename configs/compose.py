"""Composes the YAML tree and overrides into a checked `RunConfig`, by Hydra."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping
from dogo_fed.errors import ConfigError


def compose_run(overrides: Sequence[str] = ()) -> RunConfig:
    """Returns the checked configuration for these overrides, e.g. ["peers=trio", "seed=3"].

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible value.
    """
    return from_omegaconf(compose_named("run", overrides))


def compose_named(name: str, overrides: Sequence[str]) -> DictConfig:
    """Returns what Hydra composes from configs/<name>.yaml and these overrides.

    Raises:
        ConfigError: an unknown key or group.
    """
    try:
        with initialize_config_module(config_module="configs", version_base="1.3"):
            return compose(config_name=name, overrides=list(overrides))
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from error


def check_overrides(arguments: Sequence[str]) -> None:
    """Checks a command line before Hydra reads it, because Hydra's messages are long or tracebacks.

    With a flag (--help, --cfg, -m) nothing is checked: Hydra only prints something, or there are
    several configurations.

    Raises:
        ConfigError: see `compose_run`.
    """
    if not any(argument.startswith("-") for argument in arguments):
        compose_run(arguments)


def from_omegaconf(composed: DictConfig) -> RunConfig:
    """Returns the checked configuration that Hydra has composed.

    Raises:
        ConfigError: a wrong type, a missing value, or an impossible one.
    """
    try:
        content = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    assert isinstance(content, dict), "a Hydra configuration is a mapping"
    return from_mapping({str(key): value for key, value in content.items()})
