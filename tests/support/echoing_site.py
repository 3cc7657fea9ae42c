"""A site's socket, and a server that echoes on it, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.flower.site.address import SiteAddress
from clients.flower.site.server import SiteServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "site"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def address(folder: Path) -> SiteAddress:
    return SiteAddress.parse(f"unix:{folder}/peer.sock")


@contextmanager
def server(listen: SiteAddress, token: str | None = None, limit: int = 10_000) -> Iterator[None]:
    """An echoing server in this process."""
    running = SiteServer(listen, bytes.upper, token=token, max_message_bytes=limit)
    try:
        yield
    finally:
        running.stop()
