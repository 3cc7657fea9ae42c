"""The names of a run folder's files have one home."""

from __future__ import annotations

import ast
from pathlib import Path

from dogo_fed import layout

ROOT = Path(__file__).parents[2]
FILES = {value for name, value in vars(layout).items() if name.isupper() and "." in value}


def test_no_other_module_spells_them():
    assert "config.yaml" in FILES and "metrics.jsonl" in FILES
    found = []
    for package in ("dogo_fed", "server", "clients", "configs"):
        for path in (ROOT / package).rglob("*.py"):
            if path == Path(layout.__file__):
                continue
            found += [
                f"{path.relative_to(ROOT)}:{node.lineno}"
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Constant) and node.value in FILES
            ]
    assert found == []
