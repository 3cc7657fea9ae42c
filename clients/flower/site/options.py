"""The command line of a site's peer process. Imports no torch, since the watcher reads it too."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clients.flower.site.address import DEFAULT_MESSAGE_BYTES, SiteAddress, make_token
from dogo_fed.errors import ConfigError

USAGE = """\
usage: dogo-fed peer listen=ADDRESS [option=value ...] [key=value ...]

The peer of one site of a Flower deployment. It keeps the model, since Flower starts a new process
for each message.

  listen=unix:/path/to/peer.sock   the socket file to listen on, in a folder only you can write to
  listen=127.0.0.1:PORT            or a loopback port; needs token_file=
  token_file=PATH                  the token of callers; made if it is missing, readable only by you
  root_certificates=PATH           PEM, to check the coordinator's certificate
  max_message_bytes=N              largest message, by default 67108864

everything else is a setting of this site, as for `dogo-fed train`: peers=, data=, device=, run_dir=

The SuperNode gets the same address:
  flower-supernode ... --node-config 'peer-address="unix:/path/to/peer.sock"'
"""

_OWN = ("listen", "token_file", "root_certificates", "max_message_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOptions:
    """The command line of `dogo-fed peer`.

    Attributes:
        listen: the address to listen on.
        token: the token that calls must carry; None if the file system decides who may call.
        root_certificates: PEM, to check the coordinator's certificate.
        max_message_bytes: largest message or reply.
        overrides: settings of the site's own configuration.
    """

    listen: SiteAddress
    token: str | None
    root_certificates: bytes | None
    max_message_bytes: int
    overrides: tuple[str, ...]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> SiteOptions:
        """Returns the options of a command line; makes the token file if it is missing.

        Raises:
            ConfigError: an option is missing, unknown or impossible, or a file can't be read.
        """
        own = dict[str, str]()
        overrides = []
        for argument in arguments:
            key, equals, value = argument.partition("=")
            if not equals or key.startswith("-"):
                raise ConfigError(f"{argument!r} is no key=value; dogo-fed peer --help lists them")
            if key in _OWN:
                own[key] = value
            else:
                overrides.append(argument)
        if "listen" not in own:
            raise ConfigError("say where to listen: listen=unix:/path/to/peer.sock")
        listen = SiteAddress.parse(own["listen"])
        if listen.port is not None and "token_file" not in own:
            raise ConfigError(
                f"every user of this machine can call {listen}, so callers must know a token: add "
                "token_file=PATH, or listen on unix:/path/to/peer.sock"
            )
        return cls(
            listen=listen,
            token=make_token(Path(own["token_file"])) if "token_file" in own else None,
            root_certificates=_certificates(own.get("root_certificates")),
            max_message_bytes=_bytes(own.get("max_message_bytes")),
            overrides=tuple(overrides),
        )


def _certificates(path: str | None) -> bytes | None:
    if path is None:
        return None
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"root_certificates={path} can't be read: {error}") from error
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise ConfigError(f"root_certificates={path} holds no PEM certificate")
    try:
        ssl.create_default_context(cafile=path)
    except OSError as error:  # an error of TLS is one
        raise ConfigError(f"root_certificates={path} can't be used: {error}") from error
    return content


def _bytes(text: str | None) -> int:
    if text is None:
        return DEFAULT_MESSAGE_BYTES
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        raise ConfigError(f"max_message_bytes must be from 1 to 2147483647, not {text!r}")
    return int(text)
