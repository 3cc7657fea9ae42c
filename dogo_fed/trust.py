"""Whose settings may name code: a run folder's only if this user has run them, or says so.

A setting such as `data.name: package.module:callable` is called. On this user's command line that
is what he asks for; in a config.yaml it may be somebody else's wish. So whenever a run of this user
writes a config.yaml that names code, the digest of that text is remembered, outside the run folder.
Settings from a folder are followed if their digest is remembered. A file that was edited has another
digest. Where a run that goes on would meet others counts in the same way (`places_in`).

Only a process that reads a run folder asks. A peer's process gets its settings from the launcher of
its own run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dogo_fed.atomic import write_json_atomic
from dogo_fed.components import is_known
from dogo_fed.config import ComponentConfig, RunConfig
from dogo_fed.errors import ConfigError
from dogo_fed.models.catalog import BACKBONES
from dogo_fed.private_files import private_files
from dogo_fed.text import some_of

logger = logging.getLogger(__name__)

STATE_VARIABLE = "DOGO_FED_STATE"
"""Environment variable: the folder in place of ~/.local/state/dogo-fed."""

_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Reach:
    """A setting by which a config.yaml makes others' code run here, or lets others in.

    Attributes:
        setting: its path, e.g. "data.name".
        value: what it says, e.g. "package.module:callable".
    """

    setting: str
    value: str

    def __str__(self) -> str:
        """Returns both, as on a command line."""
        return f"{self.setting}={self.value}"


def code_in(config: RunConfig) -> Iterator[Reach]:
    """Yields the import paths in a configuration.

    A backbone that is a model of timm or torchvision is none. Anywhere else such a name is the import
    path of whatever these packages hold. Options count too, since the option of a data set may name
    another data set.
    """
    for path, component in _components_in("", config):
        is_backbone = path.startswith("peers.") and path.endswith(".backbone")
        if not (is_backbone and is_known(component.name, BACKBONES)):
            yield from _import_paths(f"{path}.name", component.name)
        yield from _import_paths(f"{path}.options", component.options)


def places_in(config: RunConfig) -> Iterator[Reach]:
    """Yields the places by which a run that goes on lets others in.

    A Ray cluster can run code in who joins it. Peers hand their credentials and their rows to a
    public address of the coordinator, and an address to listen on opens this machine. Whatever the
    host is: a run may go on in another one.
    """
    if config.ray.address is not None:  # "auto" too: what is found here may be another user's
        yield Reach("ray.address", str(config.ray.address))
    for name in ("address", "public_address"):
        place = getattr(config.coordinator, name)
        if place is not None:
            yield Reach(f"coordinator.{name}", str(place))


def _components_in(path: str, value: object) -> Iterator[tuple[str, ComponentConfig]]:
    """Yields every component of a configuration, with the path of its setting."""
    if isinstance(value, ComponentConfig):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _components_in(f"{path}.{key}", inner)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            inside = f"{path}.{field.name}" if path else field.name
            yield from _components_in(inside, getattr(value, field.name))


def _import_paths(path: str, value: object) -> Iterator[Reach]:
    """Yields every text in nested values that `components.resolve` could take for an import path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _import_paths(f"{path}.{key}", inner)
    elif isinstance(value, str):
        module, _, attribute = value.partition(":")
        if module and attribute:
            yield Reach(path, value)
    elif isinstance(value, Sequence):
        for place, inner in enumerate(value):
            yield from _import_paths(f"{path}[{place}]", inner)


def remember_run(text: str, config: RunConfig) -> None:
    """Notes that this user runs these settings; nothing if they name no code and no such place.

    Where the note can't be written, a warning says what follows.

    Args:
        text: the whole config.yaml of the run.
        config: what it says.
    """
    reaches = [*code_in(config), *places_in(config)]
    if reaches:
        _remember(text, reaches)


def check_trust(path: Path, text: str, reaches: Sequence[Reach], *, says_so: bool) -> None:
    """Checks that what a config.yaml names may be followed.

    Args:
        path: where the file is, for the message.
        text: its content.
        reaches: what it names.
        says_so: whether the user says that he trusts it; that is remembered.

    Raises:
        ConfigError: he has neither said so nor run these settings before.
    """
    if {str(reach) for reach in reaches} <= _remembered(text):
        return
    if not says_so:
        raise ConfigError(
            f"{path} has {some_of(reaches, _MOST_NAMED)}, which would run code of whoever wrote that, or "
            "let him in. You have not run these settings before, or the file was changed since; if you "
            "trust it, add trust=true"
        )
    _remember(text, reaches)


def _remembered(text: str) -> set[str]:
    """Returns what this user trusts in these settings."""
    try:
        names = json.loads(_note(text).read_text(encoding="utf-8"))["names"]
    except (OSError, ValueError, LookupError, TypeError):
        return set()
    return {str(name) for name in names}


def _remember(text: str, reaches: Sequence[Reach]) -> None:
    note = _note(text)
    names = _remembered(text).union(map(str, reaches))
    try:
        with private_files():
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json_atomic(note, {"names": sorted(names)})
    except OSError as error:
        logger.warning(
            "that you trust %s can't be remembered (%s); going on with this run, or evaluating it, "
            "will need trust=true. %s=FOLDER chooses another place",
            some_of(reaches, _MOST_NAMED),
            error,
            STATE_VARIABLE,
        )


def _note(text: str) -> Path:
    """Returns the file that says that these settings are trusted."""
    return _state_folder() / "trusted" / hashlib.sha256(text.encode()).hexdigest()


def _state_folder() -> Path:
    """Returns this user's folder for what outlives a run."""
    chosen = os.environ.get(STATE_VARIABLE)
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):  # the standard ignores a relative one
        base = os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(base, "dogo-fed")
