"""`dogo-fed evaluate`: under which names its scores are written."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dogo_fed.data.synthetic import synthetic
from dogo_fed.exit_status import EXIT_STOPPED
from server.commands import evaluate as command


@pytest.mark.parametrize("title", ["cats", "dogs"])
def test_scores_on_a_folder_have_its_own_name(title) -> None:
    """Scores on another folder would replace them else."""
    data = dataclasses.replace(synthetic(size=32, test_size=8), name="image_folder", title=title)
    subject = cast(Any, SimpleNamespace(dataset=data))
    request = cast(Any, SimpleNamespace(run="runs/x", data=object()))
    assert command._stem("linear", request, [subject]) == f"linear-{title}"


def test_an_interrupt_says_what_is_kept(monkeypatch, capsys) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "request_from_omegaconf", interrupted)
    assert command.run(cast(Any, None)) == EXIT_STOPPED
    said = capsys.readouterr().err
    assert said == "dogo-fed: stopped; what was printed with a path is written\n"
