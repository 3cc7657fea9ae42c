"""A helper's side of a pass: as many chunks as all other parts, and back through the same heads."""

from __future__ import annotations

import copy
import signal
from types import SimpleNamespace

import pytest
import torch
from torch import distributed as dist
from torch import nn

from configs.compose import compose_run
from dogo_fed.contracts import PeerId
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine import helper_process
from dogo_fed.engine import open as opening
from dogo_fed.engine.helper_process import (
    DONE,
    Done,
    PartOfPass,
    PassOrder,
    PassSettings,
    help_peer,
)
from dogo_fed.engine.helpers import Helpers, _GiveGradients, _TakeGradients
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.step import absorb, propose
from dogo_fed.objectives.simclr import SimCLR
from tests.support.networks import NoBatchStatistics
from tests.support.tiny_run import TINY
from tests.support.toy_peers import FEATURES, ToyBackbone, toy_objective

CPU = torch.device("cpu")
PIPE = SimpleNamespace(send=lambda said: None, poll=lambda within_s: True, recv=lambda: DONE)
SETTINGS = PassSettings(
    peer=PeerId("wide"),
    run_seed=0,
    device_type="cpu",
    half=None,
    memory_format=torch.contiguous_format,
    chunk_size=6,
    is_compiled=False,
    uses_cuda_graphs=False,
    threads=1,
)


class Noting(nn.Module):
    """A backbone that counts its passes, and notes which of them are gone back through."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = ToyBackbone()
        self.num_passes = 0
        self.gone_back = []

    def forward(self, images_NCHW):
        features_NF = self.inner(images_NCHW)
        number, self.num_passes = self.num_passes, self.num_passes + 1
        if features_NF.requires_grad:
            features_NF.register_hook(lambda gradient_NF: self.gone_back.append(number))
        return features_NF


@pytest.fixture
def alone(monkeypatch):
    """Tensors go nowhere, and those that are waited for are random."""
    for name in ("broadcast", "reduce", "send"):
        monkeypatch.setattr(dist, name, lambda *given, **others: None)
    monkeypatch.setattr(dist, "recv", lambda tensor, src: tensor.uniform_())


def part_of_pass(objective, num_chunks=1):
    """Returns a part of 6 images whose forward pass is done."""
    order = PassOrder(0, (6, 3, 8, 8), num_chunks, True, True)
    part = PartOfPass(objective, order, 1, SETTINGS, CPU)
    part.embed(PIPE)
    return part


@pytest.mark.parametrize(
    ("heads", "passes"),
    [
        (("projector_a",), [0]),
        (("features_b",), [1]),
        (("projector_a", "projector_b"), [0, 1]),
        ((), []),
    ],
)
def test_only_heads_with_a_gradient_are_gone_back_through(heads, passes, alone):
    backbone = Noting()
    part = part_of_pass(SimCLR(backbone, FEATURES, hidden_dim=7, output_dim=5))
    part.give_gradients(heads, PIPE)
    assert sorted(backbone.gone_back) == passes


def test_which_weights_have_a_gradient_is_said_and_not_read_from_a_device(alone):
    said = []
    pipe = SimpleNamespace(send=said.append, poll=PIPE.poll, recv=PIPE.recv)
    objective = SimCLR(Noting(), FEATURES, hidden_dim=7, output_dim=5)
    part_of_pass(objective).give_gradients(("features_b",), pipe)
    (done,) = said
    is_of_backbone = [name.startswith("backbone.") for name, _ in objective.named_parameters()]
    assert list(done.used) == is_of_backbone and not all(is_of_backbone)

    helpers = Helpers.__new__(Helpers)
    helpers._peer, helpers._processes = PeerId("wide"), []
    answers = [Done((True, False, False)), Done((False, False, True))]
    helpers._pipes = [
        SimpleNamespace(poll=lambda within_s: True, recv=lambda answer=answer: answer)
        for answer in answers
    ]
    taken = helpers.take_gradients([torch.ones(2, device="meta")] * 3)
    assert [one is None for one in taken] == [False, True, False]


def test_a_head_without_a_graph_is_passed_over(alone):
    part_of_pass(toy_objective("moco_v2")).give_gradients(("projector_a", "target_b"), PIPE)


def test_only_heads_that_the_loss_uses_have_a_gradient():
    asked = []
    helpers = SimpleNamespace(
        give_gradients=lambda sizes, by_head: asked.append((sizes, list(by_head))),
        take_gradients=lambda like: [2.0 * one for one in like],
    )
    weight = torch.ones(2, requires_grad=True)
    token = _TakeGradients.apply(helpers, weight)
    names, embeddings = ["projector_a", "projector_b"], (torch.rand(3, 2), torch.rand(3, 4))
    one_ND, _ = _GiveGradients.apply(helpers, names, [3], token, *embeddings)
    one_ND.sum().backward()
    assert asked == [([3], ["projector_a"])]
    assert torch.equal(weight.grad, torch.full((2,), 2.0))


# ---- chunks ----


@pytest.mark.parametrize(
    ("chunk_size", "expected"),
    [(6, [(6, 2), (6, 2)]), (3, [(4, 1), (4, 1), (4, 1), (3, 1)])],  # parts of 7, 6, 6; of 4 and 3
)
def test_all_parts_have_as_many_chunks_as_the_largest(alone, chunk_size, expected):
    """And of the smallest none has a single image: 3 images are one chunk where 4 could be two."""
    orders, own = [], []
    pipe = SimpleNamespace(send=orders.append, poll=PIPE.poll, recv=PIPE.recv)
    helpers = Helpers.__new__(Helpers)
    num_parts = len(expected) + 1
    helpers._num_parts, helpers._pipes, helpers._processes = num_parts, [pipe] * len(expected), []
    helpers._peer, helpers._chunk_size = PeerId("wide"), chunk_size
    views = torch.zeros(2, 19, 3, 8, 8)
    with torch.no_grad():
        seen = helpers.embed(
            lambda a, b, number: own.append(number) or {"projector_a": torch.zeros(len(a), 2)},
            *views,
            objective=toy_objective("simclr"),
            step=3,
        )
    assert seen["projector_a"].shape == (19, 2)
    assert [(one.shape[0], one.num_chunks) for one in orders] == expected
    assert own == [expected[0][1]], "this process has as many"


def test_a_part_is_done_in_as_many_chunks_as_it_is_told(alone):
    for num_chunks in (1, 2):
        backbone = Noting()
        part_of_pass(SimCLR(backbone, FEATURES, hidden_dim=7, output_dim=5), num_chunks)
        assert backbone.num_passes == 2 * num_chunks, "whatever its own size and chunk_size are"


# ---- the process ----


def test_what_a_terminal_sends_to_all_is_left_to_the_peer(monkeypatch):
    def gone(threads):
        raise EOFError

    ignored = []
    monkeypatch.setattr(signal, "signal", lambda number, how: ignored.append((number, how)))
    monkeypatch.setattr(helper_process, "fix_numerics", gone)
    help_peer(1, 2, "meeting", b"", SETTINGS, PIPE)
    assert ignored == [(signal.SIGINT, signal.SIG_IGN), (signal.SIGHUP, signal.SIG_IGN)]


class _Centred(torch.autograd.Function):
    """Takes off the mean over all parts, as synchronised statistics are over all parts; on a CPU."""

    @staticmethod
    def forward(ctx, x_nF):
        return x_nF - _mean(x_nF)

    @staticmethod
    def backward(ctx, gradient_nF):
        return gradient_nF - _mean(gradient_nF)


def _mean(x_nF):
    sums = torch.cat([x_nF.sum(dim=0), x_nF.new_tensor([float(len(x_nF))])])
    if dist.is_initialized():
        dist.all_reduce(sums)
    return sums[:-1] / sums[-1]


class SharedMean(NoBatchStatistics):
    """A network whose parts meet in each pass, forth and back."""

    def forward(self, x_NCHW):
        return _Centred.apply(super().forward(x_NCHW))


def gradients(backbone, *settings):
    """Returns the gradients of a step without teachers, in which the loss uses one view's queries."""
    objective = "objective@peers.wide.objective=moco_v2_small"
    config = compose_run([*TINY, "optimizer@peers.wide.optimizer=sgd", objective, *settings])
    run = load_run(config, synthetic(size=96, test_size=16), {"wide": copy.deepcopy(backbone)})
    peer = opening._with_helpers(run.build_peer(PeerId("wide"), CPU), run)
    try:
        absorb(peer, propose(peer, run.images_of("wide", 0, with_labels=False), 0), None)
    finally:
        if peer.helpers is not None:
            peer.helpers.close()
    return [one.grad for one in peer.objective.parameters() if one.requires_grad]


@pytest.mark.slow
def test_layers_that_see_all_parts_have_the_gradient_of_the_whole_batch():
    torch.manual_seed(0)
    backbone = SharedMean()
    whole, split = gradients(backbone), gradients(backbone, "peers.wide.data_parallel=2")
    for one, two in zip(whole, split, strict=True):
        torch.testing.assert_close(one, two, rtol=2e-3, atol=1e-5)


@pytest.mark.slow
def test_layers_that_see_all_parts_meet_although_some_parts_fit_one_chunk():
    """16 images are parts of 6, 5 and 5, and in chunks of 5 that would be 2, 1 and 1."""
    found = gradients(SharedMean(), "peers.wide.data_parallel=3", "peers.wide.chunk_size=5")
    assert all(one.isfinite().all() for one in found)
