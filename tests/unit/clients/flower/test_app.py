"""The ClientApp at a site: what it tells of a peer process that it can't ask."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

from clients.flower.site.carrier import SiteCarrier
from dogo_fed.errors import ExchangeError, ExchangeTimeout
from dogo_fed.wire import dogo_pb2 as pb

pytestmark = pytest.mark.usefixtures("flower_identity")


@pytest.fixture
def client_app(monkeypatch):
    """The module, loaded as in a process that starts no Ray."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    return importlib.import_module("clients.flower.app")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            ExchangeError("the peer process at unix:/x failed: INTERNAL: OSError: /data/anna.png"),
            "ExchangeError (the reason is in the site's log)",
        ),
        (
            ExchangeTimeout("no process answers at unix:/x/peer.sock within 3 s; ask anna"),
            "no process answers at its peer-address within 3 s; ask anna",
        ),
    ],
)
def test_a_reason_that_may_be_about_images_stays_at_the_site(
    client_app, error, told, monkeypatch, caplog
) -> None:
    def fail(self, body, timeout_s):
        raise error

    monkeypatch.setattr(SiteCarrier, "forward", fail)
    context = SimpleNamespace(node_config={"peer": "ada", "peer-address": "unix:/x/peer.sock"})
    reply = client_app._ask_site(pb.HostRequest(peer="ada").SerializeToString(), context)
    assert (reply.state, reply.message) == (pb.AWAY, told)
    assert "anna" in caplog.text
