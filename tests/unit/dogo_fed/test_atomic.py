"""Files that are there in full or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from dogo_fed.atomic import atomic_path, write_atomic, write_json_atomic


class TestAtomicFiles:
    @pytest.mark.parametrize("content", ["new", b"\x00new"])
    def test_replaces_the_file_and_leaves_nothing_else(
        self, tmp_path: Path, content: str | bytes
    ) -> None:
        path = tmp_path / "summary.json"
        path.write_text("old")
        write_atomic(path, content)
        expected = content.encode() if isinstance(content, str) else content
        assert path.read_bytes() == expected
        assert list(tmp_path.iterdir()) == [path]

    def test_keeps_the_old_file_if_the_writer_fails_midway(self, tmp_path: Path) -> None:
        path = tmp_path / "curves.png"
        path.write_text("old")
        with pytest.raises(KeyboardInterrupt), atomic_path(path) as partial:
            assert partial.parent == tmp_path and partial.suffix == ".png" and partial != path
            partial.write_text("half of the ne")
            raise KeyboardInterrupt
        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]

    def test_old_file_is_there_until_the_end(self, tmp_path: Path) -> None:
        path = tmp_path / "state.pt"
        path.write_text("old")
        with atomic_path(path) as partial:
            partial.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"

    def test_a_writer_that_writes_nothing_is_an_error(self, tmp_path: Path) -> None:
        path = tmp_path / "state.pt"
        path.write_text("old")
        with pytest.raises(FileNotFoundError), atomic_path(path):
            pass
        assert path.read_text() == "old"

    def test_json_is_valid_whatever_the_numbers(self, tmp_path: Path) -> None:
        path = tmp_path / "x.json"
        write_json_atomic(path, {"a": math.nan, "b": [math.inf, 1.5, (-math.inf, 2)], "c": "NaN"})
        expected = {"a": None, "b": [None, 1.5, [None, 2]], "c": "NaN"}
        assert json.loads(path.read_text(), parse_constant=pytest.fail) == expected
