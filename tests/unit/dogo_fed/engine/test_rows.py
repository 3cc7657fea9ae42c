"""Whose similarities teach: the rows of the run, for every objective, from the same forward pass."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import nn

from benchmarks import row_trials
from configs.compose import compose_run
from dogo_fed.agreement import differences
from dogo_fed.config import Rows, RunConfig
from dogo_fed.contracts import PeerId
from dogo_fed.data.roles import StepImages
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation import state_digest
from dogo_fed.objectives.similarity import log_similarity_distribution
from dogo_fed.run.prepare import notes_of
from tests.support.tiny_run import TINY, run_here
from tests.support.toy_peers import TOY_OBJECTIVES, signal_of, toy_images, toy_objective

WIDE = PeerId("wide")
WITH_PREDICTOR = ("byol", "moco_v3", "simsiam")


def config(*overrides: str, objective: str = "simclr") -> RunConfig:
    small = objective if objective in ("simclr", "supervised") else f"{objective}_small"
    chosen = [f"objective@peers.{peer}.objective={small}" for peer in ("wide", "resnet")]
    return compose_run([*TINY, "peers=pair", *chosen, *overrides])


def built(run: LoadedRun) -> Peer:
    return run.build_peer(WIDE)


def proposal(run: LoadedRun, peer: Peer):
    return propose(peer, run.images_of(peer.id, 0, with_labels=peer.objective.uses_labels), 0)


@pytest.mark.parametrize("objective", [*sorted(TOY_OBJECTIVES), "supervised"])
def test_features_are_those_of_the_backbone_and_cost_no_second_pass(objective: str) -> None:
    run = load_run(config("exchange.rows=features", objective=objective))
    peer, passes = built(run), []
    backbone = peer.objective.backbone
    backbone.register_forward_hook(lambda module, given, out: passes.append(out))
    output = proposal(run, peer).output
    assert len(passes) == 2, "one pass for each view, as ever"
    for pair in (output.learn_with, output.publish):
        assert torch.equal(pair.a_ND, passes[0]) and torch.equal(pair.b_ND, passes[1])
    assert output.learn_with.a_ND.requires_grad


@pytest.mark.parametrize("objective", sorted(TOY_OBJECTIVES))
def test_the_loss_does_not_depend_on_the_rows(objective: str) -> None:
    losses = set()
    for rows in ("null", "projector", "features"):
        run = load_run(config(f"exchange.rows={rows}", objective=objective))
        losses.add(proposal(run, built(run)).output.ssl_loss.item())
    assert len(losses) == 1


@pytest.mark.parametrize("objective", WITH_PREDICTOR)
def test_with_one_kind_of_rows_a_peer_learns_with_what_it_publishes(objective: str) -> None:
    for rows in Rows:
        peer = built(load_run(config(f"exchange.rows={rows.value}", objective=objective)))
        assert peer.objective.learn_with == peer.objective.publish == rows.value
    published = built(load_run(config(objective=objective)))
    assert (published.objective.learn_with, published.objective.publish) == (
        "predictor",
        "projector",
    )


@pytest.mark.parametrize("objective", sorted(set(TOY_OBJECTIVES) - set(WITH_PREDICTOR)))
def test_rows_that_an_objective_has_not_are_refused_before_the_start(objective: str) -> None:
    run = load_run(config("exchange.rows=predictor", objective=objective))
    with pytest.raises(
        ConfigError, match=r"peer 'wide'.*no predictor.*it has features and projector"
    ):
        built(run)


def test_rows_and_a_head_of_the_objectives_own_are_too_much() -> None:
    publish = "peers.wide.objective.options.publish=target"
    run = load_run(config("exchange.rows=features", publish, objective="byol"))
    with pytest.raises(ConfigError, match=r"leave that out, or type exchange\.rows=null"):
        built(run)
    built(load_run(config(publish, objective="byol")))


@pytest.mark.parametrize(
    "rows, other, used",
    [
        ("features", "kl_temperature", "features_temperature"),
        ("null", "features_temperature", "kl_temperature"),
    ],
)
def test_a_temperature_that_has_no_effect_is_told(rows: str, other: str, used: str) -> None:
    def told(*settings: str) -> list[str]:
        run = load_run(config(f"exchange.rows={rows}", *settings))
        return [note for note in notes_of(run) if "temperature" in note]

    assert told(f"peers.wide.{used}=0.3") == []
    assert told(f"peers.wide.{other}=0.3", "exchange.enabled=false") == []
    (note,) = told(f"peers.wide.{other}=0.3")
    assert note.startswith(f"peers.wide.{other} has no effect: exchange.rows={rows} ")
    assert note.endswith(f"peers.wide.{used}")


def test_features_have_a_temperature_of_their_own() -> None:
    own = ("peers.wide.kl_temperature=0.3", "peers.wide.features_temperature=0.02")
    for rows, expected in (("null", 0.3), ("projector", 0.3), ("features", 0.02)):
        run = load_run(config(f"exchange.rows={rows}", *own))
        peer = built(run)
        assert peer.temperature == expected
        made = proposal(run, peer)
        pair = made.output.publish
        p_NN = log_similarity_distribution(pair.a_ND, pair.b_ND, expected).exp()
        assert torch.allclose(torch.from_numpy(show(peer, made).p_NN), p_NN, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_temperature_that_is_none_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=r"peers\.wide.*features_temperature"):
        config(f"peers.wide.features_temperature={value}")


def test_with_features_the_others_teach_the_backbone_and_no_head() -> None:
    """The gradient of the mutual KL alone: own loss taken out."""
    run = load_run(config("exchange.rows=features"))
    learner, teacher = built(run), run.build_peer(PeerId("resnet"))
    made = proposal(run, learner)
    signal = signal_of(show(teacher, proposal(run, teacher)))
    made.output.ssl_loss.data.zero_()
    unmoved = dataclasses.replace(made.output, ssl_loss=made.output.ssl_loss.detach())
    silent = dataclasses.replace(made, output=unmoved)
    losses = absorb(learner, silent, signal)
    assert losses.mutual_kl > 0
    heads: nn.Module = learner.objective.projector
    assert all(one.grad is None for one in heads.parameters())
    assert any(
        one.grad is not None and one.grad.any() for one in learner.objective.backbone.parameters()
    )


def test_peers_with_other_rows_refuse_each_other() -> None:
    mine, theirs = (
        load_run(config(f"exchange.rows={rows}")).agreement for rows in ("features", "null")
    )
    (phrase,) = differences(mine, theirs, my_name="here", their_name="there")
    assert phrase == "exchange.rows is None at there and features at here"


def test_the_summary_names_the_rows_and_the_numbers_are_others(tmp_path) -> None:
    found = {}
    for rows in ("null", "features"):
        settings = (f"exchange.rows={rows}", "exchange.symmetric=true", "exchange.every_steps=2")
        found[rows] = run_here(config(*settings, f"run_dir={tmp_path / rows}"))
    assert found["features"]["variants"]["exchange.rows"] == "features"
    assert "exchange.rows" not in found["null"]["variants"]
    digests = [
        {name: peer["state_digest"] for name, peer in summary["peers"].items()}
        for summary in found.values()
    ]
    assert all(digests[0][name] != digests[1][name] for name in digests[0])


def test_a_run_that_goes_on_has_the_numbers_of_one_that_never_stopped(tmp_path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    settings = ("exchange.rows=features", "exchange.symmetric=true")
    expected = run_here(config(*settings, f"run_dir={whole}"))["peers"]
    shorter = config(*settings, "steps=2", f"run_dir={part}")
    run_here(shorter)
    found = run_here(dataclasses.replace(shorter, steps=3, resume=str(part)))["peers"]
    assert {name: peer["state_digest"] for name, peer in found.items()} == {
        name: peer["state_digest"] for name, peer in expected.items()
    }


@pytest.mark.parametrize("kind", sorted(TOY_OBJECTIVES))
def test_an_objective_gives_its_features_beside_its_heads(kind: str) -> None:
    objective = toy_objective(kind)
    views = toy_images(4).float() / 255, toy_images(4, seed=1).float() / 255
    seen = objective.embed(*views)
    assert {"features_a", "features_b", "projector_a", "projector_b"} <= set(seen)
    images = StepImages(toy_images(4))
    assert len(images.images_NCHW) == len(seen["features_a"])


def test_the_trials_of_rows_are_the_product_where_they_add_nothing() -> None:
    """`benchmarks.row_trials` with rows of the features alone trains what a run trains."""
    overrides = ("exchange.rows=features", "peers.wide.distill_weight=0.3")
    same = ("peers.resnet.distill_weight=0.3", *overrides)
    digests = {
        name: [state_digest(peer.objective) for peer in row_trials.train(tried(same), trial)]
        for name, trial in row_trials.TRIALS.items()
    }
    summary = run_here(config(*same))
    assert digests["features"] == [one["state_digest"] for one in summary["peers"].values()]
    assert len({tuple(ends) for ends in digests.values()}) == len(row_trials.TRIALS)


def tried(overrides: tuple[str, ...]) -> LoadedRun:
    return load_run(config(*overrides))


def test_who_is_behind_is_told_by_the_losses() -> None:
    losses = [torch.tensor(3.0), torch.tensor(1.0), torch.tensor(2.0)]
    assert row_trials.how_far_behind(losses, 0) == pytest.approx(2.0)
    assert row_trials.how_far_behind(losses, 1) == pytest.approx(0.4)


def test_the_trial_of_hard_rows_weighs_them_by_their_divergence() -> None:
    log_p, log_q = (
        torch.randn(6, 6, generator=torch.Generator().manual_seed(seed)).log_softmax(1)
        for seed in (0, 1)
    )
    rows = [float((log_q[i].exp() * (log_q[i] - log_p[i])).sum()) for i in range(6)]
    alike, hard = (float(row_trials.divergence(log_p, log_q, power)) for power in (0.0, 1.0))
    assert alike == pytest.approx(sum(rows) / 6, rel=1e-5)
    assert hard == pytest.approx(sum(one**2 for one in rows) / sum(rows), rel=1e-5)
