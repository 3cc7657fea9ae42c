"""Calls in HTTP/2's own bytes, each with the beginning of a message that never comes to its end."""

from __future__ import annotations

import socket
import time

_SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_DATA, _HEADERS = 0, 1
_END_STREAM, _END_HEADERS = 1, 4
_BYTES_SENT = 1000  # of each message, so that all of a connection are below HTTP/2's first window


def ended_calls(
    line: socket.socket, method: str, num_calls: int, message_bytes: int, within_s: float = 10.0
) -> int:
    """Begins calls over a new connection; returns how many the server has ended within this time.

    Args:
        line: the connection; nothing was sent over it yet.
        method: e.g. "/dogo.v1.Coordination/Exchange".
        num_calls: 32 at most.
        message_bytes: how long each message claims to be; 1000 of them are sent.
        within_s: how long to wait for the server, in seconds.
    """
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": method,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    headers = b"".join(_literal(name, value) for name, value in fields.items())
    beginning = b"\x00" + message_bytes.to_bytes(4, "big") + bytes(_BYTES_SENT)
    line.sendall(
        _SETTINGS
        + b"".join(
            _frame(_HEADERS, _END_HEADERS, stream, headers) + _frame(_DATA, 0, stream, beginning)
            for stream in range(1, 2 * num_calls, 2)
        )
    )
    ended, received, give_up_at_s = 0, b"", time.monotonic() + within_s
    while ended < num_calls and (left_s := give_up_at_s - time.monotonic()) > 0:
        line.settimeout(left_s)
        try:
            piece = line.recv(65_536)
        except TimeoutError:
            break
        if not piece:
            break
        received += piece
        while len(received) >= 9 and len(received) >= (end := 9 + int.from_bytes(received[:3])):
            ended += received[3] == _HEADERS and bool(received[4] & _END_STREAM)
            received = received[end:]
    return ended


def _literal(name: str, value: str) -> bytes:
    """Returns a field as HPACK writes one that it does not know; both parts are short."""
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def _frame(kind: int, flags: int, stream: int, content: bytes) -> bytes:
    head = len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
    return head + content
