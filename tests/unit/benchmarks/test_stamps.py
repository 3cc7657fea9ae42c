"""Stamped peers: what is tried before a run is no step, and a run notes each step once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from benchmarks import stamps
from benchmarks.exchange_tax import run_once
from benchmarks.flower_steps import Cell, settings
from benchmarks.settings import run_of_processes
from configs.compose import compose_run
from dogo_fed.config import RunConfig
from dogo_fed.engine.trial import has_own_code
from dogo_fed.run.prepare import prepare
from tests.support.tiny_run import TINY, run_here

CPU = torch.device("cpu")


@pytest.fixture
def nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "START_TOGETHER_WITHIN_S", 0.0)


def stamped(folder: Path, *overrides: str) -> tuple[RunConfig, Path]:
    notes = folder / "notes"
    notes.mkdir()
    config = dataclasses.replace(compose_run([*TINY, *overrides]), run_dir=str(folder / "run"))
    return stamps.with_stamps(config, notes), notes


@pytest.mark.usefixtures("nobody_waits")
def test_peers_on_trial_wait_for_nobody_and_note_nothing(tmp_path: Path) -> None:
    config, notes = stamped(tmp_path, "host=processes")
    run = prepare(config)
    assert len(run.peer_ids) == 2
    assert all(has_own_code(run, run.build_peer(peer, CPU)) for peer in run.peer_ids)
    assert not list(notes.iterdir())


@pytest.mark.usefixtures("nobody_waits")
def test_the_trial_of_a_run_under_flower_waits_for_nobody(tmp_path: Path) -> None:
    overrides = settings(Cell("ray", 16, 2), 2, tmp_path)
    config = compose_run([*overrides, "host=processes"])
    for peer in config.peers.values():
        assert peer.augmentation.options["run_dir"] == config.run_dir
        assert peer.augmentation.options["num_peers"] == 2
    prepare(config)
    assert not list(tmp_path.glob("*.stamps"))


def test_a_run_notes_each_step_of_each_peer_once(tmp_path: Path) -> None:
    config, notes = stamped(tmp_path)
    run_here(config)
    for peer in config.peers:
        noted = stamps.read_stamps(notes / f"{peer}.stamps")
        assert len(noted.wall_s) == len(noted.processor_s) == config.steps
        assert noted.wall_s == sorted(noted.wall_s)


@pytest.mark.usefixtures("nobody_waits")
def test_the_first_step_of_a_run_waits_for_the_other_peers(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "config.yaml").touch()
    mine = stamps.stamped_views(
        image_size=8,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        inner="none",
        inner_options={},
        path=str(tmp_path / "mine.stamps"),
        run_dir=str(run_dir),
        num_peers=2,
    )
    images = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(TimeoutError, match="1 of 2 peers"):
        mine(images)
    (tmp_path / "yours.stamps").touch()
    mine(images)
    mine(images)
    assert len(stamps.read_stamps(tmp_path / "mine.stamps").wall_s) == 2


@pytest.mark.slow
@pytest.mark.grpc
def test_a_stamped_run_of_two_processes_comes_to_its_end() -> None:
    small = ("batch_size=16", "data=synthetic", "data.options.size=64", "eval.knn_k=5")
    found = run_once(run_of_processes("tiny", 30, small))
    assert sorted(found) == ["one", "two"]
    assert all(one.steps_per_s > 0 for one in found.values())
