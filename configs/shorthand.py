"""What people type first, as the settings that it means.

Each rule turns one argument into overrides that Hydra can read, or says which setting to type. What
no rule knows is passed on as it is.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from configs.compose import compose_named
from configs.overrides import key_of, quoted
from configs.views import LEFT_TO_THE_IMAGES, views_by_images
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
_SMALL = ("tiny_", "small_")
"""Backbones that learn at the rate of our own small peers."""
_HYDRAS_FLAGS = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--info",
    "--experimental-rerun", "-h", "-c", "-p", "-r", "-m", "-sc", "-cp", "-cn", "-cd", "-i",
)  # fmt: skip
_IS_FLAG = re.compile(r"--?[A-Za-z]")


def in_full(
    arguments: Sequence[str],
    *,
    is_own: Callable[[str], bool] = lambda key: False,
    words: Mapping[str, str] = MappingProxyType({}),
    is_elsewhere: bool = False,
) -> list[str]:
    """Returns the arguments of any command that takes settings of a run, as Hydra reads them.

    - `data=/path/to/images` is `data=image_folder data.options.root=/path/to/images`; so are
      `root=`, `data.root=` and `data.options.root=` where no data set is named. With `resume=` these
      three, and all `data.options.*`, are options of the run's data set, which is known.
    - `peers=[resnet18,mobilenet_v2]` are two peers with these backbones and the usual recipe.
    - `peers.wide.backbone=resnet18` is `backbone@peers.wide.backbone=resnet18`, and likewise for
      objective, augmentation and optimizer.
    - `peers.ada.data=/path/to/images`, or the name of a data set, are private images of that peer.
    - Values that Hydra can't read as they are (blanks, parentheses, "~") are quoted.

    Args:
        arguments: as on the command line.
        is_own: tells which keys are the command's own; these are passed on.
        words: what stands in this command for a setting of a run, for messages.
        is_elsewhere: whether the command works in another folder than the user, so that places have
            to be absolute.

    Raises:
        ConfigError: a flag or a word is no setting; the message has the setting to type.
    """
    is_sweep = any(one in ("-m", "--multirun") for one in arguments)
    has_data = any(argument.startswith("data=") for argument in arguments)
    goes_on = any(key_of(argument) == "resume" for argument in arguments)
    full: list[str] = []
    flags_value = False  # Hydra's flags may be followed by a value
    for number, argument in enumerate(arguments, 1):
        if argument.startswith("-"):
            full.append(_checked_flag(argument, arguments[number:], words))
            flags_value = "=" not in argument
            continue
        if flags_value and "=" not in argument:
            full.append(argument)
        else:
            meant = [argument]
            if not is_own(key_of(argument)):
                meant = _meant(argument, has_data, goes_on, words, is_elsewhere)
            full += [setting if is_sweep else _readable(setting) for setting in meant]
        flags_value = False
    return full


def in_full_for_hydra(
    arguments: Sequence[str], words: Mapping[str, str] = MappingProxyType({})
) -> list[str]:
    """Returns the arguments of a command whose line Hydra itself reads; see `in_full`.

    Where Hydra is only to print the settings, the views that follow from the images are spelled out.

    Raises:
        ConfigError: see `in_full`; or the settings to print can't be.
    """
    full = in_full(arguments, words=words)
    flags = {flag.partition("=")[0] for flag in full if flag.startswith("-")}
    if not flags & {"--cfg", "-c"} or flags & {"--multirun", "-m"}:
        return full
    settings = [
        argument
        for argument in full
        if argument.startswith("~") or ("=" in argument and argument[0] != "-")
    ]
    content = OmegaConf.to_container(compose_named("run", settings), resolve=False)
    assert isinstance(content, dict), "a Hydra configuration is a mapping"
    found = views_by_images({str(key): value for key, value in content.items()}, settings)
    views = [
        f"augmentation@peers.{name}.augmentation={augmentation}"
        for name, augmentation in found.items()
    ]
    return [*full, *views]


def with_data_at(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of a command without settings of a run, as Hydra reads them.

    Only data=/path/to/images is spelled out.
    """
    full: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        full += _data_at(value) if key == "data" and _is_path(value) else [argument]
    return [_readable(argument) for argument in full]


def _meant(
    argument: str, has_data: bool, goes_on: bool, words: Mapping[str, str], is_elsewhere: bool
) -> list[str]:
    """Returns the overrides that one argument stands for.

    Args:
        argument: as on the command line.
        has_data: whether another argument names the data set.
        goes_on: whether another argument names a run that goes on.
        words: see `in_full`.
        is_elsewhere: see `in_full`.
    """
    key, equals, value = argument.lstrip("+").partition("=")
    if _WAS_ADDED.fullmatch(key):
        return [f"{key}={value}"]
    if not equals:
        if _is_path(argument) and not argument.startswith("~"):
            raise ConfigError(f"{argument!r} is no setting; a folder of images is data={argument}")
        return [argument]
    if key == "data" and _is_path(value):
        return _data_at(value, is_elsewhere=is_elsewhere)
    if key in _ROOT_WORDS or key.startswith("data.options."):
        if has_data:
            return [f"data.options.root={value}" if key in _ROOT_WORDS else argument]
        return _option_of_data(argument, goes_on, is_elsewhere)
    if key == "peers":
        return _peers(value)
    if _PRIVATE.fullmatch(key) and value != "null":
        where = _data_at(value, key, is_elsewhere) if _is_path(value) else [f"data={value}"]
        return [f"+data@{key}={where[0].partition('=')[2]}", *where[1:]]
    part = _PEER_PART.fullmatch(key)
    if part is not None and _WORD.fullmatch(value):
        return [f"{part['group']}@{key}={value}"]
    _check_word(key, value, words)
    return [argument]


def _option_of_data(argument: str, goes_on: bool, is_elsewhere: bool) -> list[str]:
    """Returns the overrides for an option of a data set that no argument names.

    A run that goes on knows its data set; for any other, a place is one of images.
    """
    key, _, value = argument.lstrip("+").partition("=")
    if key not in _ROOT_WORDS:
        return [f"++{key}={value}" if goes_on else argument]
    kind, place = _data_at(value, is_elsewhere=is_elsewhere)
    return [f"++{place}"] if goes_on else [kind, place]


def _check_word(key: str, value: str, words: Mapping[str, str]) -> None:
    """Raises ConfigError with the setting to type if a word is another word for one."""
    if key in _INSTEAD or key in _OF_EVERY_PEER:
        why = ", since each peer has its own" if key in _OF_EVERY_PEER else ""
        raise ConfigError(f"there is no setting {key!r}{why}; type {_typed(key, value, words)}")


def _typed(key: str, value: str, words: Mapping[str, str]) -> str:
    """Returns what to type for a word: the setting, with the value that was given."""
    if key in _OF_EVERY_PEER:
        return f"peers.<name>.{_OF_EVERY_PEER[key]}={value}, with the peer's name"
    setting = _INSTEAD.get(key, key)
    return f"{words.get(setting, setting)}={value}"


def _is_path(value: str) -> bool:
    """Whether a value of `data` is a place and not a name, or a list of names."""
    value = _unquoted(value)
    if not value or (value.startswith("[") and value.endswith("]")):
        return False
    return (
        "/" in value
        or value.startswith(("~", "."))
        or (value not in names_of("data") and Path(value).exists())
    )


def _data_at(value: str, setting: str = "data", is_elsewhere: bool = False) -> list[str]:
    """Returns the overrides for images at a place: which kind of data set, and where it is.

    Raises:
        ConfigError: the place has to be absolute, and is not.
    """
    place = Path(_unquoted(value)).expanduser()
    if is_elsewhere and not place.is_absolute():
        raise ConfigError(
            f"{setting}={value} must be an absolute path: this command works in another folder than "
            "you do"
        )
    place = Path(os.path.abspath(place))
    kind = "npz" if place.suffix == ".npz" and "npz" in DATASETS else "image_folder"
    option = "path" if kind == "npz" else "root"
    return [f"{setting}={kind}", f"{setting}.options.{option}={place}"]


def _peers(value: str) -> list[str]:
    """Returns the overrides for `peers=`: a preset's name, or the backbones of the peers.

    Peers of the user's own get the published recipe, with views that suit the images; tiny networks
    learn at the rate of ours.
    """
    inner = value.strip().removeprefix("[").removesuffix("]")
    names = [name.strip().strip("'\"") for name in inner.split(",") if name.strip()]
    presets = names_of("peers")
    if len(names) == 1 and names[0] in presets and not value.strip().startswith("["):
        return [f"peers={names[0]}"]
    known = [backbone for backbone in names_of("backbone") if backbone not in _NEED_A_NAME]
    if len(names) == 1 and names[0] not in known and not value.strip().startswith("["):
        return [f"peers={value}"]  # Hydra's list of presets
    strange = [name for name in names if name not in known]
    if strange or not names:
        stranger = strange[0] if strange else ""
        hint = did_you_mean(difflib.get_close_matches(stranger, known, n=3))
        raise ConfigError(
            f"peers={value}: {stranger!r} is no backbone; known are {', '.join(known)}{hint}. "
            f"Presets of peers are {', '.join(presets)}"
        )
    overrides = ["~peers"]
    for name, backbone in zip(_distinct(names), names, strict=True):
        overrides.append(f"+peer@peers.{name}={LEFT_TO_THE_IMAGES}")
        overrides.append(f"backbone@peers.{name}.backbone={backbone}")
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


def _checked_flag(argument: str, after: Sequence[str], words: Mapping[str, str]) -> str:
    """Returns a flag of Hydra.

    Args:
        argument: begins with a dash.
        after: what stands behind it on the command line.
        words: see `in_full`.

    Raises:
        ConfigError: it is none; settings have no dashes.
    """
    name, equals, value = argument.partition("=")
    if name in _HYDRAS_FLAGS:
        return argument
    if not equals and after and "=" not in after[0] and not _IS_FLAG.match(after[0]):
        value = after[0]
    setting = _typed(name.lstrip("-").replace("-", "_"), value or "<value>", words)
    raise ConfigError(f"there is no flag {name}; settings are written {setting}")


def _readable(override: str) -> str:
    """Returns the override with its value in quotes if Hydra can't read it as it is.

    A "~" at the start of a value is the user's folder.
    """
    key, equals, value = override.partition("=")
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
        override = f"{key}={value}"
    if not equals or _can_be_read(override) or value[:1] in "[{'\"":
        return override
    return quoted(key, value)


def _can_be_read(override: str) -> bool:
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    is_path_with_comma = parsed.is_sweep_override() and "," in override and "/" in override
    return not is_path_with_comma


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value


def names_of(group: str) -> list[str]:
    """Returns the names of the files of a group of settings."""
    folder = package_folder("configs") / group
    return sorted(path.stem for path in folder.glob("*.yaml"))
