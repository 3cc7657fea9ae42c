"""Composes the YAML tree and overrides into a checked `RunConfig`, by Hydra."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.groups import group_names, names_of
from configs.hints import hint_for
from configs.overrides import key_of, path_of
from configs.views import views_by_images
from dogo_fed.components import did_you_mean
from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping
from dogo_fed.errors import ConfigError

_NO_SUCH_KEY = re.compile(r"Could not override '(?P<key>[^']+)'")
_NO_SUCH_CHOICE = re.compile(r"Could not (?:find|load) '(?P<group>[^'/]+)/(?P<name>[^']+)'")
_IS_THERE = re.compile(r"An item is already at '(?P<key>[^']+)'")
_IS_NOT_THERE = re.compile(r"Could not delete from config\. '(?P<key>[^']+)'")
_SEVERAL = re.compile(r"Ambiguous value for argument '(?P<key>[^=']+)=(?P<value>.*?)'\n")
_NO_NAME = "Config group override must be a string or a list"

_KINDS = {"data": "data set", "peers": "set of peers", "protocol": "protocol"}
"""What the files of a group are, in words, where that is not the group's name."""
_COMMANDS = {"evaluate": "evaluate"}
"""The command whose --help lists the settings of a file; of any other it is train."""

TRUST = "trust"
"""Says on a command line that code which a run folder's settings name may run; no setting of a run."""


def compose_run(
    overrides: Sequence[str] = (),
    *,
    peers_are_chosen: bool = True,
    words: Mapping[str, str] = MappingProxyType({}),
) -> RunConfig:
    """Returns the checked configuration for these overrides, e.g. ["peers=trio", "seed=3"].

    Args:
        overrides: as on the command line.
        peers_are_chosen: see `configs.views.views_by_images`.
        words: what stands in this command for a setting of a run, for messages.

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible value.
    """
    composed = compose_named("run", overrides, words)
    return from_omegaconf(composed, overrides, peers_are_chosen=peers_are_chosen)


def compose_named(
    name: str, overrides: Sequence[str], words: Mapping[str, str] = MappingProxyType({})
) -> DictConfig:
    """Returns what Hydra composes from configs/<name>.yaml and these overrides.

    Args:
        name: of the file.
        overrides: as on the command line.
        words: see `compose_run`.

    Raises:
        ConfigError: an unknown key or group.
    """
    try:
        return _composed(name, overrides)
    except OverrideParseException as error:
        key, equals, value = error.override.partition("=")
        hint = (
            f""": a text with special characters goes in quotes, "{key}='{value}'\""""
            if equals
            else ""
        )
        raise ConfigError(f"{error.override!r} can't be read as a setting{hint}") from error
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_in_our_words(name, str(error), overrides, words)) from error


def _composed(name: str, overrides: Sequence[str]) -> DictConfig:
    """Returns what Hydra composes, with Hydra's own errors."""
    with initialize_config_module(config_module="configs", version_base="1.3"):
        return compose(config_name=name, overrides=list(overrides))


def _in_our_words(
    name: str, message: str, overrides: Sequence[str], words: Mapping[str, str]
) -> str:
    """Returns what is wrong with an override, without Hydra's advice, which is for programmers."""
    unknown = _NO_SUCH_KEY.search(message)
    if unknown is not None:
        return _about_unknown_keys(name, unknown["key"], overrides, words)
    choice = _NO_SUCH_CHOICE.search(message)
    if choice is not None:
        there = names_of(choice["group"])
        hint = did_you_mean(difflib.get_close_matches(choice["name"], there, n=3))
        kind = _KINDS.get(choice["group"], choice["group"])
        place = (
            "; a folder is named by its path, such as data=./photos" if kind == "data set" else ""
        )
        return f"there is no {kind} {choice['name']!r}; known are {', '.join(there)}{hint}{place}"
    found = _IS_THERE.search(message)
    if found is not None:
        return f"{found['key']} is a setting already; leave out the plus sign in front of it"
    found = _IS_NOT_THERE.search(message)
    if found is not None:
        return f"there is no {found['key']} that could be left out"
    found = _SEVERAL.search(message)
    if found is not None:
        key, value = found["key"], found["value"]
        return (
            f"{key} takes one value, not {value}; type {key}=[{value}] for a list, {key}=\"'{value}'\" "
            f"for a text with commas, or -m {key}={value} for one run after the other"
        )
    if _NO_NAME in message:
        groups = group_names()
        named = [one for one in overrides if path_of(one).rpartition(".")[2] in groups]
        return f"a name is wanted, and there is none: {' '.join(named or overrides)}"
    return " ".join(message.split())


def _about_unknown_keys(
    name: str, first: str, overrides: Sequence[str], words: Mapping[str, str]
) -> str:
    """Returns a sentence for each key that is no setting, since Hydra names the first alone."""
    unknown: dict[str, str] = {}
    left, found = list(overrides), first
    while found and found not in unknown:
        typed = next((one for one in left if key_of(one) == found), "=<value>")
        unknown[found] = typed.partition("=")[2]
        left = [one for one in left if key_of(one) != found]
        next_one = _NO_SUCH_KEY.search(_composing_fails(name, left))
        found = next_one["key"] if next_one else ""
    typed_as = {key.rpartition("@")[2]: value for key, value in unknown.items()}
    return no_settings(typed_as, known_settings(name, overrides), words, name)


def _composing_fails(name: str, overrides: Sequence[str]) -> str:
    """Returns Hydra's message about these overrides; an empty text if they compose."""
    try:
        _composed(name, overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return str(error)
    return ""


def no_settings(
    typed: Mapping[str, str],
    known: Mapping[str, object],
    words: Mapping[str, str] = MappingProxyType({}),
    name: str = "run",
) -> str:
    """Returns the sentences about keys that are no settings, with the settings to type.

    Args:
        typed: the keys, with their values.
        known: the settings that there are; see `known_settings`.
        words: what stands in this command for a setting of a run.
        name: the file that was composed.
    """
    lists_them = f"; `dogo-fed {_COMMANDS.get(name, 'train')} --help` lists the settings"
    sentences: list[str] = []
    for key, value in typed.items():
        is_section = any(setting.startswith(f"{key}.") for setting in known)
        there = "There" if sentences else "there"
        what = f"{key} has no value, but settings of its own"
        what = what if is_section else f"{there} is no setting {key}"
        sentences.append(what + (hint_for(key, value, known, words).text or lists_them))
    ended = [one if one.endswith("?") else f"{one}." for one in sentences[:-1]]
    return " ".join([*ended, *sentences[-1:]])


def known_settings(name: str, overrides: Sequence[str]) -> dict[str, object]:
    """Returns the settings of configs/<name>.yaml with their values, by what the overrides choose.

    Where a file is chosen by its name (data, peers.<name>.backbone), its path is among them. If the
    choices make no sense, those of the parts of peers are left out, and then all.
    """
    groups = group_names()
    choices = [
        one
        for one in overrides
        if one.startswith("~") or "@" in key_of(one) or path_of(one) in (*groups, "data.name")
    ]
    of_the_whole = [one for one in choices if "@" not in key_of(one)]
    for some in (choices, of_the_whole):
        try:
            composed = _composed(name, some)
            break
        except (HydraException, OmegaConfBaseException, ValueError):
            continue
    else:
        composed = _composed(name, [])
    found: dict[str, object] = {}

    def walk(content: object, path: str) -> None:
        if path.rpartition(".")[2] in groups:
            found[path] = None
        if isinstance(content, dict) and content:
            for key, value in content.items():
                walk(value, f"{path}.{key}" if path else str(key))
        else:
            found[path] = content

    walk(OmegaConf.to_container(composed, resolve=False), "")
    return found


def check_overrides(
    arguments: Sequence[str], words: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Checks a command line before Hydra reads it, because Hydra's messages are long or tracebacks.

    With a flag (--help, --cfg, -m) nothing is checked: Hydra only prints something, or there are
    several configurations.

    Args:
        arguments: as Hydra reads them.
        words: see `compose_run`.

    Raises:
        ConfigError: see `compose_run`.
    """
    if not any(argument.startswith("-") for argument in arguments):
        compose_run(arguments, words=words)


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
