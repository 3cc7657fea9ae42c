"""A folder whose pixels are on the disk alone: what is fed from it, and what the disk could give."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from benchmarks import cold_folder, page


def test_three_are_measured_and_the_pixels_are_dropped_before_each_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = []

    def noting(descriptor: int, offset: int, length: int, advice: int) -> None:
        dropped.append((os.readlink(f"/proc/self/fd/{descriptor}"), advice))

    monkeypatch.setattr(os, "posix_fadvise", noting)
    rows = cold_folder.measure(tmp_path, 24, 16, 8, 1, 1, torch.device("cpu"))
    assert [one["images_from"] for one in rows] == ["folder", "ready", "disk"]
    assert all(one["images_per_s"]["min"] > 0 for one in rows)
    files = {name for name, advice in dropped if advice == os.POSIX_FADV_DONTNEED}
    assert files and all(name.startswith(str(tmp_path / "cache")) for name in files)
    assert "| folder |" in page.TITLES["cold_folder"][1]({"rows": rows})
