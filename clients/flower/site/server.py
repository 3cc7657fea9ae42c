"""The gRPC server of a site's peer process: one method, bytes for bytes, for the owner only."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from clients.flower.site.address import METHOD, TOKEN_KEY, SiteAddress, make_private_folder
from dogo_fed.errors import ConfigError
from dogo_fed.wire.connections import server_options
from dogo_fed.wire.secret import is_carried

logger = logging.getLogger(__name__)

_NUM_THREADS = 8
_MOST_CONNECTIONS = 64
_STOP_GRACE_S = 1.0
_STOP_WAIT_S = 10.0


class SiteServer:
    """Listens from its construction until `stop`."""

    def __init__(
        self,
        listen: SiteAddress,
        handle: Callable[[bytes], bytes],
        *,
        token: str | None,
        max_message_bytes: int,
    ) -> None:
        """Starts to listen.

        Args:
            listen: the address to listen on.
            handle: returns the reply to a message; several threads call it.
            token: the token that calls must carry; None if the file system decides who may call.
            max_message_bytes: largest message or reply.

        Raises:
            ConfigError: another process listens there already, or it can't be listened on.
        """
        self._server = grpc.server(
            ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="site"),
            interceptors=[] if token is None else [_TokenCheck(token)],
            maximum_concurrent_rpcs=_NUM_THREADS,
            options=server_options(max_message_bytes, _MOST_CONNECTIONS),
        )
        self._calls = _Calls(handle)
        self._server.add_generic_rpc_handlers((self._calls,))
        if listen.path is not None:
            _bind_socket_file(self._server, listen, listen.path)
        else:
            _bind(self._server, listen)
        self._server.start()

    def refuse(self) -> None:
        """Refuses all further calls, but keeps the address, so that no other process takes it."""
        self._calls.is_open = False

    def stop(self) -> None:
        """Stops listening; calls under way are cut off after 1 s."""
        self._server.stop(_STOP_GRACE_S).wait(_STOP_WAIT_S)


class _Calls(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Handles the only method. Bodies stay bytes; nothing is decoded here."""

    def __init__(self, handle: Callable[[bytes], bytes]) -> None:
        self._handle = handle
        self.is_open = True

    def service(self, call: Any) -> Any:
        """Returns the handler for this call, or None if there is no such method."""
        return grpc.unary_unary_rpc_method_handler(self._answer) if call.method == METHOD else None

    def _answer(self, body: bytes, context: Any) -> bytes:
        if not self.is_open:
            context.abort(grpc.StatusCode.UNAVAILABLE, "it is just ending")
        try:
            return self._handle(body)
        except Exception as error:  # the caller gets the error, and the process lives on
            logger.exception("a message could not be handled")
            context.abort(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {error}")
            raise AssertionError("abort raises") from error


class _TokenCheck(grpc.ServerInterceptor):  # type: ignore[misc]
    """Refuses calls without the token, before anything of their message is read."""

    def __init__(self, token: str) -> None:
        self._token = token

    def intercept_service(self, continuation: Callable[[Any], Any], call: Any) -> Any:
        """Returns the handler of the call, or one that refuses it."""
        if is_carried(self._token, TOKEN_KEY, call.invocation_metadata):
            return continuation(call)
        # As a handler of streams it need not wait, in one of few threads, for the message.
        return grpc.stream_unary_rpc_method_handler(_refuse)


def _refuse(messages: object, context: Any) -> None:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is missing or wrong")


def _bind(server: Any, listen: SiteAddress) -> None:
    """Binds the server.

    Raises:
        ConfigError: the address is taken or can't be listened on.
    """
    try:
        server.add_insecure_port(str(listen))
    except RuntimeError as error:
        raise ConfigError(
            f"can't listen on {listen}; does another process listen there already?"
        ) from error


def _bind_socket_file(server: Any, listen: SiteAddress, path: Path) -> None:
    """Binds the server to a socket file that only the owner may use; replaces a stale one.

    Raises:
        ConfigError: a process listens there, or there is a file that is not a socket.
    """
    make_private_folder(path.parent)
    with _only_one_in(path.parent):
        if listen.is_answered():
            raise ConfigError(
                f"another process listens on {listen} already; each peer of this site needs an "
                "address of its own"
            )
        if path.is_socket():
            path.unlink()
        elif path.exists():
            raise ConfigError(
                f"{path} is in the way: it is no socket; remove it, or listen elsewhere"
            )
        # Between bind and chmod the file must not be open to others, so it is made with 0600.
        earlier = os.umask(0o177)
        try:
            _bind(server, listen)
        finally:
            os.umask(earlier)
        path.chmod(0o600)


@contextmanager
def _only_one_in(folder: Path) -> Iterator[None]:
    """Locks the folder, so that of two processes only one replaces a stale socket."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # freed by the kernel if we die
        yield
    except BlockingIOError as error:
        raise ConfigError(
            f"another peer process is just starting in {folder}; try again"
        ) from error
    finally:
        os.close(handle)
