"""Our packages: where they are, and a digest of all that is source in them."""

from __future__ import annotations

import pytest

from dogo_fed import packages
from dogo_fed.errors import ConfigError
from dogo_fed.packages import package_folder, source_digest


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """Packages of our own, so that they can be changed."""
    for package in ("dogo_fed", "server", "clients", "configs"):
        (tmp_path / package / "inner").mkdir(parents=True)
        (tmp_path / package / "inner" / "code.py").write_text(f"# {package}")
        (tmp_path / package / "run.yaml").write_text("seed: 0")
    monkeypatch.setattr(packages, "package_folder", lambda package: tmp_path / package)
    return tmp_path


@pytest.mark.parametrize("package", ["dogo_fed", "server", "clients", "configs"])
def test_the_source_digest_covers_code_and_yaml_of_every_package(sources, package):
    before = source_digest()
    assert source_digest() == before
    code, text = sources / package / "inner" / "code.py", sources / package / "run.yaml"
    for path in (code, text):
        original = path.read_text()
        path.write_text(original + " ")
        assert source_digest() != before
        path.write_text(original)
        assert source_digest() == before
    code.rename(code.with_name("renamed.py"))
    assert source_digest() != before


def test_the_source_digest_ignores_what_is_no_source(sources):
    before = source_digest()
    cache = sources / "dogo_fed" / "__pycache__"
    cache.mkdir()
    (cache / "code.cpython-311.pyc").write_bytes(b"x")
    (sources / "dogo_fed" / "notes.txt").write_text("x")
    assert source_digest() == before


def test_content_that_moves_between_files_changes_the_source_digest(sources):
    first, second = sources / "configs" / "a.py", sources / "configs" / "b.py"
    first.write_text("12")
    second.write_text("3")
    before = source_digest()
    first.write_text("1")
    second.write_text("23")
    assert source_digest() != before


def test_packages_are_found_without_importing_them():
    assert (package_folder("dogo_fed") / "agreement.py").is_file()
    assert (package_folder("configs") / "run.yaml").is_file()
    with pytest.raises(ConfigError, match="no_such_package"):
        package_folder("no_such_package")
