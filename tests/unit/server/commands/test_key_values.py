"""Commands that take a few words: how they end, and what they print."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs.compose import compose_run
from dogo_fed.config_text import from_mapping, to_mapping, to_yaml
from dogo_fed.exit_status import EXIT_STOPPED
from dogo_fed.trust import STATE_VARIABLE
from server.commands import export, matrix
from server.commands.key_values import run_command


def test_an_interrupt_is_said_as_what_it_is(monkeypatch, capsys) -> None:
    def interrupted(arguments: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["dogo-fed matrix", "run=x"])
    with pytest.raises(SystemExit) as ended:
        run_command("usage", interrupted)
    assert ended.value.code == EXIT_STOPPED
    assert capsys.readouterr().err.startswith("dogo-fed: stopped; ")


def test_what_is_there_is_printed_before_the_rest_fails(monkeypatch, capsys) -> None:
    def half(arguments: object) -> Iterator[str]:
        yield "hours of work"
        raise OSError(errno.ENOSPC, "No space left", "matrix.csv")

    monkeypatch.setattr(sys, "argv", ["dogo-fed matrix", "run=x"])
    with pytest.raises(SystemExit) as ended:
        run_command("usage", half)
    said = capsys.readouterr()
    assert ended.value.code == 1 and said.out == "hours of work\n" and "No space" in said.err


def test_a_path_that_is_no_text_is_printed_all_the_same(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["dogo-fed export", "run=x"])
    run_command("usage", lambda arguments: [f"| a table |\n{Path('out') / chr(0xDCFF)}"])
    printed = capsys.readouterr().out
    assert printed.encode() and printed == "| a table |\nout/\\udcff\n"


@pytest.mark.parametrize("command", [export, matrix])
def test_settings_of_somebody_else_are_asked_about(command, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "state"))
    content = to_mapping(compose_run(["data=synthetic", "peers=solo"]))
    content["data"]["name"] = "their_module:load"
    (tmp_path / "config.yaml").write_text(to_yaml(from_mapping(content)))
    monkeypatch.setattr(sys, "argv", ["dogo-fed", f"run={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        command.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "trust=true" in said and "their_module:load" in said
