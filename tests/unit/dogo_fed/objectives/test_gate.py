"""The gate: what is learned from others never works against the own loss, to first order."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from configs.compose import compose_run
from dogo_fed.data.roles import StepImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.errors import ConfigError
from dogo_fed.objectives.base import Objective
from dogo_fed.objectives.gate import agreeing
from tests.support.distributions import distribution
from tests.support.tiny_run import TINY
from tests.support.toy_peers import TOY_OBJECTIVES, signal_of, toy_images, toy_peer

EVERY = pytest.mark.parametrize("kind", sorted(TOY_OBJECTIVES))


def passed(gradient_ND, own_ND):
    """Returns what the gate lets through of a gradient."""
    z_ND = torch.randn(gradient_ND.shape, dtype=gradient_ND.dtype, requires_grad=True)
    gated_ND = agreeing(z_ND, own_ND)
    assert torch.equal(gated_ND, z_ND)
    gated_ND.backward(gradient_ND)
    return z_ND.grad


@pytest.fixture
def gradients():
    draw = torch.Generator().manual_seed(2)
    g_ND, o_ND = torch.randn(2, 40, 3, generator=draw, dtype=torch.float64)
    o_ND[5] = 0.0
    return g_ND, o_ND


def test_it_is_the_projection_of_the_loops(gradients):
    g_ND, o_ND = gradients
    found = passed(g_ND, o_ND)
    seen = {"against": 0, "along": 0}
    for g, o, gated in zip(g_ND.tolist(), o_ND.tolist(), found.tolist(), strict=True):
        dot = sum(x * y for x, y in zip(g, o, strict=True))
        seen["against" if dot < 0 else "along"] += 1
        share = min(0.0, dot) / sum(y * y for y in o) if any(o) else 0.0
        assert gated == pytest.approx([x - share * y for x, y in zip(g, o, strict=True)])
    assert min(seen.values()) > 5


def test_nothing_works_against_the_own_gradient_and_what_agrees_passes(gradients):
    g_ND, o_ND = gradients
    found = passed(g_ND, o_ND)
    assert ((found * o_ND).sum(dim=1) >= -1e-12).all()
    agrees = (g_ND * o_ND).sum(dim=1) >= 0
    assert torch.equal(found[agrees], g_ND[agrees])


def test_where_the_own_gradient_has_overflowed_nothing_passes(gradients):
    g_ND, o_ND = gradients
    o_ND[3], o_ND[4, 1] = float("inf"), float("nan")
    found = passed(g_ND, o_ND)
    assert not found[3:5].any() and torch.equal(found[5], g_ND[5])


class Noted(torch.autograd.Function):
    """The identity; notes whether its backward pass is under autocast."""

    @staticmethod
    def forward(ctx, z_ND, notes):
        ctx.notes = notes
        return z_ND.clone()

    @staticmethod
    def backward(ctx, gradient_ND):
        ctx.notes.append(torch.is_autocast_enabled("cpu"))
        return gradient_ND, None


class Faint(Objective):
    """An objective in half precision whose own gradient, 1e-8, is too small for float16."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten())
        self.projector = nn.Linear(12, 3)
        self.notes = []

    def embed(self, view_a_NCHW, view_b_NCHW):
        views = {"projector_a": view_a_NCHW, "projector_b": view_b_NCHW}
        return {name: self.projector(self.backbone(one)).half() for name, one in views.items()}

    def loss(self, seen, labels_N=None):
        a_ND = Noted.apply(seen["projector_a"].float(), self.notes)
        return 1e-8 * (a_ND.sum() + seen["projector_b"].float().sum())


def test_a_small_own_gradient_is_not_lost_in_half_precision():
    objective = Faint()
    with torch.autocast("cpu", torch.bfloat16):
        output = objective(*torch.rand(2, 5, 3, 2, 2), gated=True)
    assert objective.notes == [False]
    (-output.learn_with.a_ND.float().sum()).backward()  # the opposite of what the own loss wants
    assert objective.projector.weight.grad.abs().max() < 1e-2


@EVERY
@pytest.mark.parametrize("rows", [None, "features"])
def test_every_objective_shows_the_same_and_learns_what_does_not_hurt_it(kind, rows):
    taught = {}
    for is_gated in (False, True):
        peer = dataclasses.replace(toy_peer(kind), is_gated=is_gated)
        if rows is not None:
            peer.objective.learn_with = peer.objective.publish = rows
        images = StepImages(toy_images())
        proposal = propose(peer, images, 0)
        shown = show(peer, proposal)
        taught[is_gated] = shown.p_NN.tobytes()
        pair = proposal.output.learn_with
        if is_gated:
            size = len(pair.a_ND)
            losses = absorb(peer, proposal, signal_of(distribution(seed=4, size=size)))
            assert losses.mutual_kl > 0
            changed = [one.grad for one in peer.objective.backbone.parameters()]
            assert all(one is not None and one.isfinite().all() for one in changed)
    assert taught[False] == taught[True]


def tiny(*settings):
    run = load_run(compose_run([*TINY, *settings]), synthetic(size=96, test_size=16))
    return run, run.build_peer("wide", torch.device("cpu"))


@pytest.mark.parametrize("settings", [(), ("partition=iid",)], ids=["shared", "private"])
def test_the_gradient_of_the_mutual_kl_does_not_raise_the_own_loss(settings):
    """At the embeddings that are learned with, of all images or of the anchors of a pass."""
    smallest = {}
    for gate in ("none", "agreement"):
        run, peer = tiny("exchange.rows=features", f"peers.wide.gate={gate}", *settings)
        views = []
        peer.objective.backbone.register_forward_hook(
            lambda *given, kept=views: kept.append(given[2])
        )
        proposal = propose(peer, run.images_of("wide", 0, with_labels=False), 0)
        pair = proposal.output.learn_with
        target_NN = torch.tensor(distribution(seed=5, size=len(pair.a_ND)).p_NN)
        kl = -(target_NN * peer.log_distribution(pair)).sum()
        of_kl = torch.autograd.grad(kl, views, retain_graph=True)
        own = torch.autograd.grad(proposal.output.ssl_loss, views)
        assert all(one.any() for one in of_kl)
        products = torch.cat([(g * o).sum(dim=1) for g, o in zip(of_kl, own, strict=True)])
        smallest[gate] = products.min().item()
    assert smallest["none"] < -1e-6 < smallest["agreement"]


@pytest.mark.parametrize("setting", ["chunk_size=4", "data_parallel=2"])
def test_a_gate_needs_passes_in_one_piece(setting):
    with pytest.raises(ConfigError, match="which a pass in parts does not give"):
        compose_run([*TINY, "peers.wide.gate=agreement", f"peers.wide.{setting}"])


def test_a_gate_that_would_be_open_is_an_error():
    peer = dataclasses.replace(toy_peer("simclr"), is_gated=True)
    weight = next(peer.objective.parameters())
    peer.objective.loss = lambda seen, labels_N=None: weight.sum()
    with pytest.raises(ValueError, match="does not depend on projector_a and projector_b"):
        propose(peer, StepImages(toy_images()), 0)


def test_a_gate_needs_the_own_loss_about_the_same_images():
    with pytest.raises(ConfigError, match="with ssl_on=private there are none"):
        compose_run(
            [*TINY, "partition=iid", "peers.wide.gate=agreement", "peers.wide.ssl_on=private"]
        )
