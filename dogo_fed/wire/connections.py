"""How the gRPC connections of a run behave: the options of both ends, from the same numbers.

This module imports no gRPC: options are names with numbers.

A connection without traffic is pinged after a minute, from both ends, and given up if no answer
comes within half a minute. So a peer notices that its coordinator's machine is gone, and the
coordinator gets back the descriptors of peers that are. A server that expects pings less often than
its clients send them would cut them off. That is why both sets of options stand here together.
"""

from __future__ import annotations

from typing import TypeAlias

Options: TypeAlias = list[tuple[str, int]]

PING_AFTER_S = 60
PING_WITHIN_S = 30

_HANDSHAKE_WITHIN_S = 10
_IDLE_S = 600  # longer than an ordinary evaluation, in which a peer makes no call
_AGE_S = 6 * 3600
_AGE_GRACE_S = 600
_CALLS_PER_CONNECTION = 32

_RESERVE = 256
"""Descriptors that are kept for checkpoints, logs, pictures and the peers' processes."""

_KEEPALIVE: Options = [
    ("grpc.keepalive_time_ms", PING_AFTER_S * 1000),
    ("grpc.keepalive_timeout_ms", PING_WITHIN_S * 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]


def client_options(limit_bytes: int) -> Options:
    """Returns the options of a peer's connection.

    Args:
        limit_bytes: size of the largest message.
    """
    return [
        *_message_sizes(limit_bytes),
        *_KEEPALIVE,
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),  # else peers in one process share a connection
        # gRPC's default waits up to two minutes between two attempts to connect.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1000),
    ]


def server_options(limit_bytes: int, most_connections: int) -> Options:
    """Returns the options of the coordinator's server.

    A connection that says nothing in gRPC's language is closed after 10 s, one without a call after
    10 minutes, and every one after 6 hours. A peer connects again by itself and misses nothing.

    Args:
        limit_bytes: size of the largest message.
        most_connections: connections at one time; more are closed at once.
    """
    return [
        *_message_sizes(limit_bytes),
        *_KEEPALIVE,
        ("grpc.http2.min_ping_interval_without_data_ms", PING_AFTER_S * 1000 // 2),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_WITHIN_S * 1000),
        ("grpc.max_connection_idle_ms", _IDLE_S * 1000),
        ("grpc.max_connection_age_ms", _AGE_S * 1000),
        ("grpc.max_connection_age_grace_ms", _AGE_GRACE_S * 1000),
        ("grpc.max_concurrent_streams", _CALLS_PER_CONNECTION),
        ("grpc.max_allowed_incoming_connections", most_connections),
        ("grpc.so_reuseport", 0),  # else a second coordinator could share the port unseen
    ]


def most_connections(descriptor_limit: int, num_open: int) -> int:
    """Returns how many connections a process may take, so that 256 descriptors stay free.

    Args:
        descriptor_limit: how many descriptors the process may have.
        num_open: how many it has.
    """
    return max(descriptor_limit - num_open - _RESERVE, descriptor_limit // 4)


def _message_sizes(limit_bytes: int) -> Options:
    return [
        ("grpc.max_send_message_length", limit_bytes),
        ("grpc.max_receive_message_length", limit_bytes),
    ]
