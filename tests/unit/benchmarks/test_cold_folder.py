"""A folder whose pixels are on the disk alone: what is fed from it, and what the disk could give."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import torch

from benchmarks import cold_folder, page
from dogo_fed.engine import feed

CPU = torch.device("cpu")


def test_three_are_measured_and_the_pixels_are_dropped_before_each_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = []

    def noting(descriptor: int, offset: int, length: int, advice: int) -> None:
        dropped.append((os.readlink(f"/proc/self/fd/{descriptor}"), advice))

    monkeypatch.setattr(os, "posix_fadvise", noting)
    found = cold_folder.measure(tmp_path, 24, 16, 8, 1, 1, CPU).rounds()
    rows = [cold_folder.row(name, rounds) for name, rounds in found.items()]
    assert [one["images_from"] for one in rows] == ["folder", "ready", "disk"]
    assert all(one["images_per_s"]["min"] > 0 for one in rows)
    files = {name for name, advice in dropped if advice == os.POSIX_FADV_DONTNEED}
    assert files and all(name.startswith(str(tmp_path / "cache")) for name in files)
    assert "| folder |" in page.TITLES["cold_folder"][1]({"rows": rows})


def test_a_small_folder_is_read_as_one_that_fits_nowhere_and_by_nobody_after_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = feed.SHARE_OF_MEMORY, feed.LARGE_BYTES
    made: list[tuple[bool, float]] = []
    closed = []

    class Noted(feed.Feed):
        def __init__(self, *given, ahead: bool, **more) -> None:
            super().__init__(*given, ahead=ahead, **more)
            made.append((ahead, feed.SHARE_OF_MEMORY))

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr("dogo_fed.engine.open.Feed", Noted)
    cold_folder.measure(tmp_path, 24, 16, 8, 1, 1, CPU)
    folder, ready = (True, 0), (False, usual[0])
    assert made == [folder, ready] * 2, "a warm-up and a round"
    assert len(set(closed)) == 4, "a thread would read on in the turn of the next"
    assert usual == (feed.SHARE_OF_MEMORY, feed.LARGE_BYTES)


def test_a_result_says_what_disk_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Disk:
        def __init__(self, mountpoint: Path, fstype: str) -> None:
            self.mountpoint, self.fstype = str(mountpoint), fstype

    disks = [Disk(Path("/"), "overlay"), Disk(tmp_path, "tmpfs"), Disk(tmp_path / "b", "xfs")]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: disks)
    assert cold_folder.kind_of_disk(tmp_path / "a") == "tmpfs"
    assert cold_folder.kind_of_disk(tmp_path / "b" / "c") == "xfs"
    assert cold_folder.kind_of_disk(tmp_path.parent) == "overlay"
