"""What Flower carries from machine to machine: the bundle that `flwr run` makes of a checkout."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY, environment

PACKAGES = ("dogo_fed", "server", "clients", "configs")
BESIDES = {"pyproject.toml", "README.md", "LICENSE"}
FLOWERS_LIMIT = 10_000_000
BUILD = """
import sys
from pathlib import Path
from flwr.cli.build import build_fab_from_disk
sys.stdout.buffer.write(build_fab_from_disk(Path(sys.argv[1])))
"""

pytestmark = [
    pytest.mark.flower,
    pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="git says what belongs to us"),
]


@pytest.fixture(scope="module")
def bundle() -> bytes:
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(REPOSITORY)],
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert built.returncode == 0, built.stderr.decode()
    return built.stdout


@pytest.fixture(scope="module")
def content(bundle: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as files:
        return {name: files.read(name) for name in files.namelist()}


@pytest.fixture(scope="module")
def sources() -> list[str]:
    """What git does not ignore of our packages, committed yet or not."""
    told = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *PACKAGES],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
    names = sorted(set(filter(None, told.split("\0"))))
    return [name for name in names if (REPOSITORY / name).is_file()]


def test_exactly_our_packages_are_inside(content: dict[str, bytes], sources: list[str]) -> None:
    expected = {name for name in sources if name.endswith((".py", ".yaml"))} | BESIDES
    assert {name for name in content if not name.startswith(".info/")} == expected


def test_what_a_run_needs_is_inside(content: dict[str, bytes], sources: list[str]) -> None:
    settings = [name for name in sources if name.endswith((".yaml", ".yml"))]
    assert "configs/run.yaml" in settings and len(settings) > 20
    assert {*settings, "dogo_fed/wire/dogo_pb2.py"} <= content.keys()
    kinds = {Path(name).suffix for name in sources}
    # Who adds a file of another kind has to think of whether a run needs it.
    assert kinds == {".py", ".yaml", ".proto", ".pyi", ".typed"}


def test_files_arrive_as_they_are(content: dict[str, bytes]) -> None:
    # source_digest compares them, so a checkout at a site and a bundle can be of one run.
    differing = [
        name
        for name, inside in content.items()
        if name.startswith(PACKAGES) and inside != (REPOSITORY / name).read_bytes()
    ]
    assert differing == []


def test_it_is_far_from_flowers_limit(bundle: bytes) -> None:
    assert len(bundle) < FLOWERS_LIMIT / 4
