"""Connections that nobody uses: they end, they are bounded, and files can still be opened."""

from __future__ import annotations

import functools
import json
import resource
import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import grpc
import pytest

from clients.peer.grpc_link import Connection, GrpcLink
from dogo_fed.errors import CoordinatorLost
from dogo_fed.wire import connections
from tests.support.distributions import ADA, AGREEMENT, BOB, RUN_ID, WIRE, distribution, ticket

HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


class Limited:
    """A coordinator in a process with this soft and this hard limit of descriptors."""

    def __init__(self, leaving, soft, hard):
        self._leaving = leaving
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.limited_coordinator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard)),
        )
        leaving.callback(self._process.wait, 30)
        leaving.callback(self._process.kill)
        leaving.callback(self._process.stdout.close)
        leaving.callback(self._process.stdin.close)
        told = json.loads(self._process.stdout.readline())
        self.address, self.limit = told["address"], told["limit"]
        self._credentials = told["credentials"]

    def opens_files(self):
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def link(self, peer, reconnect_s=30.0):
        connection = Connection(
            address=self.address,
            credential=self._credentials[peer],
            wire=WIRE,
            answer_within_s=20.0,
            reconnect_s=reconnect_s,
        )
        link = GrpcLink(peer, RUN_ID, connection)
        self._leaving.callback(link.close)
        return link

    def idle(self, number, first=b""):
        """Holds so many connections that say nothing more than this."""
        host, _, port = self.address.rpartition(":")
        for _ in range(number):
            line = socket.create_connection((host, int(port)), timeout=10)
            self._leaving.callback(line.close)
            line.sendall(first)


@pytest.fixture
def limited():
    with ExitStack() as leaving:
        yield lambda soft, hard: Limited(leaving, soft, hard)


def swap(ends, step):
    for seed, end in enumerate(ends):
        end.publish(ticket(step), distribution(10 * step + seed))
    assert [end.collect(ticket(step)).teachers for end in ends] == [(BOB,), (ADA,)]


def flooded(limited, first):
    """A coordinator whose soft limit was low, with two peers and more idle lines than descriptors."""
    coordinator = limited(256, 512)
    assert coordinator.limit == 512, "the soft limit is raised to the hard one"
    ends = [coordinator.link(peer) for peer in (ADA, BOB)]
    for end in ends:
        end.join(AGREEMENT)
    swap(ends, 0)
    coordinator.idle(600, first)
    for step in range(1, 4):
        swap(ends, step)
    assert coordinator.opens_files() == "opened"
    return coordinator


@pytest.mark.slow
def test_silent_connections_stop_nobody_and_soon_make_room_for_a_peer(limited):
    coordinator = flooded(limited, b"")
    began_s = time.monotonic()
    assert coordinator.link(ADA, reconnect_s=60.0).join(AGREEMENT) == 4
    assert time.monotonic() - began_s < 60.0, "gRPC's own patience is 120 s"


def test_connections_without_calls_stop_nobody_who_is_there(limited):
    """They look like peers that rest. A new peer finds no room, and is told so in time."""
    coordinator = flooded(limited, HTTP2)
    with pytest.raises(CoordinatorLost):
        coordinator.link(ADA, reconnect_s=1.0).join(AGREEMENT)


def test_both_ends_have_matching_options():
    """A server cuts off a client that pings more often than the server expects."""
    client, server = dict(connections.client_options(9)), dict(connections.server_options(9, 7))
    for name in ("keepalive_time_ms", "keepalive_timeout_ms", "keepalive_permit_without_calls"):
        assert client[f"grpc.{name}"] == server[f"grpc.{name}"] > 0
    assert client["grpc.keepalive_time_ms"] > server["grpc.http2.min_ping_interval_without_data_ms"]
    assert server["grpc.max_allowed_incoming_connections"] == 7
    for name in ("max_send_message_length", "max_receive_message_length"):
        assert client[f"grpc.{name}"] == server[f"grpc.{name}"] == 9


@pytest.mark.parametrize(
    ("limit", "num_open", "most"), [(1024, 40, 728), (20_000, 100, 19_644), (256, 60, 64)]
)
def test_descriptors_are_kept_free(limit, num_open, most):
    assert connections.most_connections(limit, num_open) == most


def test_a_peer_whose_connection_is_closed_for_its_age_misses_nothing(make_site, monkeypatch):
    """The answer that is held back comes over the old connection, the next call takes a new one."""
    monkeypatch.setattr(connections, "_AGE_S", 1)
    site = make_site()
    ends = [site.client(peer, reconnect_s=10.0) for peer in (ADA, BOB)]
    for end in ends:
        end.join(AGREEMENT)
    seen = []
    ends[0]._channel.subscribe(seen.append)
    began_s, step = time.monotonic(), 0
    while (
        seen.count(grpc.ChannelConnectivity.IDLE) + seen.count(grpc.ChannelConnectivity.CONNECTING)
        < 2
    ):
        assert time.monotonic() - began_s < 30.0, "no connection was closed"
        swap(ends, step)
        step += 1
    swap(ends, step)
    assert site.sink.events() == []
