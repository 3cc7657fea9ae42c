"""Baselines in runs: what they do to the peers, when, at what traffic, and that they go on."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from configs.compose import compose_run
from configs.resume import resumed
from dogo_fed.baselines.catalog import baseline_class, make_baseline
from dogo_fed.config import ComponentConfig
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.step import propose
from dogo_fed.errors import ConfigError, StorageFull
from dogo_fed.run.prepare import prepare
from dogo_fed.storage.checkpoint import CheckpointStore
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here

CPU = torch.device("cpu")
SITES = (
    *(one for one in TINY if not one.startswith("steps")),
    "peers=sites",
    "partition=iid",
    "exchange.enabled=false",
    "eval.linear=false",
    "steps_per_round=4",
    "steps=8",
)
PEERS = ("a_resnet", "b_wide", "c_resnet", "d_wide")


def config_of(name, *settings, **options):
    """Returns the settings of a run with a baseline."""
    config = compose_run([*SITES, *settings])
    peers = config.peers
    if name == "fedx":
        objective = ComponentConfig(name="fedx", options={"hidden_dim": 16, "output_dim": 8})
        peers = {peer: dataclasses.replace(one, objective=objective) for peer, one in peers.items()}
    baseline = ComponentConfig(name=name, options=options)
    return dataclasses.replace(config, peers=peers, baseline=baseline)


def made(name, *settings, **options):
    run = load_run(config_of(name, *settings, **options), synthetic(size=96, test_size=16))
    peers = [run.build_peer(peer, CPU) for peer in run.peer_ids]
    return run, peers, make_baseline(run, peers)


def proposals_of(run, peers, step):
    images = {one.id: run.images_of(one.id, step, with_labels=False) for one in peers}
    return {one.id: propose(one, images[one.id], step) for one in peers}


def weights(peer, prefix=""):
    named = peer.objective.named_parameters()
    return {name: one.detach().clone() for name, one in named if name.startswith(prefix)}


# ---- all of them ----


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedavg", "fccl", "fedx", "flesd"])
def test_a_run_repeats_and_goes_on_bit_for_bit(name, tmp_path):
    for run, steps in (("one", 8), ("two", 8), ("parts", 4)):
        run_here(config_of(name, f"steps={steps}", f"run_dir={tmp_path}/{run}"))
    again = [f"resume={tmp_path}/parts", "steps=8"]
    run_here(resumed(compose_run(again), again))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "parts")
    run_here(compose_run([*SITES, f"run_dir={tmp_path}/alone"]))
    assert digests(tmp_path / "one") != digests(tmp_path / "alone")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["host=processes"], "in one process only; type host=local"),
        (["exchange.enabled=true"], "type exchange.enabled=false"),
        (["checkpoint.every_steps=2"], "leave out checkpoint.every_steps"),
    ],
)
def test_what_does_not_go_with_a_baseline_is_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        config_of("fedavg", *settings)


def test_an_unknown_baseline_or_option_is_told():
    with pytest.raises(ConfigError, match="there is no baseline 'fedprox'; there are fccl, fedavg"):
        made("fedprox")
    with pytest.raises(ConfigError, match="there is no baseline 'fedprox'; there are fccl, fedavg"):
        baseline_class("fedprox")
    with pytest.raises(ConfigError, match="momentun"):
        made("flesd", momentun=0.9)
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        made("flesd", share=1.0)
    with pytest.raises(ConfigError, match=r"keys at least 8 \(the anchors of a pass\)"):
        made("flesd", keys=4)
    with pytest.raises(ConfigError, match="fccl: every_steps must be 1 or more"):
        made("fccl", every_steps=0)


@pytest.mark.parametrize("name", ["fccl", "flesd"])
@pytest.mark.parametrize("setting", ["anchor_share=0", "anchors_at=exchanges"])
def test_a_method_about_anchors_wants_them_in_every_pass(name, setting):
    with pytest.raises(ConfigError, match=f"{name} teaches about the anchors of every pass"):
        made(name, setting)


def test_what_can_not_be_is_refused_before_anything_starts(tmp_path):
    for options, words in (({"momentun": 0.9}, "momentun"), ({"share": 2}, "share between")):
        with pytest.raises(ConfigError, match=words):
            prepare(config_of("flesd", f"run_dir={tmp_path}/run", **options))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["fedavg", "fedx"])
def test_a_last_save_that_fails_changes_no_number(name, tmp_path, monkeypatch):
    """A session that was saved and one that was not are both averaged again, or both not."""
    run_here(config_of(name, f"run_dir={tmp_path}/whole"))
    real, saves = CheckpointStore.save, []

    def save(self, objective, optimizer, progress, **others):
        saves.append(progress.step)
        if saves.count(8) >= 3:
            raise StorageFull("full")
        real(self, objective, optimizer, progress, **others)

    with monkeypatch.context() as patched, pytest.raises(StorageFull):
        patched.setattr(CheckpointStore, "save", save)
        run_here(config_of(name, f"run_dir={tmp_path}/cut"))
    again = [f"resume={tmp_path}/cut"]
    run_here(resumed(compose_run(again), again))
    assert digests(tmp_path / "cut") == digests(tmp_path / "whole")


def test_it_stops_between_rounds_only(tmp_path, monkeypatch):
    asked = []
    run = prepare(config_of("flesd", f"run_dir={tmp_path}/run"))
    from dogo_fed.run.local import run_local
    from dogo_fed.run.train import conduct

    def stop_after(run, folder, sink, stop_requested):
        def soon():
            asked.append(None)
            return len(asked) > 1

        run_local(run, folder, sink, soon)

    monkeypatch.setattr("dogo_fed.run.train.draw_curves", lambda *arguments: None)
    summary = conduct(run, stop_after)
    assert len(asked) == 2, "at steps 0 and 4"
    assert {peer["steps_trained"] for peer in summary["peers"].values()} <= {0, 4}


# ---- FedAvg ----


def test_fedavg_gives_the_mean_by_the_number_of_images_to_each_kind_of_network():
    run, peers, fedavg = made("fedavg", "partition=dirichlet", "partition.alpha=0.5")
    sizes = {one.id: len(run.data_of(one.id).own.train) for one in peers}
    assert len(set(sizes.values())) > 1
    before = {one.id: weights(one) for one in peers}
    fedavg.end_step(2)
    for one in peers:
        assert all(map(torch.equal, weights(one).values(), before[one.id].values()))
    fedavg.end_step(3)
    for first, second in (("a_resnet", "c_resnet"), ("b_wide", "d_wide")):
        one, other = (next(p for p in peers if p.id == name) for name in (first, second))
        total = sizes[first] + sizes[second]
        for key, value in weights(one).items():
            assert torch.equal(value, weights(other)[key])
            expected = (
                sizes[first] * before[first][key] + sizes[second] * before[second][key]
            ) / total
            torch.testing.assert_close(value, expected)


def test_fedavg_leaves_heads_alone_if_told():
    _, peers, fedavg = made("fedavg", heads=False)
    heads = {one.id: weights(one, "projector") for one in peers}
    fedavg.average()
    one, other = (weights(peers[place], "backbone") for place in (0, 2))
    assert all(map(torch.equal, one.values(), other.values()))
    for one in peers:
        assert all(map(torch.equal, heads[one.id].values(), weights(one, "projector").values()))


@pytest.mark.parametrize("name", ["fedavg", pytest.param("fedx", marks=pytest.mark.slow)])
def test_what_travels_is_counted(name, tmp_path):
    summary = run_here(config_of(name, f"run_dir={tmp_path}/run"))
    _, peers, _ = made(name)
    parts = ("backbone", "projector", *(["predictor"] if name == "fedx" else []))
    numbers = sum(
        one.numel()
        for peer in peers
        for part in parts
        for one in peer.objective.get_submodule(part).state_dict().values()
        if one.is_floating_point()
    )
    assert summary["exchange"]["bytes_up_per_step"] == pytest.approx(4 * numbers * 2 / (4 * 8))


def test_the_first_round_starts_from_one_network():
    _, peers, fedavg = made("fedavg")
    mine, first = weights(peers[0]), weights(peers[2])
    assert not all(map(torch.equal, mine.values(), first.values()))
    fedavg.begin()
    assert all(map(torch.equal, mine.values(), weights(peers[0]).values()))
    assert all(map(torch.equal, mine.values(), weights(peers[2]).values()))


def test_a_queue_and_an_average_stay_at_their_peer():
    _, peers, fedavg = made(
        "fedavg",
        *(f"objective@peers.{name}.objective=moco_v2" for name in PEERS),
        *(f"peers.{name}.objective.options.queue_size=32" for name in PEERS),
        *(f"peers.{name}.teacher=ema" for name in PEERS),
    )
    objectives = peers[0].objective, peers[2].objective
    queues = [one.queue_KD.clone() for one in objectives]
    averages = [next(one.average.parameters()).clone() for one in objectives]
    fedavg.average()
    for one, queue_KD, averaged in zip(objectives, queues, averages, strict=True):
        assert torch.equal(one.queue_KD, queue_KD)
        assert torch.equal(next(one.average.parameters()), averaged)


def test_fedavg_ends_with_one_network(tmp_path):
    run_here(config_of("fedavg", f"run_dir={tmp_path}/run"))
    found = digests(tmp_path / "run")
    assert found["a_resnet"] == found["c_resnet"] != found["b_wide"] == found["d_wide"]


def test_what_is_evaluated_after_a_round_is_the_common_network(tmp_path):
    summary = run_here(config_of("fedavg", f"run_dir={tmp_path}/run", "eval.knn_every_rounds=1"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rounds = [entry for entry in map(json.loads, lines) if entry["type"] == "round"]
    by_peer = {name: [one for one in rounds if one["peer"] == name] for name in PEERS}
    assert [one["round"] for one in by_peer["a_resnet"]] == [0, 1, 2]
    for first, second in (("a_resnet", "c_resnet"), ("b_wide", "d_wide")):
        pairs = list(zip(by_peer[first], by_peer[second], strict=True))
        assert len(pairs) == 3 and all(one["knn_top1"] == two["knn_top1"] for one, two in pairs)
    assert summary["steps"] == 8


@pytest.mark.parametrize(("every_steps", "after"), [(None, [3, 7]), (3, [2, 5, 7]), (8, [7])])
def test_fedavg_averages_as_often_as_it_is_told(every_steps, after):
    _, _, fedavg = made("fedavg", every_steps=every_steps)
    assert [step for step in range(8) if fedavg.averages_after(step)] == after


def test_networks_that_are_all_unlike_can_not_be_averaged():
    run = load_run(compose_run([*TINY, "peers=pair"]), synthetic(size=96, test_size=16))
    peers = [run.build_peer(peer, CPU) for peer in run.peer_ids]
    config = dataclasses.replace(
        run.config,
        exchange=dataclasses.replace(run.config.exchange, enabled=False),
        baseline=ComponentConfig(name="fedavg"),
    )
    with pytest.raises(ConfigError, match="no other peer has the network of resnet or of wide"):
        make_baseline(dataclasses.replace(run, config=config), peers)


# ---- FedX ----


def test_fedx_has_heads_and_temperature_of_simclr_and_the_others_leave_objectives_as_they_are():
    """At another temperature than all other columns have, it would be another comparison."""
    heads = {"hidden_dim": 16, "output_dim": 8, "temperature": 0.2}
    simclr = ComponentConfig(name="simclr", options=heads)
    byol = ComponentConfig(name="byol", options=heads)
    fedx = baseline_class("fedx")
    assert fedx.objective_for(simclr) == ComponentConfig(name="fedx", options=heads)
    assert fedx.objective_for(byol) == ComponentConfig(name="fedx", options={})
    for name in ("fccl", "fedavg", "flesd"):
        assert baseline_class(name).objective_for(simclr) is simclr


def test_fedx_may_contrast_as_published():
    _, peers, _ = made("fedx")
    assert {peer.objective.temperature for peer in peers} == {0.5}
    _, peers, _ = made("fedx", temperature=0.1)
    assert {peer.objective.temperature for peer in peers} == {0.1}
    with pytest.raises(ConfigError, match="temperature must be greater than 0, or null"):
        made("fedx", temperature=0)


def test_fedx_wants_its_own_objective():
    config = dataclasses.replace(compose_run(SITES), baseline=ComponentConfig(name="fedx"))
    run = load_run(config, synthetic(size=96, test_size=16))
    with pytest.raises(ConfigError, match=r"has simclr; `dogo-fed compare methods=\[fedx\]`"):
        make_baseline(run, [run.build_peer(peer, CPU) for peer in run.peer_ids])


def test_fedx_begins_every_round_with_the_common_network():
    _, peers, fedx = made("fedx")
    fedx.end_step(3)
    one, other = peers[0].objective, peers[2].objective
    for mine in (one, other):
        for kept, now in zip(mine.common[0].parameters(), mine.backbone.parameters(), strict=True):
            assert torch.equal(kept, now)
    assert torch.equal(next(one.common.parameters()), next(other.common.parameters()))


def test_fedx_is_no_objective_without_the_baseline():
    with pytest.raises(ConfigError, match=r"`dogo-fed compare methods=\[fedx\]` trains it"):
        dataclasses.replace(config_of("fedx"), baseline=None)


# ---- FLESD ----


def test_flesd_distils_in_the_last_steps_of_a_round_and_nothing_else():
    run, peers, flesd = made("flesd", share=0.5)
    assert [flesd.first_distillation(step) for step in (0, 3, 4, 7)] == [2, 2, 6, 6]
    for step in range(3):
        flesd.begin_step(step)
        proposals = proposals_of(run, peers, step)
        losses = flesd.losses(step, proposals)
        for name, one in proposals.items():
            is_own = losses[name][0] is one.output.ssl_loss
            assert is_own == (step < 2)
    loss, traffic = losses["a_resnet"]
    num_anchors = len(run.data.shared.train)
    assert traffic.bytes_up == traffic.bytes_down == 4 * num_anchors * (num_anchors - 1) // 2
    # A cross entropy of at least the target's entropy, and less than that of a coin of K sides twice.
    assert 0 < loss.item() < 2 * math.log(num_anchors)
    flesd.begin_step(3)
    assert flesd.losses(3, proposals_of(run, peers, 3))["a_resnet"][1].bytes_up == 0


def test_flesd_puts_the_steps_own_anchors_into_the_queue_first():
    run, peers, flesd = made("flesd", share=0.5, keys=12)
    flesd.begin_step(2)
    began_with = flesd._key_ids_K.tolist()
    assert len(set(began_with)) == 12 < len(run.data.shared.train)
    for step in (2, 3):
        proposals = proposals_of(run, peers, step)
        before = {name: keys.clone() for name, keys in flesd._keys_KD.items()}
        ids_before = flesd._key_ids_K.tolist()
        flesd.losses(step, proposals)
        seen = run.schedule.sample_ids(step)[: run.config.anchors_per_step].tolist()
        ids = flesd._key_ids_K.tolist()
        kept = [one for one in ids_before if one not in seen][-(12 - len(seen)) :]
        assert ids == kept + seen
        for name, keys in flesd._keys_KD.items():
            for place, one in enumerate(kept):
                assert torch.equal(keys[place], before[name][ids_before.index(one)])
            torch.testing.assert_close(keys.norm(dim=1), torch.ones(12))
        flesd.begin_step(step + 1)


def test_flesd_distils_as_often_as_it_is_told():
    _, _, flesd = made("flesd", "steps_per_round=2", share=0.5, every_rounds=3)
    found = [flesd.first_distillation(step) for step in range(8)]
    assert found == [None, None, None, None, 5, 5, 7, 7]


@pytest.mark.parametrize(
    ("images", "dims", "up", "down"),
    [(40, (8, 8, 8), 320, 640), (10, (8, 8, 8), 45, 45), (40, (8, 64), 780, 320)],
)
def test_flesd_counts_the_fewer_of_similarities_and_projections(images, dims, up, down):
    _, _, flesd = made("flesd")
    flesd._projections_AD = [torch.zeros(images, dim) for dim in dims]
    traffic = flesd._traffic()
    assert (traffic.bytes_up, traffic.bytes_down) == (4 * up, 4 * down)


def test_flesd_learns_from_anchors_alone():
    run, peers, flesd = made("flesd", share=0.5)
    flesd.begin_step(2)
    proposals = proposals_of(run, peers, 2)
    loss = flesd.losses(2, proposals)["b_wide"][0]
    shared = proposals["b_wide"].images.shared
    (gradient,) = torch.autograd.grad(loss, proposals["b_wide"].output.learn_with.a_ND)
    assert len(gradient) == run.config.anchors_per_step and shared is not None


# ---- FCCL ----


def test_fccl_draws_peers_to_the_mean_and_not_the_other_way():
    run, peers, fccl = made("fccl", every_steps=2)
    proposals = proposals_of(run, peers, 0)
    losses = fccl.losses(0, proposals)
    for name, one in proposals.items():
        assert losses[name][0].item() > one.output.ssl_loss.item(), "the peers do not agree"
        features = one.output.learn_with.a_ND
        (gradient,) = torch.autograd.grad(
            losses[name][0] - one.output.ssl_loss, features, retain_graph=True
        )
        assert gradient.abs().sum() > 0
        others = [losses[other][0] for other in proposals if other != name]
        assert torch.autograd.grad(sum(others), features, retain_graph=True, allow_unused=True) == (
            None,
        )
    assert losses["a_resnet"][1].bytes_up == 4 * len(features) * (len(features) - 1)
    proposals = proposals_of(run, peers, 1)
    assert fccl.losses(1, proposals)["a_resnet"][0] is proposals["a_resnet"].output.ssl_loss


def test_fccl_adds_what_its_equation_says():
    run, peers, fccl = made("fccl", weight=3.0, temperature=0.5)
    proposals = proposals_of(run, peers, 0)
    losses = fccl.losses(0, proposals)
    features = {name: one.output.learn_with.a_ND.detach() for name, one in proposals.items()}
    size = run.config.anchors_per_step

    def cosines(name):
        unit = torch.nn.functional.normalize(features[name])
        return [
            [float(unit[i] @ unit[j]) / 0.5 for j in range(size) if j != i] for i in range(size)
        ]

    def softmax(row):
        return [math.exp(one) / sum(map(math.exp, row)) for one in row]

    rows = {name: cosines(name) for name in features}
    for name, one in proposals.items():
        divergence = 0.0
        for i in range(size):
            mean = [sum(rows[peer][i][j] for peer in rows) / len(rows) for j in range(size - 1)]
            target, mine = softmax(mean), softmax(rows[name][i])
            divergence += sum(p * math.log(p / q) for p, q in zip(target, mine, strict=True)) / size
        added = (losses[name][0] - one.output.ssl_loss).item()
        assert added == pytest.approx(3.0 * divergence, rel=1e-3, abs=1e-5)


def test_fccl_has_nothing_to_teach_peers_that_agree():
    run, peers, fccl = made("fccl")
    proposals = proposals_of(run, peers, 0)
    same = dict.fromkeys(proposals, proposals["a_resnet"])
    loss, _ = fccl.losses(0, same)["b_wide"]
    assert loss.item() == pytest.approx(proposals["a_resnet"].output.ssl_loss.item(), abs=1e-4)
