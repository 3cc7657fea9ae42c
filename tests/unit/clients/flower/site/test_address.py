"""The address of a site's peer process and its token: those that are taken, and those that are not."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from clients.flower.site.address import SiteAddress, make_token, read_token
from dogo_fed.errors import ConfigError


def test_a_token_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = make_token(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert make_token(path) == token == read_token(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        make_token(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ConfigError, match="shorter"):
        read_token(path)


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("0.0.0.0:9000", "127.0.0.1 only"),
        ("192.0.2.1:9000", "127.0.0.1 only"),
        ("localhost:9000", "127.0.0.1 only"),
        (":9000", "127.0.0.1 only"),
        ("127.0.0.1:0", "no address"),
        ("127.0.0.1", "no address"),
        ("unix:peer.sock", "absolute"),
        (f"unix:/{'x' * 120}", "longer"),
    ],
)
def test_other_addresses_are_refused(listen: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SiteAddress.parse(listen)
