"""The address of a site's peer process: a socket file, or a loopback port with a token.

A caller can start training with this site's data, so only the owner of the process may call it.
"""

from __future__ import annotations

import os
import re
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from dogo_fed.errors import ConfigError
from dogo_fed.wire.secret import new_secret

ADDRESS_KEY = "peer-address"
"""The key of a SuperNode's configuration that says where the site's peer process listens."""

TOKEN_FILE_KEY = "peer-token-file"
"""The key of a SuperNode's configuration that names the file with the token, if there is one."""

TOKEN_KEY = "dogo-site-token"
"""The metadata under which a call to a site's peer process carries the token."""

METHOD = "/dogo.Site/Handle"
"""The only method: it takes the bytes of a message and returns the bytes of the reply."""

DEFAULT_MESSAGE_BYTES = 64 * 1024 * 1024

_LONGEST_SOCKET_PATH = 100
_SHORTEST_TOKEN = 32
_PROBE_TIMEOUT_S = 1.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class SiteAddress:
    """A socket file or a port of the loopback interface; exactly one of the two is set."""

    path: Path | None = None
    port: int | None = None

    def __str__(self) -> str:
        """Returns the address as the command line and gRPC write it."""
        return f"unix:{self.path}" if self.path is not None else f"{_LOOPBACK}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> SiteAddress:
        """Returns the address for "unix:/path/to/peer.sock" or "127.0.0.1:port".

        Raises:
            ConfigError: it is neither, or an interface that other machines can reach.
        """
        if text.startswith("unix:"):
            return cls(path=_socket_path(text.removeprefix("unix:")))
        host, _, port = text.rpartition(":")
        if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) < 65536:
            raise ConfigError(
                f"{text!r} is no address of a peer process; write unix:/path/to/peer.sock or "
                f"{_LOOPBACK}:port with a port from 1 to 65535"
            )
        if host != _LOOPBACK:
            raise ConfigError(
                f"a peer process listens on {_LOOPBACK} only, not on {host!r}, since other "
                "machines must not reach it; write unix:/path/to/peer.sock or "
                f"{_LOOPBACK}:{port}"
            )
        return cls(port=int(port))

    def is_answered(self) -> bool:
        """Whether a process listens there now."""
        family = socket.AF_UNIX if self.path is not None else socket.AF_INET
        target = str(self.path) if self.path is not None else (_LOOPBACK, self.port)
        with socket.socket(family) as probe:
            probe.settimeout(_PROBE_TIMEOUT_S)
            return probe.connect_ex(target) == 0


def _socket_path(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute():
        raise ConfigError(f"the path of the socket must be absolute, not {text!r}")
    if len(os.fsencode(path)) > _LONGEST_SOCKET_PATH:
        raise ConfigError(
            f"the path of the socket {text!r} is longer than {_LONGEST_SOCKET_PATH} bytes, which "
            "operating systems don't allow; take a shorter one"
        )
    return path


def make_private_folder(folder: Path) -> None:
    """Makes the folder of a socket, for the owner only, or checks the one that is there.

    Raises:
        ConfigError: it can't be made, belongs to another user, or other users may write to it.
    """
    try:
        if not folder.exists():
            folder.mkdir(mode=0o700)
        found = folder.stat()
    except OSError as error:
        raise ConfigError(f"there is no folder {folder} for the socket: {error}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{folder}, which should hold the socket, is no folder")
    if found.st_uid != os.getuid():
        raise ConfigError(f"the folder {folder} belongs to another user; take one of your own")
    if found.st_mode & 0o022:
        raise ConfigError(
            f"other users may write to the folder {folder}, so they could replace the socket by "
            f"theirs; chmod 700 {folder}, or take another folder"
        )


def make_token(path: Path) -> str:
    """Returns the token in this file; makes one if there is no such file.

    Raises:
        ConfigError: see `read_token`, or the file can't be written.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_token(path)
    except OSError as error:
        raise ConfigError(f"the token can't be written to {path}: {error}") from error
    token = new_secret()
    with os.fdopen(handle, "w", encoding="ascii") as file:
        file.write(f"{token}\n")
    return token


def read_token(path: Path) -> str:
    """Returns the token in this file.

    Raises:
        ConfigError: there is none, it is too short, or other users may read or change it.
    """
    try:
        found = path.stat()
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"there is no token to be read in {path}: {error}") from error
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ConfigError(
            f"the token in {path} must belong to you, and only you may read it (chmod 600 {path})"
        )
    if len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"the token in {path} is shorter than {_SHORTEST_TOKEN} characters; remove the file, "
            "and `dogo-fed peer` makes a good one"
        )
    return token
