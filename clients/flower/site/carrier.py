"""Carries a Flower message to this site's peer process; needs no torch and no settings."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc

from clients.flower.site.address import (
    ADDRESS_KEY,
    METHOD,
    TOKEN_FILE_KEY,
    TOKEN_KEY,
    SiteAddress,
    read_token,
)
from dogo_fed.errors import (
    ConfigError,
    DogoError,
    ExchangeError,
    ExchangeTimeout,
    Refused,
)

_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    # So that a connection is new, and not one to a peer process that has just died.
    ("grpc.use_local_subchannel_pool", 1),
    # So that a peer process that is started again is found soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # The peer process has the limit (max_message_bytes), for both directions.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)


class SiteCarrier:
    """Carries messages from a ClientApp to its site's peer process, each over a new connection."""

    def __init__(self, address: SiteAddress, token: str | None = None) -> None:
        self._address = address
        self._metadata = () if token is None else ((TOKEN_KEY, token),)

    @classmethod
    def from_node_config(cls, node_config: Mapping[str, object]) -> SiteCarrier:
        """Returns the carrier that a SuperNode's `--node-config` describes.

        Raises:
            ConfigError: the address is missing or impossible, or the token can't be read.
        """
        address, token_file = node_config.get(ADDRESS_KEY), node_config.get(TOKEN_FILE_KEY)
        if not isinstance(address, str):
            raise ConfigError(
                "this SuperNode does not say where its site's peer process listens; start it with "
                f"--node-config '{ADDRESS_KEY}=\"unix:/path/to/peer.sock\"'"
            )
        token = None if token_file is None else read_token(Path(str(token_file)))
        return cls(SiteAddress.parse(address), token)

    def forward(self, body: bytes, timeout_s: float) -> bytes:
        """Returns the peer process's reply to these bytes, which are sent once and not repeated.

        A peer process that does not listen yet is waited for, since it may be starting again.

        Args:
            body: an encoded message.
            timeout_s: time for connection and reply together, in seconds.

        Raises:
            ExchangeTimeout: nothing listened in time, or there was no reply in time.
            Refused: the peer process wants another token.
            ExchangeError: another user owns the socket, the process died over this message, or it
                could not handle it.
        """
        deadline_s = time.monotonic() + timeout_s
        self._check_owner()
        with grpc.insecure_channel(str(self._address), options=_OPTIONS) as channel:
            try:
                grpc.channel_ready_future(channel).result(timeout=timeout_s)
            except grpc.FutureTimeoutError as error:
                raise ExchangeTimeout(
                    f"no process answers at {self._where} within {timeout_s:g} s"
                ) from error
            call = channel.unary_unary(METHOD)
            left_s = max(0.0, deadline_s - time.monotonic())
            try:
                reply: bytes = call(body, timeout=left_s, metadata=self._metadata)
            except grpc.RpcError as error:
                raise self._translate(error, timeout_s) from error
        return reply

    @property
    def _where(self) -> str:
        return (
            f"{self._address}, where this site's peer process should listen; start it with "
            f"`dogo-fed peer listen={self._address} ...`, as the user that the SuperNode runs as"
        )

    def _check_owner(self) -> None:
        """Raises ExchangeError if another user owns the socket file: it is not our peer process."""
        path = self._address.path
        if path is None:
            return
        try:
            owner = path.stat().st_uid
        except FileNotFoundError:
            return  # the peer process may be starting
        except OSError as error:
            raise ExchangeError(f"this user may not look at {self._where} ({error})") from error
        if owner not in (os.getuid(), 0):
            raise ExchangeError(f"another user (id {owner}) owns {self._where}")

    def _translate(self, error: Any, timeout_s: float) -> DogoError:
        code, details = error.code(), error.details() or "no details"
        where = f"the peer process at {self._address}"
        if code is grpc.StatusCode.UNAVAILABLE:
            return ExchangeError(
                f"{where} ended before it had replied ({details}); its log says why"
            )
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ExchangeTimeout(f"{where} did not reply within {timeout_s:g} s; is it frozen?")
        if code is grpc.StatusCode.UNAUTHENTICATED:
            return Refused(
                f"{where} refused this SuperNode: {details}; {TOKEN_FILE_KEY} in --node-config "
                "must name the file that `dogo-fed peer` was given as token_file="
            )
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
            return ExchangeError(
                f"{where} is busy, or the message is too large for it ({details}); see "
                "max_message_bytes of `dogo-fed peer`"
            )
        return ExchangeError(f"{where} failed: {code.name}: {details}")
