"""The server of a site's peer process: where it listens, and who may call it."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from clients.flower.site.address import METHOD, SiteAddress, make_token
from clients.flower.site.carrier import SiteCarrier
from clients.flower.site.server import SiteServer
from dogo_fed.errors import ConfigError, ExchangeError, Refused
from tests.support.echoing_site import server
from tests.support.ports import free_port
from tests.support.unfinished_calls import ended_calls

REPLY_WITHIN_S = 10.0


def test_bytes_there_and_back_over_a_socket_of_the_owner(address: SiteAddress) -> None:
    assert address.path is not None
    with server(address):
        assert stat.S_IMODE(address.path.stat().st_mode) == 0o600
        assert SiteCarrier(address).forward(b"start", REPLY_WITHIN_S) == b"START"
        with pytest.raises(ExchangeError, match="max_message_bytes"):
            SiteCarrier(address).forward(b"x" * 20_000, REPLY_WITHIN_S)


def test_a_missing_folder_is_made_for_the_owner_only(tmp_path: Path) -> None:
    with server(SiteAddress(path=tmp_path / "new" / "peer.sock")):
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_folder_that_others_may_write_to_is_refused(address: SiteAddress, folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"), server(address):
        pass


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(address: SiteAddress) -> None:
    assert address.path is not None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(address.path))
    with server(address):
        assert SiteCarrier(address).forward(b"a", REPLY_WITHIN_S) == b"A"
        with pytest.raises(ConfigError, match="already"), server(address):
            pass
        assert SiteCarrier(address).forward(b"still", REPLY_WITHIN_S) == b"STILL"


def test_a_file_in_the_way_is_left_alone(address: SiteAddress) -> None:
    assert address.path is not None
    address.path.write_text("precious")
    with pytest.raises(ConfigError, match="in the way"), server(address):
        pass
    assert address.path.read_text() == "precious"


def test_a_port_that_is_taken_is_refused() -> None:
    listen = SiteAddress(port=free_port())
    with (
        server(listen, token="t" * 32),
        pytest.raises(ConfigError, match="already"),
        server(listen, token="t" * 32),
    ):
        pass


def test_the_token_decides_who_may_call(tmp_path: Path) -> None:
    listen, token = SiteAddress(port=free_port()), make_token(tmp_path / "token")
    node_config = {"peer-address": str(listen), "peer-token-file": str(tmp_path / "token")}
    with server(listen, token):
        carrier = SiteCarrier.from_node_config(node_config)
        assert carrier.forward(b"a", REPLY_WITHIN_S) == b"A"
        for wrong in (None, "x" * 64):
            with pytest.raises(Refused, match="peer-token-file"):
                SiteCarrier(listen, wrong).forward(b"a", REPLY_WITHIN_S)


def test_who_never_finishes_a_message_and_has_no_token_keeps_nobody_out(tmp_path: Path) -> None:
    """All threads would wait for such messages, if they waited for messages at all."""
    listen, token = SiteAddress(port=free_port()), make_token(tmp_path / "token")
    assert listen.port is not None
    with (
        server(listen, token),
        socket.create_connection(("127.0.0.1", listen.port), timeout=5) as line,
    ):
        assert ended_calls(line, METHOD, 8, 9000) == 8
        assert SiteCarrier(listen, token).forward(b"a", REPLY_WITHIN_S) == b"A"


def test_a_server_that_ends_turns_calls_away_and_keeps_its_address(address: SiteAddress) -> None:
    ending = SiteServer(address, bytes.upper, token=None, max_message_bytes=100)
    ending.refuse()
    with pytest.raises(ExchangeError, match="just ending"):
        SiteCarrier(address).forward(b"a", REPLY_WITHIN_S)
    with pytest.raises(ConfigError, match="already"), server(address):
        pass
    ending.stop()
    with server(address):
        assert SiteCarrier(address).forward(b"a", REPLY_WITHIN_S) == b"A"
