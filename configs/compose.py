"""Composes the YAML tree and overrides into a checked `RunConfig`, by Hydra."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.overrides import key_of
from configs.views import views_by_images
from dogo_fed.components import did_you_mean
from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping
from dogo_fed.errors import ConfigError

_NO_SUCH_KEY = re.compile(r"Could not override '(?P<key>[^']+)'")
_NO_SUCH_CHOICE = re.compile(
    r"Could not find '(?P<group>[^'/]+)/(?P<name>[^']+)'.*?Available options[^:]*:", re.DOTALL
)

TRUST = "trust"
"""Says on a command line that code which a run folder's settings name may run; no setting of a run."""


def compose_run(overrides: Sequence[str] = (), *, peers_are_chosen: bool = True) -> RunConfig:
    """Returns the checked configuration for these overrides, e.g. ["peers=trio", "seed=3"].

    Args:
        overrides: as on the command line.
        peers_are_chosen: see `configs.views.views_by_images`.

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible value.
    """
    composed = compose_named("run", overrides)
    return from_omegaconf(composed, overrides, peers_are_chosen=peers_are_chosen)


def compose_named(name: str, overrides: Sequence[str]) -> DictConfig:
    """Returns what Hydra composes from configs/<name>.yaml and these overrides.

    Raises:
        ConfigError: an unknown key or group.
    """
    try:
        with initialize_config_module(config_module="configs", version_base="1.3"):
            return compose(config_name=name, overrides=list(overrides))
    except OverrideParseException as error:
        key, equals, value = error.override.partition("=")
        hint = (
            f""": a text with special characters goes in quotes, "{key}='{value}'\""""
            if equals
            else ""
        )
        raise ConfigError(f"{error.override!r} can't be read as a setting{hint}") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_in_our_words(name, str(error), overrides)) from error


def _in_our_words(name: str, message: str, overrides: Sequence[str]) -> str:
    """Returns what is wrong with an override, without Hydra's advice, which is for programmers."""
    unknown = _NO_SUCH_KEY.search(message)
    if unknown is not None:
        key = unknown["key"]
        value = next(
            (override.partition("=")[2] for override in overrides if key_of(override) == key),
            "<value>",
        )
        known = _settings(name)
        close = difflib.get_close_matches(key, known, n=3)
        close += [
            setting
            for setting in known
            if setting.rpartition(".")[2] == key and setting not in close
        ]
        hint = did_you_mean([f"{setting}={value}" for setting in close[:3]])
        return f"there is no setting {key}{hint}"
    choice = _NO_SUCH_CHOICE.search(message)
    if choice is not None:
        group, wanted = choice["group"], choice["name"]
        there = re.findall(r"^\s+(\S+)$", message[choice.end() :], re.MULTILINE)
        hint = did_you_mean(difflib.get_close_matches(wanted, there, n=3))
        return f"there is no {group} {wanted!r}; known are {', '.join(sorted(there))}{hint}"
    return " ".join(message.split())


def _settings(name: str) -> list[str]:
    """Returns the paths of all settings that configs/<name>.yaml has with its defaults."""
    found: list[str] = []

    def walk(content: object, path: str) -> None:
        if isinstance(content, dict) and content:
            for key, value in content.items():
                walk(value, f"{path}.{key}" if path else str(key))
        else:
            found.append(path)

    with initialize_config_module(config_module="configs", version_base="1.3"):
        walk(OmegaConf.to_container(compose(config_name=name), resolve=False), "")
    return found


def check_overrides(arguments: Sequence[str]) -> None:
    """Checks a command line before Hydra reads it, because Hydra's messages are long or tracebacks.

    With a flag (--help, --cfg, -m) nothing is checked: Hydra only prints something, or there are
    several configurations.

    Raises:
        ConfigError: see `compose_run`.
    """
    if not any(argument.startswith("-") for argument in arguments):
        compose_run(arguments)


def says_trust(overrides: Sequence[str]) -> bool:
    """Whether overrides that compose to a configuration say trust=true."""
    said = [override for override in overrides if key_of(override) == TRUST]
    parser = OverridesParser.create()
    return any(parser.parse_override(override).value() is True for override in said)


def from_omegaconf(
    composed: DictConfig, overrides: Iterable[str], *, peers_are_chosen: bool = True
) -> RunConfig:
    """Returns the checked configuration that Hydra has composed, with views that suit the images.

    Args:
        composed: what the overrides compose to.
        overrides: as on the command line; they say whose views are named.
        peers_are_chosen: see `configs.views.views_by_images`.

    Raises:
        ConfigError: a wrong type, a missing value, or an impossible one; trust=true without resume.
    """
    try:
        content = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(" ".join(str(error).split())) from error
    assert isinstance(content, dict), "a Hydra configuration is a mapping"
    trust = content.pop(TRUST, False)
    if not isinstance(trust, bool):
        raise ConfigError(f"{TRUST} must be true or false, not {trust!r}")
    if trust and content.get("resume") is None:
        raise ConfigError(
            f"{TRUST}=true is about the settings of an earlier run, so it goes with "
            "resume=<run folder>; the code that this command line names may run anyway"
        )
    settings = {str(key): value for key, value in content.items()}
    found = views_by_images(settings, overrides, peers_are_chosen=peers_are_chosen)
    for peer, views in found.items():
        settings["peers"][peer]["augmentation"]["name"] = views
    return from_mapping(settings)
