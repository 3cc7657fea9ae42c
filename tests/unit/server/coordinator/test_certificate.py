"""A certificate that can't be used is said to be so, and not that the address is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from dogo_fed.config import CoordinatorConfig
from dogo_fed.errors import ConfigError
from examples.cross_site.certificates import Certificates, make_certificates
from server.coordinator.service import read_certificate


@pytest.fixture
def files(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path / "tls")


def settings(certificate: Path, private_key: Path) -> CoordinatorConfig:
    return CoordinatorConfig(certificate=str(certificate), private_key=str(private_key))


def test_a_certificate_and_its_key_are_read(files: Certificates) -> None:
    found = read_certificate(settings(files.server, files.key))
    assert found is not None
    assert found.certificate_chain == files.server.read_bytes()
    assert found.private_key == files.key.read_bytes()


@pytest.mark.parametrize("what", ["certificate", "private_key"])
@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n", None])
def test_files_that_are_none_are_named(what, content, files: Certificates, tmp_path: Path) -> None:
    path = tmp_path / "wrong.pem"
    if content is not None:
        path.write_bytes(content)
    given = {"certificate": files.server, "private_key": files.key, what: path}
    with pytest.raises(ConfigError, match=rf"coordinator\.{what}={path}") as refusal:
        read_certificate(settings(**given))
    assert "PEM" in str(refusal.value)


def test_a_key_of_another_certificate_is_refused(files: Certificates, tmp_path: Path) -> None:
    other = make_certificates(tmp_path / "other")
    with pytest.raises(ConfigError, match=r"can't be used: .*MISMATCH"):
        read_certificate(settings(files.server, other.key))
