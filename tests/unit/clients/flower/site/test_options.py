"""The command line of a site's peer process."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.flower.site.options import SiteOptions
from dogo_fed.errors import ConfigError


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "listen="),
        (("listen=127.0.0.1:9000",), "token_file="),
        (("listen=unix:/x/peer.sock", "--cfg"), "--help"),
        (("listen=unix:/x/peer.sock", "root_certificates=/no/such/file"), "root_certificates"),
        (("listen=unix:/x/peer.sock", "max_message_bytes=many"), "max_message_bytes"),
    ],
)
def test_an_impossible_command_line_is_refused(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SiteOptions.parse(arguments)


def test_what_is_not_an_option_is_a_setting_of_the_site(tmp_path: Path) -> None:
    certificates = tmp_path / "ca.pem"
    certificates.write_text("-----BEGIN CERTIFICATE-----\n")
    options = SiteOptions.parse(
        ["listen=unix:/x/peer.sock", f"root_certificates={certificates}", "peers=trio", "seed=3"]
    )
    assert options.overrides == ("peers=trio", "seed=3")
    assert options.root_certificates == certificates.read_bytes()
