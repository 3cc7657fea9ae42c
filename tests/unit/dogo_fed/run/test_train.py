"""A run that goes on: what an earlier start has reached is never lost to one that could not start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs.compose import compose_run
from configs.resume import resumed
from dogo_fed.config import RunConfig
from dogo_fed.errors import ConfigError, DogoError, ExchangeError, PlacementError
from dogo_fed.run.local import run_local
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import conduct
from tests.support.tiny_run import TINY, run_here


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of three steps."""
    run_here(compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/run"]))
    return tmp_path / "run"


def gone_on(folder: Path, *overrides: str) -> RunConfig:
    given = [f"resume={folder}", *overrides]
    return resumed(compose_run(given), given)


def contents(folder: Path, *names: str) -> list[str]:
    return [(folder / name).read_text() for name in names]


def fails_with(error: DogoError):
    def host(run, folder, sink, stop_requested):
        raise error

    return host


@pytest.mark.parametrize("error", [PlacementError("no Ray here"), ConfigError("port is taken")])
def test_a_start_that_fails_leaves_settings_and_summary_as_they_were(folder, error) -> None:
    before = contents(folder, "summary.json", "config.yaml")
    with pytest.raises(type(error), match=str(error)):
        conduct(prepare(gone_on(folder, "ray.address=nowhere:1", "steps=9")), fails_with(error))
    assert contents(folder, "summary.json", "config.yaml") == before
    assert run_here(gone_on(folder, "host=local"))["peers"], "and it goes on as if nothing was"


def test_a_run_that_could_start_and_failed_has_a_summary_of_that(folder) -> None:
    with pytest.raises(ExchangeError):
        conduct(prepare(gone_on(folder, "steps=9")), fails_with(ExchangeError("peer wide died")))
    assert json.loads((folder / "summary.json").read_text())["steps"] == 9
    assert "steps: 9" in (folder / "config.yaml").read_text()


def test_a_new_run_that_can_not_start_still_leaves_a_folder_that_says_so(tmp_path) -> None:
    config = compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/new"])
    with pytest.raises(PlacementError):
        conduct(prepare(config), fails_with(PlacementError("no room")))
    assert {"config.yaml", "summary.json"} <= {path.name for path in (tmp_path / "new").iterdir()}


def test_a_run_can_not_end_before_what_it_has_done(folder) -> None:
    before = contents(folder, "summary.json", "config.yaml")
    with pytest.raises(
        ConfigError, match=r"has done 3 steps already.*can't end after 2; give steps=3"
    ):
        run_here(gone_on(folder, "steps=2"))
    assert contents(folder, "summary.json", "config.yaml") == before
    assert run_here(gone_on(folder, "steps=3"))["steps"] == 3


def test_a_picture_that_can_not_be_drawn_is_said_and_fails_no_run(
    tmp_path, monkeypatch, caplog
) -> None:
    def fail(*arguments):
        raise ValueError("\\frac{ is no formula")

    monkeypatch.setattr("dogo_fed.run.train.draw_curves", fail)
    config = compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/run"])
    summary = conduct(prepare(config), run_local)
    assert summary["peers"] and (tmp_path / "run" / "summary.json").exists()
    assert "curves.png could not be drawn: ValueError" in caplog.text
