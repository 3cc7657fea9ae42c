"""The product's sessions in a benchmark's hands, and the contestants beside them."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from benchmarks import data_path, epoch, flower_steps, page, step
from benchmarks.images import torchvision_view
from benchmarks.sessions import Sessions
from benchmarks.settings import peers_named, steps_alone
from benchmarks.stamps import Stamps
from benchmarks.turns import Took
from configs.compose import compose_run
from dogo_fed.config import DataConfig
from dogo_fed.engine.feed import Feed
from dogo_fed.evaluation import state_digest
from tests.support.command_line import REPOSITORY
from tests.support.tiny_run import TINY, run_here

CPU = torch.device("cpu")


@pytest.fixture
def pair() -> step.Task:
    return step.Task(peers_named("tiny"), 8, CPU, num_images=16)


@pytest.fixture
def made(pair: step.Task) -> Iterator[dict[str, object]]:
    names = ("published", "dogo", "bare", "dogo alone")
    found = {name: step.seeded(step.contestants(pair)[name]) for name in names}
    yield found
    for one in found.values():
        if isinstance(one, step.Dogo):
            one.sessions.close()


@pytest.mark.parametrize("over_grpc", [False, True])
def test_sessions_train_what_a_run_trains(over_grpc: bool, tmp_path: Path) -> None:
    config = dataclasses.replace(compose_run([*TINY]), run_dir=str(tmp_path / "run"))
    summary = run_here(config)
    sessions = Sessions(
        steps_alone(config.peers, config.data, batch_size=config.batch_size), over_grpc=over_grpc
    )
    try:
        for _ in range(3):
            sessions.step()
        for one in sessions.sessions:
            wanted = summary["peers"][one.peer.id]["state_digest"]
            assert state_digest(one.peer.objective) == wanted
        assert len(sessions.reports) == 3 * len(config.peers)
    finally:
        sessions.close()


def test_only_this_projects_steps_are_asked_to_be_repeatable(made: dict[str, object]) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    seen = {}
    for name, one in made.items():
        with step.kernels_for(one):
            is_any_kernel = torch.backends.cudnn.benchmark
            seen[name] = (torch.are_deterministic_algorithms_enabled(), is_any_kernel)
    ours, others = (True, False), (False, True)
    assert seen == {"published": others, "dogo": ours, "bare": others, "dogo alone": ours}
    assert torch.are_deterministic_algorithms_enabled() == before


def test_the_pair_teaches_each_other_and_a_single_peer_is_not_taught(
    made: dict[str, object],
) -> None:
    teachers = {}
    for name in ("dogo", "dogo alone"):
        sessions = made[name].sessions
        sessions.step()
        teachers[name] = [one.num_teachers for one in sessions.reports]
    assert teachers == {"dogo": [1, 1], "dogo alone": [0]}


@pytest.mark.filterwarnings("ignore:reduction:UserWarning")  # what the published recipe asks for
def test_contestants_are_measured_on_both_clocks(pair: step.Task) -> None:
    only = ["published", "dogo", "dogo fast", "bare", "bare fast"]
    found = step.measure(pair, 1, 1, only)
    assert sorted(found["seconds"]) == sorted(only)
    assert set(found["seconds"]["dogo"]) == {"cpu", "wall"}
    assert set(found["ratios"]) == {
        "published / dogo",
        "published / dogo fast",
        "dogo / bare",
        "dogo fast / bare fast",
    }


def test_a_contestant_that_fails_costs_the_others_nothing(
    pair: step.Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: step.Bare) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(step.Bare, "__call__", broken)
    found = step.measure(pair, 1, 1, ["dogo", "dogo fast", "bare"])
    assert list(found["seconds"]) == ["dogo", "dogo fast"] and found["ratios"] == {}
    assert found["failed"] == {"bare": "RuntimeError: out of memory"}


def test_sessions_are_closed_with_what_reads_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(Feed, "close", lambda self: closed.append(self))
    data = DataConfig(name="synthetic", options={"size": 16, "test_size": 4, "image_size": 8})
    sessions = Sessions(steps_alone(peers_named("tiny"), data, batch_size=8))
    assert not closed
    sessions.close()
    assert len(set(closed)) == 2


def test_an_epoch_is_counted_from_its_steps() -> None:
    rounds = [epoch.Round(Took(0.5, 1.0), 0.02), epoch.Round(Took(0.25, 2.0), 0.04)]
    row = epoch.row("pair, fp32", rounds, steps_per_epoch=200)
    assert row["epoch_wall_s"] == {"median": 300.0, "min": 200.0, "max": 400.0}
    assert row["epoch_cpu_s"]["min"] == 50.0
    assert row["exchange_percent"]["max"] == 4.0


def test_an_epoch_without_a_gpu_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["epoch"])
    epoch.main()
    assert "there is none here" in capsys.readouterr().out


def test_images_of_a_folder_are_those_of_its_files(tmp_path: Path) -> None:
    shown = data_path.in_folder(tmp_path, 6, 28, CPU)
    ids = torch.tensor([4, 1])
    assert shown.batch(ids).shape == (2, 3, 32, 32)
    assert torch.equal(shown.batch(ids), shown.tensors(ids))
    assert shown.on_demand is not None
    assert torch.equal(shown.batch(ids), shown.on_demand(ids))
    first, second = data_path.ours(shown, CPU)(ids)
    assert first.shape == second.shape == (2, 3, 28, 28)


def test_a_library_that_is_missing_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(shown, device):
        raise ImportError("No module named 'absent'")

    monkeypatch.setattr(data_path, "CONTESTANTS", {"dogo": data_path.ours, "absent": absent})
    shown = data_path.in_memory(4, 16, CPU)
    found = data_path.measure(shown, 2, 1, CPU)
    assert list(found.rounds()) == ["dogo"]
    assert "absent is left out" in capsys.readouterr().out
    (row,) = data_path.rows_of("memory", shown, {"dogo": [Took(0.5, 0.25)]})
    assert row["images_per_cpu_s"]["median"] == 2.0
    assert row["images_per_wall_s"]["median"] == 4.0


def test_a_step_under_flower_is_timed_on_both_clocks() -> None:
    stamps = Stamps(
        wall_s=[0.01 * step for step in range(12)],
        processor_s=[0.004 * step for step in range(12)],
    )
    timing = flower_steps.timing(stamps, steps_per_round=6)
    assert timing.steps == 5
    assert timing.mean_ms == pytest.approx(10.0)
    assert timing.cpu_ms == pytest.approx(4.0)
    row = flower_steps.row(flower_steps.Cell("ray", 256, 6), [timing])
    assert row["mode"] == "ray" and row["mean_ms"]["median"] == pytest.approx(10.0)


def test_a_contestant_takes_what_precision_auto_takes(pair: step.Task) -> None:
    assert ("published", "dogo auto") in step.RATIOS
    found = step.measure(pair, 1, 1, ["dogo auto"])
    assert found["notes"]["dogo auto"].startswith("precision=auto takes ")
    content = {"batch_size": 8, "threads": 1, "networks": {"tiny": found}}
    assert found["notes"]["dogo auto"] in page.step(content)


def test_others_have_workers_that_make_views_ahead_and_no_gain_from_it(pair: step.Task) -> None:
    task = dataclasses.replace(pair.alone, workers=1)
    made = step.Batches(task, partial(step.views_of, torchvision_view(step.IMAGE_SIZE), 2))
    a_NCHW, b_NCHW = made.take()
    assert a_NCHW.shape == b_NCHW.shape == (8, 3, 32, 32) and not torch.equal(a_NCHW, b_NCHW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made, "_batches", iter(range(100)))
        made.drop_ahead()
        assert next(made._batches) == step.AHEAD, "what was ready is left out"


def test_kornia_is_one_that_does_not_make_a_gpu_wait() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    (floor,) = [one for one in project["dependencies"] if one.startswith("kornia")]
    assert floor == "kornia>=0.9", "before that, kornia's copies of what it draws were blocking"
