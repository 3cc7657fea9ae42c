"""A coordinator's service on a free port of the loopback interface, and clients of it."""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack

import pytest

from clients.peer.grpc_link import Connection, GrpcLink
from dogo_fed.coordination.coordinator import Coordinator
from dogo_fed.wire.format import WireFormat
from dogo_fed.wire.secret import credential_of
from server.coordinator.calls import CoordinatorCalls
from server.coordinator.service import CoordinatorService, ServiceSettings
from tests.support.distributions import ADA, BOB, RUN_ID, SIZE, Clock, KeepingSink, settings

SECRET = "s3cret"


class Site:
    """Everything around one coordinator; services may come and go, the state machine stays."""

    def __init__(
        self,
        leaving,
        peers=(ADA, BOB),
        size=SIZE,
        answer_within_s=20.0,
        is_symmetric=False,
        real_clock=False,
        **variants,
    ):
        self._leaving = leaving
        self.wire = WireFormat(size, is_symmetric)
        self.answer_within_s = answer_within_s
        self.sink = KeepingSink()
        self.clock = time.monotonic if real_clock else Clock()
        given = settings(peers, **variants)
        self.coordinator = Coordinator(given, self.clock(), self.sink.emit)
        self.address = self.start()

    def start(self, port=0):
        """Starts a service; the last one must have been stopped."""
        self.service = CoordinatorService(
            CoordinatorCalls(self.coordinator, RUN_ID, self.wire, self.sink, self.clock),
            ServiceSettings(
                address="127.0.0.1",
                port=port,
                secret=SECRET,
                answer_within_s=self.answer_within_s,
            ),
            self.clock,
        )
        address = self.service.start()
        self._leaving.callback(self.service.stop)
        return address

    @property
    def port(self):
        return int(self.address.rpartition(":")[2])

    def client(self, peer, *, credential=None, size=None, reconnect_s=1.0, address=None):
        connection = Connection(
            address=address or self.address,
            credential=credential or credential_of(SECRET, RUN_ID, peer),
            wire=self.wire if size is None else dataclasses.replace(self.wire, batch_size=size),
            answer_within_s=5.0,
            reconnect_s=reconnect_s,
        )
        client = GrpcLink(peer, RUN_ID, connection)
        self._leaving.callback(client.close)
        return client


@pytest.fixture
def make_site():
    with ExitStack() as leaving:
        yield lambda *args, **kwargs: Site(leaving, *args, **kwargs)


@pytest.fixture
def site(make_site):
    return make_site()
