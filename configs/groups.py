"""The groups of settings, each a folder of files, and what these files have."""

from __future__ import annotations

from typing import Any

import yaml

from dogo_fed.packages import package_folder


def group_names() -> list[str]:
    """Returns the names of all groups."""
    folders = package_folder("configs").iterdir()
    return sorted(one.name for one in folders if one.is_dir() and any(one.glob("*.yaml")))


def names_of(group: str) -> list[str]:
    """Returns the names of the files of a group of settings."""
    folder = package_folder("configs") / group
    return sorted(path.stem for path in folder.glob("*.yaml"))


def place_option(data: str) -> str | None:
    """Returns the option of a data set that says where it is; None if it is at no place of the user's."""
    options = options_of(data)
    return next((one for one in ("root", "path") if one in options), None)


def options_of(data: str) -> list[str]:
    """Returns the options in the file of a data set."""
    path = package_folder("configs") / "data" / f"{data}.yaml"
    content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    return list(content.get("options") or ())
