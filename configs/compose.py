"""From YAML and overrides to a checked, frozen `RunConfig`."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dacite
import yaml
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dogo_fed.config import Host, Placement, RunConfig
from dogo_fed.errors import ConfigError
from dogo_fed.objectives.mutual import Reduction


def compose_run(overrides: Sequence[str] = ()) -> RunConfig:
    """Returns the checked configuration for these overrides, e.g. ["peers=trio", "seed=3"].

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible value.
    """
    try:
        with initialize_config_module(config_module="configs", version_base="1.3"):
            composed = compose(config_name="run", overrides=list(overrides))
    except HydraException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    return from_omegaconf(composed)


def from_omegaconf(composed: DictConfig) -> RunConfig:
    """Returns the checked configuration for what Hydra has composed.

    Raises:
        ConfigError: a wrong type, a missing value, or an impossible one.
    """
    try:
        content = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    assert isinstance(content, dict), "a Hydra configuration is a mapping"
    return from_mapping({str(key): value for key, value in content.items()})


def from_mapping(content: Mapping[str, Any]) -> RunConfig:
    """Returns the checked configuration for a plain nested mapping, such as a run's config.yaml.

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible value; the message names the key.
    """
    try:
        return dacite.from_dict(
            RunConfig,
            dict(content),
            config=dacite.Config(strict=True, type_hooks={float: _whole_as_float, **_ENUM_HOOKS}),
        )
    except dacite.UnexpectedDataError as error:
        keys = ", ".join(sorted(repr(str(key)) for key in error.keys))
        raise ConfigError(f"unknown setting {keys}") from error
    except dacite.MissingValueError as error:
        raise ConfigError(f"the setting {error.field_path!r} is missing") from error
    except dacite.WrongTypeError as error:
        wanted = _type_name(error.field_type)
        raise ConfigError(
            f"{error.field_path} must be {wanted}, not {error.value!r} "
            f"({type(error.value).__name__})"
        ) from error
    except dacite.DaciteError as error:
        raise ConfigError(str(error)) from error


def load_yaml(path: Path) -> RunConfig:
    """Returns the configuration in a run's config.yaml.

    Raises:
        ConfigError: the file is missing, is no YAML, or has settings this version does not know.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration {path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"the configuration {path} is not a mapping of settings")
    return from_mapping(content)


def _whole_as_float(value: object) -> object:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _enum_hook(kind: type[enum.Enum]) -> Any:
    def from_name(value: object) -> object:
        for member in kind:
            if value is member or value == member.value:
                return member
        allowed = ", ".join(str(member.value) for member in kind)
        raise ConfigError(f"{kind.__name__.lower()} must be one of {allowed}, not {value!r}")

    return from_name


_ENUM_HOOKS = {kind: _enum_hook(kind) for kind in (Host, Placement, Reduction)}


def _type_name(wanted: object) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if isinstance(wanted, type):
        return names.get(wanted, wanted.__name__)
    parts = [
        names.get(part, "null" if part is type(None) else str(part))
        for part in getattr(wanted, "__args__", ())
    ]
    return " or ".join(parts) or str(wanted)
