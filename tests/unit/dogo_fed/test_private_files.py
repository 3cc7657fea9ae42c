"""Private while somebody needs it, and the user's own umask afterwards."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dogo_fed.private_files import keep_files_private, private_files


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    earlier = os.umask(0o022)
    yield
    os.umask(earlier)


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_files_are_for_their_owner_in_the_block_only(tmp_path: Path) -> None:
    with private_files():
        (tmp_path / "folder").mkdir()
        (tmp_path / "file").touch()
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600
    assert umask() == 0o022


def test_blocks_that_overlap_end_in_any_order() -> None:
    first, second = private_files(), private_files()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert umask() == 0o077
    second.__exit__(None, None, None)
    assert umask() == 0o022


def test_an_error_gives_the_umask_back() -> None:
    with pytest.raises(OSError, match="full"), private_files():
        raise OSError("full")
    assert umask() == 0o022


def test_a_stricter_umask_stays() -> None:
    os.umask(0o177)
    with private_files():
        assert umask() == 0o177
    keep_files_private()
    assert umask() == 0o177
    os.umask(0o022)
    keep_files_private()
    assert umask() == 0o077
