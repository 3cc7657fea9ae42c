"""What people type first, as the settings that it means.

Each rule turns one argument into overrides that Hydra can read, or says which setting to type. What
no rule knows is passed on as it is.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path
from types import MappingProxyType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from configs.compose import compose_named, known_settings, no_settings
from configs.every_peer import EVERY_PEER, for_each_peer, is_of_every_peer
from configs.groups import names_of, place_option
from configs.hints import hint_for, is_word
from configs.overrides import key_of, path_of, quoted
from configs.views import LEFT_TO_THE_IMAGES, views_by_images
from dogo_fed.components import did_you_mean
from dogo_fed.data.catalog import DATASETS
from dogo_fed.errors import ConfigError
from dogo_fed.typed_path import typed_path

_PEER_PART = re.compile(
    r"peers\.(?P<peer>[^.=]+)\.(?P<group>backbone|objective|augmentation|optimizer)"
)
_OTHER_DATA = re.compile(r"peers\.[^.=]+\.data|partition\.anchors_from")
"""Settings that name a data set beside the run's."""
_WAS_ADDED = re.compile(r"peers\.[^.=]+\.frozen_from")
"""Was no setting of the shipped peers before, so people have "+" in front of it."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MEMBER = re.compile(r"(?P<package>[A-Za-z_][A-Za-z0-9_.]*):(?P<name>[A-Za-z0-9_][^\s,'\"\[\]{}]*)")
"""What code is named by: a model of a library (timm:<model>), or "package.module:name"."""
_LIBRARIES = ("timm", "torchvision")
"""Packages that have a file of their own in the group `backbone`."""
_ROOT_WORDS = (
    "root", "path", "folder", "images", "input", "input_dir", "image_dir", "img_dir",
    "data_dir", "data_path", "data_root",
    "data.root", "data.path", "data.dir", "data.folder", "data.options.root",
)  # fmt: skip
_PLACES = ("data", "run", "run_dir", "resume", "out", "checkpoint", *_ROOT_WORDS)
"""Keys whose values may be folders or files, whose names may have blanks."""
_NEED_A_NAME = ("own", *_LIBRARIES)
"""Backbones of which the file says only where they come from."""
_SMALL = ("tiny_", "small_")
"""Backbones that learn at the rate of our own small peers."""
_HYDRAS_FLAGS = (
    "--help", "--hydra-help", "--version", "--cfg", "--resolve", "--package", "--run", "--multirun",
    "--shell-completion", "--config-path", "--config-name", "--config-dir", "--info",
    "--experimental-rerun", "-h", "-c", "-p", "-r", "-m", "-sc", "-cp", "-cn", "-cd", "-i",
)  # fmt: skip
_WITHOUT_VALUE = "--run"
"""Of Hydra's flags the one that takes no value, and is typed with one by those who mean run=."""
_TABLE = ".options.labels"
"""How a setting ends that may name a file in the folder of the images, or in the current one."""
_LONGEST_NAME = 56
"""Of a peer that is made of a backbone; a number may go behind it."""
_IS_FLAG = re.compile(r"--?[A-Za-z]")


EVALUATION_WORDS = {"peer_names": "peer"}
"""What stands in `dogo-fed evaluate` for a setting of its file."""


def in_full(
    arguments: Sequence[str],
    *,
    is_own: Callable[[str], bool] = lambda key: False,
    words: Mapping[str, str] = MappingProxyType({}),
    is_elsewhere: bool = False,
    name: str = "run",
) -> list[str]:
    """Returns the arguments of any command that takes settings of a run, as Hydra reads them.

    - `data=/path/to/images` is `data=image_folder data.options.root=/path/to/images`; so are
      `root=`, `data.root=` and the like where no data set is named. With `resume=` these, and all
      `data.options.*`, are options of the run's data set, which is known.
    - `peers=[resnet18,mobilenet_v2]` are two peers with these backbones and the usual recipe.
    - `peers.wide.backbone=resnet18` is `backbone@peers.wide.backbone=resnet18`, and likewise for
      objective, augmentation and optimizer.
    - `timm:<model>`, `torchvision:<model>` and `package.module:name` may stand for a backbone, and
      the last one for a data set, an objective or an augmentation as well. They have no options but
      those that are named.
    - `peers.ada.data=/path/to/images`, or the name of a data set, are private images of that peer;
      `partition.anchors_from=` takes the same.
    - `peers.*.x=y` is a setting of every peer.
    - Values that Hydra can't read as they are (blanks, parentheses, "~") are quoted.

    Args:
        arguments: as on the command line.
        is_own: tells which keys are the command's own; these are passed on.
        words: what stands in this command for a setting of a run, for messages.
        is_elsewhere: whether the command works in another folder than the user, so that places have
            to be absolute.
        name: the file in configs/ whose settings these are.

    Raises:
        ConfigError: a flag or a word is no setting; the message has the setting to type.
    """
    line = _Line(tuple(arguments), words, is_elsewhere, name)
    full: list[str] = []
    flags_value = False  # Hydra's flags may be followed by a value
    for number, argument in enumerate(arguments):
        if argument.startswith("-"):
            full.append(line.checked_flag(number))
            flags_value = "=" not in argument
            continue
        if flags_value and "=" not in argument:
            full.append(argument)
        else:
            is_passed_on = "=" in argument and is_own(key_of(argument))
            spelled = [argument] if is_passed_on else line.for_each_peer(line.meant(number))
            full += [one if line.is_sweep else _readable(one) for one in spelled]
        flags_value = False
    return _with_options_of_own([_with_whole_table(one, full) for one in full])


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


def in_full_for_evaluation(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments of `dogo-fed evaluate`, as Hydra reads them.

    A data set and a backbone are named as for a run.

    Raises:
        ConfigError: see `in_full`.
    """
    return in_full(
        arguments,
        is_own=lambda key: key.partition(".")[0] not in ("data", "backbone", *_ROOT_WORDS),
        words=EVALUATION_WORDS,
        name="evaluate",
    )


@dataclass(frozen=True, slots=True)
class _Line:
    """A command line, whose arguments are understood by what the others say.

    Attributes:
        arguments: as typed.
        words, is_elsewhere, name: see `in_full`.
    """

    arguments: tuple[str, ...]
    words: Mapping[str, str]
    is_elsewhere: bool
    name: str

    @property
    def is_sweep(self) -> bool:
        """Whether there are several runs, so that a value may stand for several."""
        return any(one in ("-m", "--multirun") for one in self.arguments)

    @property
    def goes_on(self) -> bool:
        """Whether a run goes on, which has its data set and its peers already."""
        return any(key_of(argument) == "resume" for argument in self.arguments)

    @property
    def _named_data(self) -> str | None:
        """What the line says for the data set; None if it says nothing."""
        said = dict(one.split("=", 1) for one in self.arguments if "=" in one)
        is_code = _MEMBER.fullmatch(said.get("data.name", ""))
        return said.get("data", "own" if is_code else None)

    def meant(self, number: int) -> list[str]:
        """Returns the overrides that one argument stands for."""
        argument = self.arguments[number]
        key, equals, value = argument.lstrip("+").partition("=")
        if _WAS_ADDED.fullmatch(key):
            return [f"{key}={value}"]
        if not equals:
            return [argument] if argument.startswith(("~", "+")) else self._no_setting(number)
        if key == "data":
            return self._data(value)
        if is_place_of_data(key):
            return self._option_of_data(argument)
        if key == "peers":
            return _peers(value)
        if _OTHER_DATA.fullmatch(key) and value != "null":
            where = _named_data(value, key, self.is_elsewhere)
            return [f"+data@{key}={where[0].partition('=')[2]}", *where[1:]]
        part = _PEER_PART.fullmatch(key)
        if part is not None or (key == "backbone" and self.name == "evaluate"):
            return _part(key, key.rpartition(".")[2], value) or [argument]
        self._check_word(key, value)
        return self._named_code(key, value) or [argument]

    def for_each_peer(self, meant: Sequence[str]) -> list[str]:
        """Returns overrides, in which a setting of every peer is one for each.

        Raises:
            ConfigError: it can't be told which peers there are, or they have no such setting.
        """
        if not any(map(is_of_every_peer, meant)):
            return list(meant)
        if self.is_sweep or self.goes_on:
            who = "a run that goes on" if self.goes_on else "a sweep"
            raise ConfigError(
                f"{meant[0]}: {who} can have other peers than this line says, so name each: "
                f"{meant[0].replace(EVERY_PEER, 'peers.<name>.', 1)}"
            )
        spelled, known = for_each_peer(meant, self._peers()), self._known()
        first = key_of(spelled[0])
        if spelled[0] == spelled[0].lstrip("+~") and "@" not in first and not _has(known, first):
            value = spelled[0].partition("=")[2]
            raise ConfigError(no_settings({first: value}, known, self.words, self.name))
        return spelled

    def checked_flag(self, number: int) -> str:
        """Returns a flag of Hydra.

        Raises:
            ConfigError: it is none; settings have no dashes.
        """
        argument, after = self.arguments[number], self.arguments[number + 1 : number + 2]
        flag, equals, given = argument.partition("=")
        value = given if equals else None
        if not equals and after and "=" not in after[0] and not _IS_FLAG.match(after[0]):
            value = after[0]
        if flag in _HYDRAS_FLAGS and not (flag == _WITHOUT_VALUE and value is not None):
            return argument
        key = flag.lstrip("-").replace("-", "_")
        hint = hint_for(key, value, self._known(), self.words)
        raise ConfigError(
            f"there is no flag {flag}; settings are written {hint.typed}"
            if hint.typed
            else f"there is no flag {flag}, and no setting {key}{hint.text}"
        )

    def _known(self) -> dict[str, object]:
        """Returns the settings that there are by what else the line says."""
        chosen = self._chosen()
        if any(map(is_of_every_peer, chosen)):
            chosen = for_each_peer(chosen, self._peers())
        return known_settings(self.name, [_readable(one) for one in chosen])

    def _peers(self) -> list[str]:
        """Returns the names of the peers that the line chooses."""
        chosen = [_readable(one) for one in self._chosen() if not is_of_every_peer(one)]
        paths = (key.split(".") for key in known_settings(self.name, chosen))
        return list(dict.fromkeys(path[1] for path in paths if path[0] == "peers" and path[1:]))

    def _chosen(self) -> list[str]:
        """Returns the overrides that the line stands for, but for those that are none."""
        chosen: list[str] = []
        for number, argument in enumerate(self.arguments):
            if "=" in argument and argument[0] != "-" and not is_word(key_of(argument)):
                try:
                    chosen += self.meant(number)
                except ConfigError:
                    continue  # it is told when its turn comes
        return chosen

    def _no_setting(self, number: int) -> list[str]:
        """Raises ConfigError about an argument without "="; it may be a part of the one before."""
        argument, before = self.arguments[number], self.arguments[number - 1] if number else ""
        key, equals, value = before.partition("=")
        is_place = key in _PLACES or "/" in value or value.startswith("~")
        if equals and value and is_place and value not in names_of("data"):
            rest = list(takewhile(lambda one: "=" not in one, self.arguments[number:]))
            whole = shlex.quote(" ".join([value, *rest]))
            raise ConfigError(
                f"{argument!r} is no setting; a place with blanks goes in quotes: {key}={whole}"
            )
        if self.name == "evaluate":
            raise ConfigError(f"{argument!r} is no setting; a finished run is run={argument}")
        if _is_path(argument):
            raise ConfigError(f"{argument!r} is no setting; a folder of images is data={argument}")
        groups = [group for group in ("peers", "data") if argument in names_of(group)]
        hint = did_you_mean([f"{group}={argument}" for group in groups])
        raise ConfigError(f"{argument!r} is no setting, which is written key=value{hint}")

    def _data(self, value: str) -> list[str]:
        """Returns the overrides for `data=`: a name, a place, or code of the user's own."""
        places = [one.strip() for one in value.strip("[]").split(",")]
        if value.startswith("[") and any(map(_is_path, places)):
            raise ConfigError(
                f"data={value}: a place stands alone; put the images of several into one folder, in "
                "which links to folders will do, and type data=<that folder>"
            )
        return _named_data(value, "data", self.is_elsewhere)

    def _option_of_data(self, argument: str) -> list[str]:
        """Returns the overrides for an option of the data set.

        A run that goes on knows its data set. Where nothing names one, a place is one of images.
        """
        key, _, value = argument.lstrip("+").partition("=")
        named = self._named_data
        if key not in _ROOT_WORDS:
            return [f"++{key}={value}" if self.goes_on and named is None else argument]
        if not _unquoted(value).strip():
            raise ConfigError(f"{key}= names nothing; type the path of a folder, or . for this one")
        if named is None:
            kind, place = _data_at(value, is_elsewhere=self.is_elsewhere)
            return [f"++{place}"] if self.goes_on else [kind, place]
        if _is_path(named):
            raise ConfigError(f"data={named} and {key}={value} both say where the images are")
        if named not in names_of("data") or named == "own":
            return [f"data.options.root={value}"]
        option = place_option(named)
        if option is None:
            raise ConfigError(
                f"{key}={value}: the data set {named} is at no place of yours; images at a place are "
                f"data={value}, without data={named}"
            )
        return [f"data.options.{option}={value}"]

    def _check_word(self, key: str, value: str) -> None:
        """Raises ConfigError with the setting to type if a word is another word for one.

        Further such words of the command are answered with it.
        """
        if not is_word(key) or value.startswith("{"):
            return
        known = self._known()
        if key not in known:
            further = (one.partition("=")[::2] for one in self.arguments if one[0] not in "-+~")
            others = {word: its for word, its in further if is_word(word) and word not in known}
            raise ConfigError(no_settings({key: value, **others}, known, self.words, self.name))

    def _named_code(self, key: str, value: str) -> list[str]:
        """Returns the overrides for the name of code in place of a data set or a backbone of ours.

        The options of what was there before are not for it. Nothing is returned for anything else.
        """
        above, _, last = key.rpartition(".")
        group = above.rpartition(".")[2]
        is_code = last == "name" and group in ("data", "backbone") and _MEMBER.fullmatch(value)
        others = {path_of(one) for one in self.arguments if "=" in one and one[0] not in "-~"}
        is_chosen = self.goes_on or above in others or (group == "backbone" and "peers" in others)
        return _part(above, group, value) if is_code and not is_chosen else []


def _has(known: Mapping[str, object], key: str) -> bool:
    """Whether there is a setting of this name, or settings below it."""
    return any(setting == key or setting.startswith(f"{key}.") for setting in known)


def _part(path: str, group: str, value: str) -> list[str]:
    """Returns the overrides that choose a part of the settings by its name; none if it is no name.

    Args:
        path: of the part.
        group: of settings, which has the files.
        value: the name of a file, or of code.
    """
    at = path if path == group else f"{group}@{path}"
    code = _MEMBER.fullmatch(value)
    if code is not None and "own" in names_of(group):
        library = (
            code["package"] if group == "backbone" and code["package"] in _LIBRARIES else "own"
        )
        return [f"{at}={library}", f"{path}.name={value}"]
    return [f"{at}={value}"] if _WORD.fullmatch(value) else []


def _with_options_of_own(overrides: Sequence[str]) -> list[str]:
    """Returns the overrides, in which options of what has any options may be new."""
    open_paths = {
        f"{path_of(one)}.options."
        for one in overrides
        if "=" in one and one.partition("=")[2] in _NEED_A_NAME
    }
    return [
        f"++{one}" if one[:1] not in "+~-" and one.startswith(tuple(open_paths)) else one
        for one in overrides
    ]


def _with_whole_table(override: str, line: Sequence[str]) -> str:
    """Returns the override with the whole path of a table of labels that is in the current folder.

    It is read again where the run goes on, which may be elsewhere. One that is in the folder of the
    images is found there.
    """
    key, _, value = override.partition("=")
    table = Path(_unquoted(value))
    if not path_of(override).endswith(_TABLE) or not table.suffix or not table.is_file():
        return override
    place = f"{path_of(override).removesuffix('labels')}root"
    roots = [_unquoted(one.partition("=")[2]) for one in line if path_of(one) == place]
    if roots and (Path(roots[-1]) / table).is_file():
        return override
    return _readable(f"{key}={os.path.abspath(table)}")


def _is_path(value: str) -> bool:
    """Whether a value of `data` is a place and not a name, or a list of names.

    Raises:
        ConfigError: it is on another machine.
    """
    value = _unquoted(value)
    if not value or (value.startswith("[") and value.endswith("]")):
        return False
    if "://" in value:
        raise ConfigError(
            f"{value} is an address; images are read from this machine, so copy them here, and type "
            "data=<their folder>"
        )
    return (
        "/" in value
        or value.startswith(("~", "."))
        or (value not in names_of("data") and Path(value).exists())
    )


def _named_data(value: str, setting: str, is_elsewhere: bool) -> list[str]:
    """Returns the overrides for a data set by its name or its place, or by the code that loads it."""
    if _is_path(value):
        return _data_at(value, setting, is_elsewhere)
    if _MEMBER.fullmatch(value):
        return [f"{setting}=own", f"{setting}.name={value}"]
    return [f"{setting}={value}"]


def _data_at(value: str, setting: str = "data", is_elsewhere: bool = False) -> list[str]:
    """Returns the overrides for images at a place: which kind of data set, and where it is.

    Raises:
        ConfigError: there is no place, or it has to be absolute, and is not.
    """
    if not _unquoted(value).strip():
        raise ConfigError(f"{setting}= names nothing; type the path of a folder, or . for this one")
    place = typed_path(_unquoted(value))
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
    is_list = value.strip().startswith("[")
    inner = value.strip().removeprefix("[").removesuffix("]")
    backbones = [name.strip().strip("'\"") for name in inner.split(",") if name.strip()]
    presets = names_of("peers")
    if backbones and not is_list and all(name in presets for name in backbones):
        return [f"peers={','.join(backbones)}"]
    if value.strip().startswith("{") or value == "null":
        return [f"peers={value}"]
    for name in backbones or [""]:
        if not is_backbone(name):
            raise ConfigError(
                _no_backbone(value, name, may_be_preset=not is_list and len(backbones) == 1)
            )
    overrides = ["~peers"]
    for peer, backbone in zip(_distinct(map(peer_name, backbones)), backbones, strict=True):
        overrides.append(f"+peer@peers.{peer}={LEFT_TO_THE_IMAGES}")
        overrides += _part(f"peers.{peer}.backbone", "backbone", backbone)
        if backbone.startswith(_SMALL):
            overrides.append(f"optimizer@peers.{peer}.optimizer=adam")
    return overrides


def is_place_of_data(key: str) -> bool:
    """Whether a key says where the images are, or is another option of the data set."""
    return key in _ROOT_WORDS or key.startswith("data.options.")


def is_backbone(name: str) -> bool:
    """Whether a peer can be made of this name: a backbone's, or that of code."""
    return (name in names_of("backbone") and name not in _NEED_A_NAME) or bool(
        _MEMBER.fullmatch(name)
    )


def peer_name(backbone: str) -> str:
    """Returns the name of a peer that is made of a backbone, which may be one of a library."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", backbone).strip("_-")[:_LONGEST_NAME]


def _no_backbone(value: str, name: str, *, may_be_preset: bool) -> str:
    """Returns the sentence about a name in `peers=` of which no peer can be made."""
    presets = names_of("peers")
    known = [backbone for backbone in names_of("backbone") if backbone not in _NEED_A_NAME]
    near = difflib.get_close_matches(name, [*known, *(presets if may_be_preset else ())], n=3)
    example = "timm:<model>, torchvision:<model>, and <package.module>:<name> for your own"
    said = f"{name}:<model>" if name in _LIBRARIES else ""
    said = "<package.module>:<name>" if name == "own" else said
    hint = f"; type {said} in its place" if said else did_you_mean(near)
    return (
        f"peers={value}: {name!r} is no {'set of peers and no ' * may_be_preset}backbone; known are "
        f"{', '.join(known)}, {example}. Sets of peers are {', '.join(presets)}{hint}"
    )


def _distinct(names: Iterable[str]) -> list[str]:
    """Returns the names, in which a number goes behind one that comes again."""
    found: list[str] = []
    for name in names:
        numbered = (name if number == 1 else f"{name}_{number}" for number in count(1))
        found.append(next(one for one in numbered if one not in found))
    return found


def _readable(override: str) -> str:
    """Returns the override with its value in quotes if Hydra can't read it as it is.

    A "~" at the start of a value is the user's folder.
    """
    key, equals, value = override.partition("=")
    if value.startswith("~/"):
        value = str(typed_path(value))
        override = f"{key}={value}"
    if not equals or _can_be_read(override) or value[:1] in "[{'\"":
        return override
    return quoted(key, value)


def _can_be_read(override: str) -> bool:
    (override,) = for_each_peer([override], ["any"])
    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    is_path_with_comma = parsed.is_sweep_override() and "," in override and "/" in override
    return not is_path_with_comma


def _unquoted(value: str) -> str:
    return value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
