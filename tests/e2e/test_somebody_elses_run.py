"""A run folder from somebody else runs no code of theirs, whichever command opens it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from configs.compose import compose_run
from dogo_fed.run.train import train
from dogo_fed.trust import STATE_VARIABLE
from tests.support.command_line import dogo_fed
from tests.support.tiny_run import TINY

LOADER = """
import pathlib
from dogo_fed.data.synthetic import synthetic

def load(**options):
    pathlib.Path({mark!r}).touch()
    return synthetic(**options)
"""


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run whose settings name a module that is found here."""
    folder = tmp_path / "theirs"
    train(compose_run([*TINY, "peers=solo", f"run_dir={folder}"]))
    content = yaml.safe_load((folder / "config.yaml").read_text())
    content["data"]["name"] = "their_module:load"
    (folder / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (tmp_path / "their_module.py").write_text(LOADER.format(mark=str(tmp_path / "mark")))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    return folder


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            ("evaluate", "run={}", "protocol=linear", "protocol.linear.epochs=1"),
            marks=pytest.mark.slow,
        ),
        pytest.param(("train", "resume={}", "steps=4"), marks=pytest.mark.slow),
        ("flower", "resume={}", "steps=4"),
    ],
)
def test_their_code_runs_when_the_user_says_so_and_not_before(
    command: tuple[str, ...], theirs: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    arguments = [part.format(theirs) for part in command]
    output = dogo_fed(*arguments, expect=2)
    assert len(output.splitlines()) == 1 and "Traceback" not in output
    assert f"{theirs / 'config.yaml'} has data.name=their_module:load" in output
    assert "trust=true" in output
    assert not mark.exists()
    if command[0] == "flower":
        return  # it goes on as `train` does, in a minute
    dogo_fed(*arguments, "trust=true")
    assert mark.exists()
    mark.unlink()
    again = [part.replace("steps=4", "steps=6") for part in arguments]
    dogo_fed(*again)  # by now the settings are this user's own
    assert mark.exists()


@pytest.mark.slow
def test_ones_own_code_is_followed_without_a_word(theirs: Path, tmp_path: Path) -> None:
    shutil.rmtree(theirs)
    sizes = [part.replace("data.options", "+data.options") for part in TINY[1:]]
    mine = ["data=own", "data.name=their_module:load", *sizes, "peers=solo"]
    dogo_fed("train", *mine, f"run_dir={theirs}")
    dogo_fed("train", f"resume={theirs}", "steps=4")
    output = dogo_fed("evaluate", f"run={theirs}", "protocol=linear", "protocol.linear.epochs=1")
    assert "linear" in output


def test_a_function_of_pythons_own_is_never_called(theirs: Path, tmp_path: Path) -> None:
    path = theirs / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["data"] |= {
        "name": "subprocess:check_output",
        "options": {"args": ["touch", str(tmp_path / "mark")]},
    }
    path.write_text(yaml.safe_dump(content))
    output = dogo_fed("evaluate", f"run={theirs}", "trust=true", "protocol=linear", expect=2)
    assert "'subprocess:check_output' is of Python's standard library" in output
    assert not (tmp_path / "mark").exists()
