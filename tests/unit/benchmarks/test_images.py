"""The images of the benchmarks: the same bytes everywhere, and a few at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from benchmarks import images


def test_images_are_the_same_made_at_once_or_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(10, 3, 8, 8, generator=generator)
    at_once = (F.interpolate(coarse, size=16, mode="bilinear") * 255).to(torch.uint8)
    for chunk in (1, 3, 64):
        monkeypatch.setattr(images, "CHUNK", chunk)
        assert torch.equal(images.images_uint8(10, 16), at_once)


def test_a_folder_is_written_without_holding_all_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest, plain = [], F.interpolate

    def noting(part: torch.Tensor, **given: object) -> torch.Tensor:
        largest.append(len(part))
        return plain(part, **given)

    monkeypatch.setattr(images.F, "interpolate", noting)
    monkeypatch.setattr(images, "CHUNK", 4)
    paths = images.write_folder(tmp_path / "made", 10, 16)
    assert len(paths) == 10 and all(path.stat().st_size for path in paths)
    assert largest == [4, 4, 2]
