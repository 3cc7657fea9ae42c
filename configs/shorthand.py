"""What people type first, as the settings that it means.

Each rule turns one argument into overrides that Hydra can read, or says which setting to type. What
no rule knows is passed on as it is.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from dogo_fed.components import did_you_mean
from dogo_fed.data.catalog import DATASETS
from dogo_fed.errors import ConfigError
from dogo_fed.packages import package_folder

_PEER_PART = re.compile(
    r"peers\.(?P<peer>[^.=]+)\.(?P<group>backbone|objective|augmentation|optimizer)"
)
_PRIVATE = re.compile(r"peers\.(?P<peer>[^.=]+)\.data")
_WAS_ADDED = re.compile(r"peers\.[^.=]+\.frozen_from")
"""Was no setting of the shipped peers before, so people have "+" in front of it."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_ROOT_WORDS = ("root", "data.root", "data.options.root", "data.path", "path", "folder", "images")
_INSTEAD = {
    "epochs": "rounds",
    "num_epochs": "rounds",
    "max_epochs": "rounds",
    "batch": "batch_size",
    "bs": "batch_size",
    "image_size": "data.options.image_size",
    "size": "data.options.image_size",
    "model": "peers",
    "models": "peers",
    "dataset": "data",
    "output": "run_dir",
    "output_dir": "run_dir",
    "out_dir": "run_dir",
    "gpus": "ray.gpus_per_peer",
}
"""Other words for a setting; the value is passed on as it is."""
_OF_EVERY_PEER = {
    "lr": "optimizer.options.lr",
    "learning_rate": "optimizer.options.lr",
    "weight_decay": "optimizer.options.weight_decay",
    "temperature": "objective.options.temperature",
    "distill_weight": "distill_weight",
    "kl_temperature": "kl_temperature",
}
"""Words for a setting that each peer has its own of."""
_NEED_A_NAME = ("own", "timm", "torchvision")
"""Backbones of which the file says only where they come from."""
_DIGITS = ("digits_m", "digits")
_SMALL = ("tiny_", "small_")
"""Backbones that learn at the rate of our own small peers."""
_HYDRAS_FLAGS = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--info",
    "--experimental-rerun",
)  # fmt: skip


def in_full(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments as Hydra reads them.

    - `data=/path/to/images` is `data=image_folder data.options.root=/path/to/images`; so are
      `root=`, `data.root=` and `data.options.root=` where no data set is named. Peers that are not
      named either get the augmentation of photographs, `simclr`.
    - `peers=[resnet18,mobilenet_v2]` are two peers with these backbones and the recipe `simclr`.
    - `peers.wide.backbone=resnet18` is `backbone@peers.wide.backbone=resnet18`, and likewise for
      objective, augmentation and optimizer.
    - `peers.ada.data=/path/to/images`, or the name of a data set, are private images of that peer.
    - Values that Hydra can't read as they are (blanks, parentheses, "~") are quoted.

    Raises:
        ConfigError: a flag or a word is no setting; the message has the setting to type.
    """
    is_sweep = any(one in ("-m", "--multirun") for one in arguments)
    data = next((one.partition("=")[2] for one in arguments if one.startswith("data=")), None)
    full: list[str] = []
    flags_value = False  # Hydra's flags may be followed by a value
    for argument in arguments:
        if argument.startswith("-"):
            full.append(_checked_flag(argument))
            flags_value = "=" not in argument
            continue
        if flags_value and "=" not in argument:
            full.append(argument)
        else:
            full += [one if is_sweep else _quoted(one) for one in _meant(argument, data)]
        flags_value = False
    is_own = "data=image_folder" in full and "data=image_folder" not in arguments
    if is_own and not any(map(_names_peers, arguments)):
        full += [f"augmentation@peers.{name}.augmentation=simclr" for name in ("resnet", "wide")]
    return full


def _names_peers(argument: str) -> bool:
    """Whether an argument says which peers there are, or anything about them but their images."""
    key = argument.lstrip("+~").partition("=")[0]
    return "peers" in key and not _PRIVATE.match(key)


def with_data_at(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of another command than `train`; only data=/path/to/images is spelled out."""
    full: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        full += _data_at(value) if key == "data" and _is_path(value) else [argument]
    return [_quoted(one) for one in full]


def _meant(argument: str, data: str | None) -> list[str]:
    """Returns the overrides that one argument stands for, in a run on this data set, if one is named."""
    key, equals, value = argument.lstrip("+").partition("=")
    if _WAS_ADDED.fullmatch(key):
        return [f"{key}={value}"]
    if not equals:
        if _is_path(argument) and not argument.startswith("~"):
            raise ConfigError(f"{argument!r} is no setting; a folder of images is data={argument}")
        return [argument]
    if key == "data" and _is_path(value):
        return _data_at(value)
    if key in _ROOT_WORDS and data is None:
        return _data_at(value)
    if key in _ROOT_WORDS:
        return [f"data.options.root={value}"]
    if key == "peers":
        return _peers(value, data)
    if _PRIVATE.fullmatch(key) and value != "null":
        where = _data_at(value, key) if _is_path(value) else [f"data={value}"]
        return [f"+data@{key}={where[0].partition('=')[2]}", *where[1:]]
    part = _PEER_PART.fullmatch(key)
    if part is not None and _WORD.fullmatch(value):
        return [f"{part['group']}@{key}={value}"]
    _check_word(key, value)
    return [argument]


def _check_word(key: str, value: str) -> None:
    """Raises ConfigError with the setting to type if a word is another word for one."""
    if key in _INSTEAD:
        raise ConfigError(f"there is no setting {key!r}; type {_INSTEAD[key]}={value}")
    if key in _OF_EVERY_PEER:
        raise ConfigError(
            f"there is no setting {key!r}, since each peer has its own; type "
            f"peers.<name>.{_OF_EVERY_PEER[key]}={value}, with the peer's name"
        )


def _is_path(value: str) -> bool:
    """Whether a value of `data` is a place and not a name."""
    value = _unquoted(value)
    return (
        "/" in value
        or value.startswith(("~", "."))
        or (value not in _names("data") and Path(value).exists())
    )


def _data_at(value: str, setting: str = "data") -> list[str]:
    """Returns the overrides for images at a place: which kind of data set, and where it is."""
    place = Path(os.path.abspath(Path(_unquoted(value)).expanduser()))
    kind = "npz" if place.suffix == ".npz" and "npz" in DATASETS else "image_folder"
    option = "path" if kind == "npz" else "root"
    return [f"{setting}={kind}", f"{setting}.options.{option}={place}"]


def _peers(value: str, data: str | None) -> list[str]:
    """Returns the overrides for `peers=`: a preset's name, or the backbones of the peers.

    Peers of the user's own get the published recipe; digits are not mirrored, and tiny networks
    learn at the rate of ours.
    """
    inner = value.strip().removeprefix("[").removesuffix("]")
    names = [one.strip().strip("'\"") for one in inner.split(",") if one.strip()]
    presets = _names("peers")
    if len(names) == 1 and names[0] in presets and not value.strip().startswith("["):
        return [f"peers={names[0]}"]
    known = [one for one in _names("backbone") if one not in _NEED_A_NAME]
    if len(names) == 1 and names[0] not in known and not value.strip().startswith("["):
        return [f"peers={value}"]  # Hydra's list of presets
    strange = [one for one in names if one not in known]
    if strange or not names:
        one = strange[0] if strange else ""
        hint = did_you_mean(difflib.get_close_matches(one, known, n=3))
        raise ConfigError(
            f"peers={value}: {one!r} is no backbone; known are {', '.join(known)}{hint}. Presets of "
            f"peers are {', '.join(presets)}"
        )
    overrides = ["~peers"]
    for name, backbone in zip(_distinct(names), names, strict=True):
        overrides.append(f"+peer@peers.{name}=usual")
        overrides.append(f"backbone@peers.{name}.backbone={backbone}")
        if data is None or data in _DIGITS:
            overrides.append(f"augmentation@peers.{name}.augmentation=digits")
        if backbone.startswith(_SMALL):
            overrides.append(f"optimizer@peers.{name}.optimizer=adam")
    return overrides


def _distinct(names: Sequence[str]) -> list[str]:
    """Returns names for peers with these backbones: a number goes behind one that comes again."""
    seen: dict[str, int] = {}
    found = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return found


def _checked_flag(argument: str) -> str:
    """Returns a flag of Hydra.

    Raises:
        ConfigError: it is none; settings have no dashes.
    """
    name, _, value = argument.partition("=")
    if not argument.startswith("--") or name in _HYDRAS_FLAGS:
        return argument
    key = name.removeprefix("--").replace("-", "_")
    key = _INSTEAD.get(key, key)
    raise ConfigError(f"there is no flag {name}; settings are written {key}={value or '<value>'}")


def _quoted(override: str) -> str:
    """Returns the override with its value in quotes if Hydra can't read it as it is.

    A "~" at the start of a value is the user's folder.
    """
    key, equals, value = override.partition("=")
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
        override = f"{key}={value}"
    if not equals or _can_be_read(override) or value[:1] in "[{'\"":
        return override
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"{key}='{escaped}'"


def _can_be_read(override: str) -> bool:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    is_path_with_comma = parsed.is_sweep_override() and "," in override and "/" in override
    return not is_path_with_comma


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def _names(group: str) -> list[str]:
    """Returns the names of the files of a group."""
    folder = package_folder("configs") / group
    return sorted(path.stem for path in folder.glob("*.yaml"))
