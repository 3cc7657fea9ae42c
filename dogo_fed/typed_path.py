"""Paths as people type them."""

from __future__ import annotations

from pathlib import Path

from dogo_fed.errors import ConfigError


def typed_path(text: str) -> Path:
    """Returns the path that was typed; a "~" at its start is the user's folder, as in a shell.

    Raises:
        ConfigError: it is the folder of a user that there is not.
    """
    if not text.startswith("~"):
        return Path(text)  # "./~x" is a folder of this one
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        user = text.split("/")[0].removeprefix("~")
        raise ConfigError(
            f"{text}: there is no user {user!r} here. A folder of that name in this one is ./{text}; one "
            f"in your own folder is ~/{text.removeprefix('~')}"
        ) from error
