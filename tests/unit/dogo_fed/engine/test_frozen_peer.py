"""A frozen peer teaches with the weights it came with, and nothing of it ever moves."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from configs.compose import compose_run
from dogo_fed.config import RunConfig
from dogo_fed.config_text import load_yaml
from dogo_fed.data.roles import StepImages
from dogo_fed.engine.peer import Peer
from dogo_fed.errors import ConfigError, TrainingError
from dogo_fed.reporting.sinks.metrics import read_records
from dogo_fed.reporting.summary import RunSummary
from dogo_fed.run.prepare import prepare
from tests.support.command_line import dogo_fed
from tests.support.tiny_run import TINY, run_here
from tests.support.toy_peers import same_bits, state_of, toy_images, toy_peer

TEACHER, STUDENT = "simsiam", "simclr"


def config_of(run_dir: Path, *overrides: str) -> RunConfig:
    return compose_run([*TINY, "peers=simclr_simsiam", f"run_dir={run_dir}", *overrides])


def frozen(run_dir: Path, source: Path, *overrides: str) -> RunConfig:
    return config_of(run_dir, f"peers.{TEACHER}.frozen_from={source}", *overrides)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunSummary]:
    """A solo run, and one in which a peer of it teaches the other."""
    root = tmp_path_factory.mktemp("runs")
    solo = run_here(config_of(root / "solo", "exchange.enabled=false"))
    offline = run_here(frozen(root / "offline", root / "solo"))
    return {"solo": solo, "offline": offline, "root": root}  # type: ignore[dict-item]


def test_the_teacher_ends_as_it_came_and_the_student_learns_from_it(runs) -> None:
    solo, offline = runs["solo"]["peers"], runs["offline"]["peers"]
    assert offline[TEACHER]["state_digest"] == solo[TEACHER]["state_digest"]
    assert offline[TEACHER]["knn_top1"] == solo[TEACHER]["knn_top1"]
    assert offline[TEACHER]["linear_top1"] == solo[TEACHER]["linear_top1"]
    assert offline[STUDENT]["state_digest"] != solo[STUDENT]["state_digest"]
    assert offline[STUDENT]["mutual_kl"] > 0


def test_the_report_says_that_it_was_frozen(runs) -> None:
    offline = runs["offline"]["peers"]
    assert offline[TEACHER]["objective"] == "simsiam (frozen)"
    assert offline[TEACHER]["steps_trained"] == 0
    assert offline[STUDENT]["objective"] == "simclr"
    assert offline[STUDENT]["steps_trained"] == 3


def test_its_encoder_is_exported_unchanged(runs) -> None:
    first, second = (
        load_file(runs["root"] / name / "peers" / TEACHER / "encoder.safetensors")
        for name in ("solo", "offline")
    )
    assert same_bits(first, second)


def test_it_looks_at_its_own_views_and_speaks_at_every_step(runs) -> None:
    records = list(read_records(runs["root"] / "offline" / "metrics.jsonl"))
    steps = [one for one in records if getattr(one, "num_teachers", None) is not None]
    assert {(one.peer, one.step): one.num_teachers for one in steps} == {
        (peer, step): 1 for peer in (TEACHER, STUDENT) for step in range(3)
    }


def test_a_step_of_it_has_no_graph_no_gradient_and_no_update() -> None:
    peer = dataclasses.replace(toy_peer("simsiam", dropout=0.5), is_frozen=True)
    before = state_of(peer)
    images = toy_images()
    outputs = []
    for step in (0, 0, 1):
        output = peer.encode(peer.views(images, step), StepImages(images), step)
        assert not output.ssl_loss.requires_grad
        assert not output.learn_with.a_ND.requires_grad
        peer.update(output.ssl_loss, step)
        outputs.append(peer.distribution(output.publish, 0).p_NN)
    assert same_bits(before, state_of(peer))
    assert not peer.optimizer.state
    assert all(parameter.grad is None for parameter in peer.objective.parameters())
    assert (outputs[0] == outputs[1]).all() and (outputs[0] != outputs[2]).any()


def test_what_it_publishes_is_of_eval_mode() -> None:
    def published(peer: Peer) -> torch.Tensor:
        output = peer.encode(peer.views(toy_images(), 0), StepImages(toy_images()), 0)
        return torch.tensor(peer.distribution(output.publish, 0).p_NN)

    learner = toy_peer("simclr")
    teacher = dataclasses.replace(toy_peer("simclr"), is_frozen=True)
    teacher.objective.train()
    assert not torch.equal(published(learner), published(teacher))
    teacher.objective.eval()
    with torch.no_grad():
        z = teacher.objective(*teacher.views(toy_images(), 0)).publish
    assert torch.equal(published(teacher), torch.tensor(teacher.distribution(z, 0).p_NN))


def test_an_interrupted_offline_run_goes_on(runs, tmp_path: Path) -> None:
    whole = runs["offline"]["peers"]
    part = frozen(tmp_path / "run", runs["root"] / "solo", "steps=2")
    run_here(part)
    longer = dataclasses.replace(part, steps=3, resume=str(tmp_path / "run"))
    found = run_here(longer)["peers"]
    assert {name: peer["state_digest"] for name, peer in found.items()} == {
        name: peer["state_digest"] for name, peer in whole.items()
    }


@pytest.mark.grpc
@pytest.mark.slow
def test_in_a_process_of_its_own_it_is_the_same(runs, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    source = runs["root"] / "solo"
    dogo_fed(
        "train", *TINY[:-1], "host=processes", "peers=simclr_simsiam",
        f"peers.{TEACHER}.frozen_from={source}", f"run_dir={run_dir}",
    )  # fmt: skip
    found = json.loads((run_dir / "summary.json").read_text())["peers"]
    expected = runs["offline"]["peers"]
    for peer in (TEACHER, STUDENT):
        for key in ("state_digest", "objective", "steps_trained", "mutual_kl"):
            assert found[peer][key] == expected[peer][key], (peer, key)
    assert load_yaml(run_dir / "config.yaml").peers[TEACHER].frozen_from == str(source)


def test_a_frozen_peer_that_moves_is_an_error(tmp_path: Path) -> None:
    own = (
        "objective@peers.simsiam.objective=own",
        "peers.simsiam.objective.name=tests.support.tiny_run:Restless",
    )
    solo = config_of(tmp_path / "solo", "steps=1", "exchange.enabled=false", *own)
    run_here(solo)
    moving = frozen(tmp_path / "run", tmp_path / "solo", "steps=1", *own)
    with pytest.raises(TrainingError, match="'simsiam' is frozen, but its state has changed"):
        run_here(moving)


def test_impossible_teachers_are_refused_before_anything_starts(runs, tmp_path: Path) -> None:
    solo = runs["root"] / "solo"
    missing = "frozen_from=.*nothing: there is no such weights file or run folder"
    with pytest.raises(ConfigError, match=missing):
        prepare(frozen(tmp_path / "run", tmp_path / "nothing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"frozen_from=.*has no checkpoint of a peer"):
        prepare(frozen(tmp_path / "run", tmp_path / "empty"))
    with pytest.raises(ConfigError, match=r"peer 'simsiam': frozen_from=.*another model"):
        prepare(frozen(tmp_path / "run", solo, "peers.simsiam.objective.options.hidden_dim=64"))
    with pytest.raises(ConfigError, match="no peer would learn"):
        frozen(tmp_path / "run", solo, f"peers.{STUDENT}.frozen_from={solo}")
    with pytest.raises(ConfigError, match="frozen_from"):
        frozen(tmp_path / "run", Path(), f"peers.{STUDENT}.frozen_from=''")
    assert not (tmp_path / "run").exists()


def test_a_broken_newest_checkpoint_is_no_reason_to_take_an_older_one(runs, tmp_path: Path) -> None:
    shutil.copytree(runs["root"] / "solo", tmp_path / "solo")
    newest = max((tmp_path / "solo" / "peers" / TEACHER / "checkpoints").iterdir())
    newest.write_bytes(newest.read_bytes()[:100])
    with pytest.raises(ConfigError, match="can't be used"):
        prepare(frozen(tmp_path / "run", tmp_path / "solo"))
