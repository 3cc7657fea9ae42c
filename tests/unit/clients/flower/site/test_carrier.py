"""Carrying a message to a site's peer process: what is said where nobody is there or answers."""

from __future__ import annotations

import socket

import pytest

from clients.flower.site.address import SiteAddress
from clients.flower.site.carrier import SiteCarrier
from dogo_fed.errors import ConfigError, ExchangeTimeout


def test_a_node_that_names_no_address_is_told_how() -> None:
    with pytest.raises(ConfigError, match="--node-config 'peer-address="):
        SiteCarrier.from_node_config({"partition-id": 0})


def test_nobody_there_names_the_address_and_the_command(address: SiteAddress) -> None:
    with pytest.raises(ExchangeTimeout, match=f"dogo-fed peer listen=unix:{address.path}"):
        SiteCarrier(address).forward(b"a", 0.3)


def test_a_frozen_process_is_not_waited_for_for_ever(address: SiteAddress) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(address.path))
        silent.listen()
        with pytest.raises(ExchangeTimeout, match=str(address)):
            SiteCarrier(address).forward(b"a", 0.3)
