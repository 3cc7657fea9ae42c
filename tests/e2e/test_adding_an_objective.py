"""docs/adding_an_objective.md, followed to the letter in an empty folder."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from configs.compose import compose_run
from dogo_fed.errors import ConfigError
from dogo_fed.run.prepare import prepare
from tests.support.command_line import REPOSITORY, environment

PAGE = (REPOSITORY / "docs" / "adding_an_objective.md").read_text()
NAME = "my_lab.uniformity:Uniformity"
FILES = ["my_lab/uniformity.py", "conf/objective/uniformity.yaml", "tests/test_uniformity.py"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The page's files, each under the name in its first line."""
    for block in blocks("python") + blocks("yaml"):
        path = tmp_path / block.splitlines()[0].removeprefix("# ")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block)
    return tmp_path


def run(script: str, folder: Path) -> str:
    """Runs shell lines with the Python of the tests."""
    names = f'python() {{ {shlex.quote(sys.executable)} "$@"; }}\ndogo-fed() {{ python -m server "$@"; }}'
    finished = subprocess.run(
        ["bash", "-ec", f"{names}\n{script}"],
        cwd=folder,
        env={"PYTHONPATH": "", **environment()},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    output = finished.stdout + finished.stderr
    assert finished.returncode == 0, output
    return output


def test_it_is_one_file_one_configuration_and_one_test(folder: Path) -> None:
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    assert sorted(found) == sorted(FILES)
    assert len(blocks("sh")) == 1


@pytest.mark.slow
def test_the_page_works_as_it_stands(folder: Path) -> None:
    output = run(blocks("sh")[0], folder)
    assert "3 passed" in output
    summary = json.loads((folder / "runs" / "uniformity" / "summary.json").read_text())
    assert summary["peers"]["wide"]["objective"] == NAME
    assert summary["peers"]["wide"]["steps_trained"] == 2
    assert summary["peers"]["wide"]["mutual_kl"] > 0


@pytest.mark.parametrize(
    ("option", "says"), [("tt=1", "no option 'tt'"), ("t=0", "t must be greater than 0, not 0")]
)
def test_what_it_promises_about_wrong_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch, option: str, says: str
) -> None:
    monkeypatch.syspath_prepend(folder)
    chosen = ["objective@peers.wide.objective=own", f"peers.wide.objective.name={NAME}"]
    overrides = [
        *chosen,
        f"+peers.wide.objective.options.{option}",
        "data=synthetic",
        "eval.knn_k=20",
    ]
    with pytest.raises(ConfigError, match=f"^peer 'wide': .*{says}"):
        prepare(compose_run(overrides))
