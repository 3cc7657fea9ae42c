"""An error that nobody expected ends a command with its traceback and a line, and not with Hydra's words."""

from __future__ import annotations

from typing import Any, cast

import pytest

from dogo_fed.exit_status import EXIT_FAILED, tell_unexpected
from server.commands import evaluate, train


def in_somebodys_code(*given: object) -> None:
    """As a network of the user's own that fails at the third step."""
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("command", "name"), [(train, "_config"), (evaluate, "request_from_omegaconf")]
)
def test_an_error_of_somebodys_own_code_is_shown_in_full(
    command: Any, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, name, in_somebodys_code)
    assert command.run(cast(Any, None)) == EXIT_FAILED
    said = capsys.readouterr().err
    assert "Traceback" in said and "in in_somebodys_code" in said and "HYDRA" not in said
    assert "in run" not in said, "our own calls before it are left out"
    assert said.splitlines()[-1] == (
        "dogo-fed: RuntimeError: mat1 and mat2 shapes cannot be multiplied"
    )


def test_an_error_of_our_own_has_all_of_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        train._how(cast(Any, 3))
    except TypeError as error:
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        assert tell_unexpected(error, "; go on") == EXIT_FAILED
    said = capsys.readouterr().err
    assert "in _how" in said and said.rstrip().endswith("; go on")
