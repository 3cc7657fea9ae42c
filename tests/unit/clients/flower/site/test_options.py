"""The command line of a site's peer process."""

from __future__ import annotations

from pathlib import Path

import pytest

from clients.flower.site.options import SiteOptions
from dogo_fed.errors import ConfigError
from examples.cross_site.certificates import make_certificates


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
    certificates = make_certificates(tmp_path).authority
    options = SiteOptions.parse(
        ["listen=unix:/x/peer.sock", f"root_certificates={certificates}", "peers=trio", "seed=3"]
    )
    assert options.overrides == ("peers=trio", "seed=3")
    assert options.root_certificates == certificates.read_bytes()


def test_certificates_that_are_cut_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    with pytest.raises(ConfigError, match=f"root_certificates={path} can't be used"):
        SiteOptions.parse(["listen=unix:/x/peer.sock", f"root_certificates={path}"])
