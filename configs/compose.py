"""From YAML and overrides to a checked, frozen `RunConfig`."""

from __future__ import annotations

import dataclasses
import difflib
import enum
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import dacite
import yaml
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dogo_fed.compare.experiment import Method, Runner
from dogo_fed.config import Host, PeerConfig, Placement, RunConfig, Transport
from dogo_fed.errors import ConfigError
from dogo_fed.objectives.mutual import Reduction

T = TypeVar("T")


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
    """Checks a command line before Hydra sees it, for Hydra's own messages are long or tracebacks.

    Flags (--help, --cfg, -m) mean that Hydra answers, or that there are several configurations; then
    nothing is checked here.

    Raises:
        ConfigError: these overrides compose to nothing that can be run.
    """
    if not any(argument.startswith("-") for argument in arguments):
        compose_run(arguments)


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
    content = dict(content)
    peers = content.pop("peers", None)
    if not isinstance(peers, Mapping):
        raise ConfigError(f"peers must be a mapping of names to settings, not {peers!r}")
    content["peers"] = {
        str(name): build(PeerConfig, peer, path=f"peers.{name}.") for name, peer in peers.items()
    }
    return build(RunConfig, content)


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


class _Boolean:
    """Stands for true or false where a number should be: Python takes them for 1 and 0, we do not."""

    def __init__(self, value: bool) -> None:
        self._value = value

    def __repr__(self) -> str:
        return str(self._value).lower()


def build(kind: type[T], content: object, *, path: str = "") -> T:
    """Returns the dataclass made from plain values, strictly: nothing is converted or ignored.

    Raises:
        ConfigError: see `from_mapping`.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path.rstrip('.')} must be a mapping of settings, not {content!r}")
    _check_keys(kind, content, path)
    try:
        return dacite.from_dict(
            kind, dict(content), config=dacite.Config(strict=True, type_hooks=_HOOKS)
        )
    except dacite.MissingValueError as error:
        raise ConfigError(f"the setting {path}{error.field_path} is missing") from error
    except dacite.WrongTypeError as error:
        raise ConfigError(
            f"{path}{error.field_path} must be {_type_name(error.field_type)}, not {error.value!r}"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{path.rstrip('.')}: {error}" if path else str(error)) from error
    except dacite.DaciteError as error:
        raise ConfigError(f"{path}{error}") from error


def _check_keys(kind: type[Any], content: Mapping[Any, Any], path: str) -> None:
    """Raises ConfigError for the first key that no setting has, with its whole path."""
    known = get_type_hints(kind)
    for key, value in content.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"unknown setting '{path}{key}'{hint}")
        if dataclasses.is_dataclass(known[key]) and isinstance(value, Mapping):
            _check_keys(known[key], value, f"{path}{key}.")


def _as_int(value: object) -> object:
    return _Boolean(value) if isinstance(value, bool) else value


def _as_float(value: object) -> object:
    if isinstance(value, bool):
        return _Boolean(value)
    return float(value) if isinstance(value, int) else value


def _as_member_of(kind: type[enum.Enum]) -> Callable[[object], object]:
    def convert(value: object) -> object:
        return next((member for member in kind if value == member.value), value)

    return convert


_HOOKS: dict[Any, Callable[[Any], Any]] = {
    int: _as_int,
    float: _as_float,
    **{
        kind: _as_member_of(kind)
        for kind in (Host, Method, Placement, Reduction, Runner, Transport)
    },
}


def _type_name(wanted: object) -> str:
    """Returns a type as people say it; for an enum, its values."""
    names: dict[object, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        type(None): "null",
    }
    if isinstance(wanted, type) and issubclass(wanted, enum.Enum):
        return "one of " + ", ".join(str(member.value) for member in wanted)
    if wanted in names:
        return names[wanted]
    if get_origin(wanted) is Mapping:
        return "a mapping"
    return " or ".join(_type_name(part) for part in get_args(wanted)) or str(wanted)
