"""`dogo-fed anchors`: one makes the manifest, and the others check their copies by it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from server.commands import anchors as command
from tests.support.image_folders import noise_photos


def test_a_copy_of_the_anchors_is_checked_by_their_manifest(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    shared, path = noise_photos(tmp_path / "shared", 10, 2), tmp_path / "anchors.json"
    options = (f"data={shared}", "data.options.image_size=24")

    def said(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["dogo-fed anchors", *arguments])
        command.main()
        return capsys.readouterr().out

    output = said("make", *options, "licence=CC0, by us", f"out={path}")
    assert f"{path}: 18 anchors of 24 px" in output
    assert json.loads(path.read_text())["licence"] == "CC0, by us"
    assert f"the 18 images are those of {path}" in said("check", *options, f"manifest={path}")
    (shared / "cat" / "3.png").unlink()
    with pytest.raises(SystemExit) as ended:
        said("check", *options, f"manifest={path}")
    assert ended.value.code == 2
    assert "num_images is 18 in the manifest and 17 here" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        said("show")
    assert ended.value.code == 2 and "the actions are make and check" in capsys.readouterr().err
