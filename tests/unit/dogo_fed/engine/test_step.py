"""One step: against an independent joint step, against a fake exchange, and as a pure function."""

from __future__ import annotations

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn

from dogo_fed import seeding
from dogo_fed.contracts import SimilarityDistribution, TeacherSignal, Ticket
from dogo_fed.coordination.rendezvous import Rendezvous
from dogo_fed.data.roles import StepImages
from dogo_fed.engine import step as step_module
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.engine.step_losses import StepLosses
from dogo_fed.errors import TrainingError
from dogo_fed.exchange.base import Traffic
from dogo_fed.objectives.base import ObjectiveOutput, ViewPair
from dogo_fed.objectives.mutual import Reduction, mutual_kl
from tests.support import loop_formulas as loops
from tests.support.toy_peers import same_bits, signal_of, state_of, toy_images, toy_peer

TICKET = Ticket(run_id="run", round=1, step=0, batch_digest="00")
NUM_IMAGES = 6
PUBLICATION_ROUNDING = 1e-6
"""What crosses is float32, so a value may move by 6e-8 of itself at the border; the rest is float64."""


# ---------------------------------------------------------------------------------------------------
# An independent joint step, written from the paper: one process, all forwards, all losses, all
# backwards, then all updates. It shares the networks' layers with the peers and nothing else.


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum() / ((a * a).sum() * (b * b).sum()).sqrt()


def log_softmax(logits: list[torch.Tensor]) -> list[torch.Tensor]:
    total = sum(torch.exp(logit) for logit in logits)
    return [logit - torch.log(total) for logit in logits]


def log_distribution(a_ND: torch.Tensor, b_ND: torch.Tensor) -> list[list[torch.Tensor]]:
    """P = softmax(sim(Z', Z'') / 0.1), row by row."""
    return [log_softmax([cosine(a, b) / 0.1 for b in b_ND]) for a in a_ND]


def simclr_loss(z_a: torch.Tensor, z_b: torch.Tensor) -> torch.Tensor:
    """Equation 1 of SimCLR, mean over the 2N anchors, temperature 0.5."""
    z, n = torch.cat([z_a, z_b]), len(z_a)
    total = torch.zeros((), dtype=z.dtype)
    for i in range(2 * n):
        positive = (i + n) % (2 * n)
        others = sum(torch.exp(cosine(z[i], z[k]) / 0.5) for k in range(2 * n) if k != i)
        total = total - torch.log(torch.exp(cosine(z[i], z[positive]) / 0.5) / others)
    return total / (2 * n)


def simsiam_loss(p_a, p_b, z_a, z_b) -> torch.Tensor:
    """Equation 4 of SimSiam."""
    total = torch.zeros((), dtype=p_a.dtype)
    for i in range(len(p_a)):
        total = total - cosine(p_a[i], z_b[i].detach()) / 2 - cosine(p_b[i], z_a[i].detach()) / 2
    return total / len(p_a)


def embed(objective: nn.Module, view_a: torch.Tensor, view_b: torch.Tensor):
    """Returns the SSL loss, what is learned with and what is published, as the method defines them."""
    z_a = objective.projector(objective.backbone(view_a))
    z_b = objective.projector(objective.backbone(view_b))
    if not hasattr(objective, "predictor"):
        return simclr_loss(z_a, z_b), (z_a, z_b), (z_a, z_b)
    p_a, p_b = objective.predictor(z_a), objective.predictor(z_b)
    published = (p_a, p_b) if objective.publish == "predictor" else (z_a, z_b)
    return simsiam_loss(p_a, p_b, z_a, z_b), (p_a, p_b), published


def kl_to(student: list[list[torch.Tensor]], teacher: list[list[torch.Tensor]]) -> torch.Tensor:
    """KL(teacher || student), mean over rows; the teacher detached, and rounded as it is published."""
    total = torch.zeros((), dtype=torch.float64)
    for student_row, teacher_row in zip(student, teacher, strict=True):
        for log_p, log_q in zip(student_row, teacher_row, strict=True):
            log_q32 = log_q.detach().float()
            q = log_q32.exp().double()
            total = total + q * (log_q32.double() - log_p)
    return total / len(student)


def joint_step(objectives, optimizers, views, weights):
    """Returns the losses of both peers; Jacobi: teachers are same-step and pre-update."""
    for objective in objectives:
        objective.train()
    embedded = [embed(*pair) for pair in zip(objectives, *zip(*views, strict=True), strict=True)]
    losses, reported = [], []
    for me, (ssl_loss, learn_with, _) in enumerate(embedded):
        others = embedded[1 - me][2]
        kl = kl_to(log_distribution(*learn_with), log_distribution(*others))
        losses.append(ssl_loss + weights[me] * kl)
        reported.append((ssl_loss.item(), kl.item()))
    for optimizer, loss in zip(optimizers, losses, strict=True):
        optimizer.zero_grad()
        loss.backward()
    for optimizer in optimizers:
        optimizer.step()
    return reported


def sgd(objective):
    return torch.optim.SGD(objective.parameters(), lr=0.1, momentum=0.9)


def adam(objective):
    return torch.optim.Adam(objective.parameters(), lr=1e-2, eps=1e-3, weight_decay=1e-3)


def two_peers(publish: str = "projector"):
    """A heterogeneous float64 pair: other objective, heads, optimizer and weight."""
    return [
        toy_peer("simclr", dtype=torch.float64, weight=0.9, optimizer=sgd),
        toy_peer("simsiam", dtype=torch.float64, weight=0.3, optimizer=adam, publish=publish),
    ]


def jacobi(peers, images, step):
    """All propose, all show, all absorb: how every host runs the two halves."""
    proposals = [propose(peer, StepImages(images), step) for peer in peers]
    shown = [show(*pair) for pair in zip(peers, proposals, strict=True)]
    return [
        absorb(peer, proposal, signal_of(*(one for j, one in enumerate(shown) if j != i)))
        for i, (peer, proposal) in enumerate(zip(peers, proposals, strict=True))
    ]


@pytest.mark.parametrize("publish", ["projector", "predictor"])
def test_two_peers_do_the_joint_step_of_the_paper(publish):
    peers = two_peers(publish)
    copies = [copy.deepcopy(peer.objective) for peer in peers]
    optimizers = [sgd(copies[0]), adam(copies[1])]
    for step in range(3):
        images = toy_images(NUM_IMAGES, seed=step)
        views = [peer.views(images, step) for peer in peers]
        expected = joint_step(copies, optimizers, views, [0.9, 0.3])
        losses = jacobi(peers, images, step)
        for peer, objective, got, wanted in zip(peers, copies, losses, expected, strict=True):
            assert (got.ssl_loss, got.mutual_kl) == pytest.approx(wanted, abs=PUBLICATION_ROUNDING)
            assert got.mutual_kl > 0.01
            for (name, mine), theirs in zip(
                peer.objective.named_parameters(), objective.parameters(), strict=True
            ):
                torch.testing.assert_close(
                    mine.grad, theirs.grad, rtol=1e-5, atol=PUBLICATION_ROUNDING, msg=name
                )
            for name, value in peer.objective.state_dict().items():
                torch.testing.assert_close(
                    value,
                    objective.state_dict()[name],
                    rtol=1e-6,
                    atol=PUBLICATION_ROUNDING,
                    msg=name,
                )


def test_learning_one_after_the_other_would_be_told_apart():
    """The tolerance of the joint test is far below what a post-update teacher changes."""
    images = toy_images(NUM_IMAGES)
    together, (first, second) = two_peers(), two_peers()
    jacobi(together, images, 0)
    proposal = propose(first, StepImages(images), 0)
    absorb(first, proposal, signal_of(show(second, propose(second, StepImages(images), 0))))
    second = two_peers()[1]
    proposal = propose(second, StepImages(images), 0)
    absorb(second, proposal, signal_of(show(first, propose(first, StepImages(images), 0))))
    difference = max(
        (a - b).abs().max().item()
        for a, b in zip(
            together[1].objective.parameters(), second.objective.parameters(), strict=True
        )
    )
    assert difference > 100 * PUBLICATION_ROUNDING


def test_running_statistics_are_updated_by_each_view_in_turn():
    peer = toy_peer("simclr", dtype=torch.float64)
    images = toy_images(NUM_IMAGES)
    bn, before = peer.objective.backbone.bn, copy.deepcopy(peer.objective.backbone.bn)
    convolved = [peer.objective.backbone.conv(view).detach() for view in peer.views(images, 0)]
    propose(peer, StepImages(images), 0)
    assert bn.num_batches_tracked.item() == 2
    mean, variance = before.running_mean, before.running_var
    for x in convolved:
        mean = 0.9 * mean + 0.1 * x.mean(dim=(0, 2, 3))
        variance = 0.9 * variance + 0.1 * x.var(dim=(0, 2, 3), unbiased=True)
    torch.testing.assert_close(bn.running_mean, mean)
    torch.testing.assert_close(bn.running_var, variance)
    counts = [
        module.num_batches_tracked.item()
        for module in peer.objective.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
    ]
    assert counts == [2] * len(counts)


def test_each_view_is_normalised_by_its_own_statistics():
    """One forward over both views at once would give other embeddings."""
    peer = toy_peer("simclr", dtype=torch.float64)
    view_a, view_b = peer.views(toy_images(NUM_IMAGES), 0)
    view_b = view_b * 3 + 1
    twin = copy.deepcopy(peer.objective).train()
    output = peer.encode((view_a, view_b), StepImages(toy_images()), 0)
    torch.testing.assert_close(output.publish.a_ND, twin.projector(twin.backbone(view_a)))
    torch.testing.assert_close(output.publish.b_ND, twin.projector(twin.backbone(view_b)))
    at_once = twin.projector(twin.backbone(torch.cat([view_a, view_b])))
    assert not torch.allclose(output.publish.a_ND, at_once[:NUM_IMAGES])


# ---------------------------------------------------------------------------------------------------
# Where gradients go


@pytest.mark.parametrize("publish", ["projector", "predictor"])
def test_gradient_reaches_the_encoder_through_learn_with(publish):
    peer = toy_peer("simsiam", publish=publish)
    with_signal, without = copy.deepcopy(peer.objective), copy.deepcopy(peer.objective)
    teacher = toy_peer("simclr")
    signal = signal_of(show(teacher, propose(teacher, StepImages(toy_images()), 0)))
    gradients = []
    for objective, given in ((with_signal, signal), (without, None)):
        twin = dataclasses.replace(
            peer, objective=objective, optimizer=torch.optim.SGD(objective.parameters(), lr=0.0)
        )
        absorb(twin, propose(twin, StepImages(toy_images()), 0), given)
        gradients.append(objective.backbone.conv.weight.grad)
    assert (gradients[0] - gradients[1]).abs().max() > 1e-4


def embeddings_of(num_images: int, dim: int, seed: int) -> ViewPair:
    generator = torch.Generator().manual_seed(seed)
    a_ND, b_ND = torch.randn(2, num_images, dim, dtype=torch.float64, generator=generator)
    return ViewPair(a_ND.requires_grad_(), b_ND.requires_grad_())


class FixedOutput(nn.Module):
    """An objective whose learned-with and published embeddings are separate leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.average = None
        self.learn_with = embeddings_of(NUM_IMAGES, 4, seed=1)
        self.publish = embeddings_of(NUM_IMAGES, 4, seed=2)
        self.unused = nn.Parameter(torch.zeros(1, dtype=torch.float64))

    def forward(self, view_a: torch.Tensor, view_b: torch.Tensor) -> ObjectiveOutput:
        del view_a, view_b
        return ObjectiveOutput(0.0 * self.unused.sum(), self.learn_with, self.publish)

    def after_update(self) -> None:
        pass


@pytest.mark.parametrize("reduction", list(Reduction))
def test_the_kl_teaches_only_what_is_learned_with(reduction):
    objective = FixedOutput()
    peer = dataclasses.replace(
        toy_peer("simclr", weight=3.0, reduction=reduction),
        objective=objective,
        optimizer=torch.optim.SGD(objective.parameters(), lr=0.1),
    )
    teacher = toy_peer("simclr")
    signal = signal_of(show(teacher, propose(teacher, StepImages(toy_images(NUM_IMAGES)), 0)))
    mean_before = signal.mean_NN.copy()
    proposal = propose(peer, StepImages(toy_images(NUM_IMAGES)), 0)
    shown = show(peer, proposal)
    absorb(peer, proposal, signal)

    assert objective.publish.a_ND.grad is None
    assert objective.publish.b_ND.grad is None
    assert isinstance(shown.p_NN, np.ndarray)
    np.testing.assert_array_equal(signal.mean_NN, mean_before)
    factor = 3.0 if reduction is Reduction.BATCHMEAN else 3.0 / NUM_IMAGES
    expected = loops.kl_gradients(
        loops.rows(objective.learn_with.a_ND),
        loops.rows(objective.learn_with.b_ND),
        signal.mean_NN.astype(float).tolist(),
        0.1,
    )
    # A float32 mean's rows sum to 1 within 1e-7 only, where the formula takes them to sum to 1.
    for tensor, grad in zip(
        (objective.learn_with.a_ND, objective.learn_with.b_ND), expected, strict=True
    ):
        torch.testing.assert_close(
            tensor.grad,
            factor * torch.tensor(grad, dtype=torch.float64),
            rtol=1e-5,
            atol=PUBLICATION_ROUNDING,
        )


# ---------------------------------------------------------------------------------------------------
# Variants: both directions, several weighted teachers, temperatures and weights of one's own


def taught_by(*kinds: str, reverse: bool = False, temperature: float = 0.1):
    """Returns what peers of these kinds show of the images."""
    shown = []
    for number, kind in enumerate(kinds):
        peer = toy_peer(kind, name=f"{kind}{number}")
        peer = dataclasses.replace(peer, is_symmetric=reverse, temperature=temperature)
        shown.append(show(peer, propose(peer, StepImages(toy_images(NUM_IMAGES)), 0)))
    return shown


def fixed_learner(weight: float = 3.0, temperature: float = 0.1):
    """Returns a learner whose embeddings are leaves, so that their gradients can be looked at."""
    objective = FixedOutput()
    return dataclasses.replace(
        toy_peer("simclr", weight=weight),
        objective=objective,
        temperature=temperature,
        optimizer=torch.optim.SGD(objective.parameters(), lr=0.1),
    )


def loop_rows(p_NN: np.ndarray) -> loops.Rows:
    return p_NN.astype(float).tolist()


def assert_gradients(peer, expected_a, expected_b):
    for tensor, expected in (
        (peer.objective.learn_with.a_ND, expected_a),
        (peer.objective.learn_with.b_ND, expected_b),
    ):
        torch.testing.assert_close(
            tensor.grad,
            torch.tensor(expected, dtype=torch.float64),
            rtol=1e-5,
            atol=PUBLICATION_ROUNDING,
        )


def combined(*terms):
    """Returns the sum of (factor, rows) over matrices of one shape."""
    return [
        [math.fsum(factor * rows[i][j] for factor, rows in terms) for j in range(len(row))]
        for i, row in enumerate(terms[0][1])
    ]


def test_both_directions_are_published_only_if_asked_for():
    peer = toy_peer("simsiam")
    proposal = propose(peer, StepImages(toy_images()), 0)
    assert show(peer, proposal).reverse is None
    shown = show(dataclasses.replace(peer, is_symmetric=True), proposal)
    pair = proposal.output.publish
    expected = loops.similarity_distribution(loops.rows(pair.b_ND), loops.rows(pair.a_ND), 0.1)
    np.testing.assert_allclose(shown.reverse.p_NN, expected, atol=1e-5)
    assert shown.p_NN.tobytes() == show(peer, proposal).p_NN.tobytes()
    entropy = math.fsum(p * math.log(p) for row in expected for p in row) / len(expected)
    assert shown.reverse.negative_entropy == pytest.approx(entropy, abs=1e-5)
    assert not np.allclose(shown.reverse.p_NN, shown.p_NN, atol=1e-3)
    assert not np.allclose(shown.reverse.p_NN, shown.p_NN.T, atol=1e-3)


def test_the_kl_of_both_directions_is_their_mean_and_so_is_its_gradient():
    (shown,) = taught_by("simsiam", reverse=True)
    peer = fixed_learner()
    signal = dataclasses.replace(signal_of(shown), reverse=shown.reverse)
    losses = absorb(peer, propose(peer, StepImages(toy_images(NUM_IMAGES)), 0), signal)
    a, b = (
        loops.rows(one) for one in (peer.objective.learn_with.a_ND, peer.objective.learn_with.b_ND)
    )
    forth, back = loop_rows(shown.p_NN), loop_rows(shown.reverse.p_NN)
    kl_forth = loops.kl(forth, loops.similarity_distribution(a, b, 0.1))
    kl_back = loops.kl(back, loops.similarity_distribution(b, a, 0.1))
    assert abs(kl_forth - kl_back) > 1e-3, "the two directions are told apart"
    assert losses.mutual_kl == pytest.approx((kl_forth + kl_back) / 2, abs=1e-5)
    forth_a, forth_b = loops.kl_gradients(a, b, forth, 0.1)
    back_b, back_a = loops.kl_gradients(b, a, back, 0.1)
    half = 3.0 / 2
    assert_gradients(
        peer,
        combined((half, forth_a), (half, back_a)),
        combined((half, forth_b), (half, back_b)),
    )
    assert peer.objective.publish.a_ND.grad is None


def test_weighted_teachers_pull_by_the_weighted_mean_of_their_kls():
    first, second = taught_by("simsiam", "simclr")
    rendezvous = Rendezvous(0, 0.0)
    rendezvous.add("first", first, 0.0)
    rendezvous.add("second", second, 0.0)
    rendezvous.add("simclr", first, 0.0)
    rendezvous.close(0.0, stop=False)
    signal = rendezvous.signal_for("simclr", 1, {"first": 1.0, "second": 4.0})
    peer = fixed_learner()
    losses = absorb(peer, propose(peer, StepImages(toy_images(NUM_IMAGES)), 0), signal)
    a, b = (
        loops.rows(one) for one in (peer.objective.learn_with.a_ND, peer.objective.learn_with.b_ND)
    )
    mine = loops.similarity_distribution(a, b, 0.1)
    kls = [loops.kl(loop_rows(one.p_NN), mine) for one in (first, second)]
    assert losses.mutual_kl == pytest.approx(0.2 * kls[0] + 0.8 * kls[1], abs=1e-5)
    grads = [loops.kl_gradients(a, b, loop_rows(one.p_NN), 0.1) for one in (first, second)]
    assert_gradients(
        peer,
        *(combined((3.0 * 0.2, grads[0][side]), (3.0 * 0.8, grads[1][side])) for side in (0, 1)),
    )


def test_a_matrix_is_read_where_it_has_arrived_and_its_place_changes_no_bit(monkeypatch):
    """It lies somewhere in a message, which nobody may write to."""
    peer, images, places = toy_peer("simclr"), StepImages(toy_images(8)), []
    proposal = propose(peer, images, 0)
    shown = show(peer, proposal)

    def noting(log_p_NN, mean_q_NN, negative_entropy):
        places.append(mean_q_NN.data_ptr())
        return mutual_kl(log_p_NN, mean_q_NN, negative_entropy)

    monkeypatch.setattr(step_module, "mutual_kl", noting)
    found = []
    for before in (0, 4, 20):
        message = bytes(before) + shown.p_NN.tobytes()
        arrived_NN = np.frombuffer(message, np.float32, offset=before).reshape(8, 8)
        kl = step_module.divergence(
            peer, proposal.output.learn_with, arrived_NN, shown.negative_entropy
        )
        assert places[-1] == arrived_NN.ctypes.data
        learning = [one for one in peer.objective.parameters() if one.requires_grad]
        gradients = torch.autograd.grad(kl, learning, retain_graph=True, allow_unused=True)
        found.append((kl.item(), [one for one in gradients if one is not None]))
    for kl, gradients in found[1:]:
        assert kl == found[0][0] and all(map(torch.equal, gradients, found[0][1]))


def test_each_peer_has_a_temperature_of_its_own():
    """A teacher publishes with its own, a learner compares with its own."""
    (shown,) = taught_by("simsiam", temperature=0.5)
    (colder,) = taught_by("simsiam", temperature=0.1)
    assert shown.negative_entropy < colder.negative_entropy - 0.1
    peer = fixed_learner(temperature=0.2)
    losses = absorb(peer, propose(peer, StepImages(toy_images(NUM_IMAGES)), 0), signal_of(shown))
    a, b = (
        loops.rows(one) for one in (peer.objective.learn_with.a_ND, peer.objective.learn_with.b_ND)
    )
    theirs = loop_rows(shown.p_NN)
    mine = loops.similarity_distribution(a, b, 0.2)
    assert losses.mutual_kl == pytest.approx(loops.kl(theirs, mine), abs=1e-5)
    grads = loops.kl_gradients(a, b, theirs, 0.2)
    assert_gradients(peer, *(combined((3.0, one)) for one in grads))


def test_a_weight_of_ones_own_scales_the_pull_of_this_peer_only():
    (shown,) = taught_by("simsiam")
    gradients = []
    for weight in (0.5, 2.0):
        peer = fixed_learner(weight)
        absorb(peer, propose(peer, StepImages(toy_images(NUM_IMAGES)), 0), signal_of(shown))
        gradients.append(peer.objective.learn_with.a_ND.grad)
    torch.testing.assert_close(gradients[1], 4.0 * gradients[0])


@pytest.mark.parametrize(
    ("warmup_steps", "step", "share"),
    [(0, 0, 1.0), (0, 5, 1.0), (4, 0, 0.0), (4, 1, 0.25), (4, 3, 0.75), (4, 4, 1.0), (4, 99, 1.0)],
)
def test_the_weight_rises_linearly_with_the_runs_step(warmup_steps, step, share):
    (shown,) = taught_by("simsiam")
    peer = dataclasses.replace(fixed_learner(3.0), distill_warmup_steps=warmup_steps)
    assert peer.distill_weight_at(step) == share * 3.0
    losses = absorb(peer, propose(peer, StepImages(toy_images(NUM_IMAGES)), step), signal_of(shown))
    full = fixed_learner(3.0)
    expected = absorb(
        full, propose(full, StepImages(toy_images(NUM_IMAGES)), step), signal_of(shown)
    )
    assert losses == expected, "losses are reported without the weight"
    torch.testing.assert_close(
        peer.objective.learn_with.a_ND.grad, share * full.objective.learn_with.a_ND.grad
    )


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (1, 1.5), (2, 3.0), (4, 3.0), (5, 12.0)])
def test_rare_exchanges_may_have_another_weight_than_dense_ones(step, weight):
    peer = dataclasses.replace(
        fixed_learner(3.0), rare_distill_weight=12.0, dense_steps=5, distill_warmup_steps=2
    )
    assert peer.distill_weight_at(step) == weight
    assert dataclasses.replace(peer, rare_distill_weight=None).distill_weight_at(9) == 3.0


# ---------------------------------------------------------------------------------------------------
# What crosses the border


class FakeExchange:
    """Answers with a prepared signal and remembers what was asked of it."""

    last_traffic = Traffic()

    def __init__(self, signal: TeacherSignal) -> None:
        self.signal = signal
        self.calls: list[tuple[object, ...]] = []

    def publish(self, ticket: Ticket, distribution: SimilarityDistribution) -> None:
        self.calls.append(("publish", ticket, distribution))

    def collect(self, ticket: Ticket) -> TeacherSignal:
        self.calls.append(("collect", ticket))
        return self.signal

    def close(self) -> None:
        self.calls.append(("close",))


def whole_step(peer, exchange: FakeExchange) -> StepLosses:
    """Does one step of a peer, as a session does it."""
    proposal = propose(peer, StepImages(toy_images()), TICKET.step)
    exchange.publish(TICKET, show(peer, proposal))
    return absorb(peer, proposal, exchange.collect(TICKET))


NOBODY = TeacherSignal(mean_NN=None, negative_entropy=0.0, teachers=(), next_step=1)


@pytest.mark.parametrize("kind", ["simclr", "simsiam"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_published_is_the_pre_update_distribution_in_float32(kind, dtype):
    peer = toy_peer(kind, dtype=dtype)
    twin = copy.deepcopy(peer.objective).train()
    exchange = FakeExchange(NOBODY)
    whole_step(peer, exchange)
    published = exchange.calls[0][2]

    output = twin(*peer.views(toy_images(), 0))
    expected = loops.similarity_distribution(
        loops.rows(output.publish.a_ND), loops.rows(output.publish.b_ND), 0.1
    )
    assert published.p_NN.dtype == np.float32
    assert published.p_NN.shape == (6, 6)
    assert published.p_NN.flags.c_contiguous
    assert (published.p_NN >= 0).all()
    np.testing.assert_allclose(published.p_NN.sum(axis=1, dtype=np.float64), 1.0, atol=1e-6)
    np.testing.assert_allclose(published.p_NN, expected, atol=1e-5)
    entropy = math.fsum(p * math.log(p) for row in expected for p in row) / len(expected)
    assert isinstance(published.negative_entropy, float)
    assert published.negative_entropy == pytest.approx(entropy, abs=1e-5)
    assert -math.log(6) <= published.negative_entropy <= 0


def test_the_mutual_kl_is_reported_without_its_weight():
    teacher = toy_peer("simsiam")
    signal = signal_of(show(teacher, propose(teacher, StepImages(toy_images()), 0)))
    losses = []
    for weight in (0.1, 10.0):
        peer = toy_peer("simclr", weight=weight)
        losses.append(absorb(peer, propose(peer, StepImages(toy_images()), 0), signal))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", ["simclr", "simsiam"])
@pytest.mark.parametrize("signal", [None, NOBODY])
def test_alone_it_is_the_plain_objective(kind, signal):
    peer = toy_peer(kind, optimizer=sgd)
    twin = copy.deepcopy(peer.objective).train()
    optimizer = sgd(twin)
    for step in range(3):
        images = toy_images(seed=step)
        output = twin(*peer.views(images, step))
        optimizer.zero_grad()
        output.ssl_loss.backward()
        optimizer.step()
        losses = absorb(peer, propose(peer, StepImages(images), step), signal)
        assert (losses.ssl_loss, losses.mutual_kl) == (output.ssl_loss.item(), 0.0)
    assert same_bits(state_of(peer), dict(twin.state_dict()))


def test_weight_zero_learns_like_alone_and_still_reports_the_kl():
    taught, alone = toy_peer("simclr", weight=0.0), toy_peer("simclr", weight=0.0)
    teacher = toy_peer("simsiam")
    signal = signal_of(show(teacher, propose(teacher, StepImages(toy_images()), 0)))
    losses = absorb(taught, propose(taught, StepImages(toy_images()), 0), signal)
    absorb(alone, propose(alone, StepImages(toy_images()), 0), None)
    assert losses.mutual_kl > 0
    assert same_bits(state_of(taught), state_of(alone))


def test_proposing_and_showing_change_no_parameter_and_leave_no_gradient():
    peer = toy_peer("simsiam")
    before = copy.deepcopy(list(peer.objective.parameters()))
    show(peer, propose(peer, StepImages(toy_images()), 0))
    for mine, old in zip(peer.objective.parameters(), before, strict=True):
        assert torch.equal(mine, old)
        assert mine.grad is None


class Steep(torch.autograd.Function):
    """Leaves a loss as it is, and makes its gradient infinite."""

    @staticmethod
    def forward(context, loss):
        return loss.clone()

    @staticmethod
    def backward(context, gradient):
        return gradient * float("inf")


@pytest.mark.parametrize("broken", ["images", "signal", "gradient"])
def test_a_loss_or_a_gradient_that_is_not_finite_changes_no_parameter(broken):
    peer = toy_peer("simclr")
    absorb(
        peer, propose(peer, StepImages(toy_images()), 0), None
    )  # so that the optimizer has a state
    parameters = copy.deepcopy(list(peer.objective.parameters()))
    optimizer = copy.deepcopy(peer.optimizer.state_dict()["state"])
    signal = NOBODY
    if broken == "images":
        peer = dataclasses.replace(
            peer, augmentation=lambda images: (images.float() * float("nan"),) * 2
        )
    elif broken == "signal":
        uniform_NN = np.full((6, 6), 1 / 6, dtype=np.float32)
        signal = dataclasses.replace(
            NOBODY, mean_NN=uniform_NN, negative_entropy=float("inf"), teachers=("other",)
        )
    proposal = propose(peer, StepImages(toy_images()), 7)
    what = "the loss of peer"
    if broken == "gradient":
        steep = dataclasses.replace(proposal.output, ssl_loss=Steep.apply(proposal.output.ssl_loss))
        proposal = dataclasses.replace(proposal, output=steep)
        what = r"the length of the gradient \(of a loss of [0-9.]+\) of peer"
    with pytest.raises(TrainingError, match=rf"{what} 'simclr' is (nan|inf) at step 7: its tr"):
        absorb(peer, proposal, signal)
    for mine, old in zip(peer.objective.parameters(), parameters, strict=True):
        assert torch.equal(mine, old)
    for key, entry in peer.optimizer.state_dict()["state"].items():
        assert all(torch.equal(entry[name], optimizer[key][name]) for name in entry)


def test_what_is_not_finite_does_not_leave_the_peer_and_is_called_what_it_is():
    """The coordinator would call it malformed, and nobody would know why."""
    peer = toy_peer("simclr")
    peer = dataclasses.replace(
        peer, augmentation=lambda images: (images.float() * float("nan"),) * 2
    )
    proposal = propose(peer, StepImages(toy_images()), 7)
    with pytest.raises(TrainingError) as caught:
        show(peer, proposal)
    assert "the similarity distribution of peer 'simclr' is nan at step 7" in str(caught.value)
    assert "peers.simclr.optimizer.options.lr" in str(caught.value)


@pytest.mark.parametrize(("where", "value"), [("weight", float("inf")), ("buffer", float("nan"))])
def test_a_state_that_is_not_finite_is_named(where, value):
    peer = toy_peer("simclr")
    peer.check_state(0)
    of = peer.objective.named_parameters if where == "weight" else peer.objective.named_buffers
    name, tensor = next(one for one in of() if one[1].is_floating_point())
    with torch.no_grad():
        tensor.view(-1)[0] = value
    with pytest.raises(TrainingError, match=f"a number of {name} of peer 'simclr' is nan at step"):
        peer.check_state(3)


def test_another_batch_size_is_refused_before_anything_changes():
    peer, teacher = toy_peer("simclr"), toy_peer("simsiam")
    signal = signal_of(show(teacher, propose(teacher, StepImages(toy_images(4)), 0)))
    proposal = propose(peer, StepImages(toy_images(6)), 0)
    before = state_of(peer)
    with pytest.raises(ValueError, match=r"\(6, 6\).*\(4, 4\)"):
        absorb(peer, proposal, signal)
    assert same_bits(state_of(peer), before)


def test_after_update_is_called_once_after_the_optimizer():
    peer = toy_peer("simclr")
    before = peer.objective.backbone.conv.weight.detach().clone()
    moved = []
    peer.objective.after_update = lambda: moved.append(
        not torch.equal(before, peer.objective.backbone.conv.weight)
    )
    absorb(peer, propose(peer, StepImages(toy_images()), 0), None)
    assert moved == [True]


# ---------------------------------------------------------------------------------------------------
# A step is a pure function of state, stream and images


def three_steps(peer, disturb=lambda: None):
    teacher = toy_peer("simsiam")
    losses = []
    for step in range(3):
        disturb()
        signal = signal_of(show(teacher, propose(teacher, StepImages(toy_images()), step)))
        disturb()
        proposal = propose(peer, StepImages(toy_images(seed=step)), step)
        disturb()
        losses.append(absorb(peer, proposal, signal))
    return losses, state_of(peer)


@pytest.mark.parametrize("kind", ["simclr", "simsiam"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_the_same_steps_give_the_same_bits_whatever_ran_before(kind, dropout):
    losses, state = three_steps(toy_peer(kind, dropout=dropout))

    def disturb():
        torch.randn(int(torch.randint(1, 50, ())))
        torch.nn.functional.dropout(torch.ones(7))
        other = toy_peer("simclr", name="other", dropout=0.5)
        propose(other, StepImages(toy_images(4)), 1)

    torch.manual_seed(999)
    again, state_again = three_steps(toy_peer(kind, dropout=dropout), disturb)
    assert again == losses
    assert same_bits(state, state_again)


def test_dropout_draws_from_the_steps_own_stream():
    peer = toy_peer("simclr", dropout=0.5)
    views = peer.views(toy_images(), 0)

    def embedding(step, name="simclr"):
        twin = dataclasses.replace(peer, id=name)
        return twin.encode(views, StepImages(toy_images()), step).publish.a_ND

    assert torch.equal(embedding(0), embedding(0))
    assert not torch.equal(embedding(0), embedding(1))
    assert not torch.equal(embedding(0), embedding(0, name="other"))


def test_views_differ_by_step_peer_and_seed_and_from_each_other():
    peer = toy_peer("simclr")
    images = toy_images()
    view_a, view_b = peer.views(images, 0)
    assert torch.equal(view_a, peer.views(images, 0)[0])
    others = [
        view_b,
        peer.views(images, 1)[0],
        dataclasses.replace(peer, id="other").views(images, 0)[0],
        dataclasses.replace(peer, run_seed=12).views(images, 0)[0],
    ]
    assert not any(torch.equal(view_a, other) for other in others)


def test_a_step_leaves_the_global_random_state_as_it_was():
    peer = toy_peer("simclr", dropout=0.3)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    whole_step(peer, FakeExchange(NOBODY))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_inside_another_stream_is_the_same_step():
    losses, state = three_steps(toy_peer("simclr", dropout=0.3))
    with seeding.stream(1, "outer"):
        again, state_again = three_steps(toy_peer("simclr", dropout=0.3))
    assert again == losses
    assert same_bits(state, state_again)


def test_a_step_trains_whatever_mode_the_objective_was_left_in():
    peer = toy_peer("simclr", dropout=0.3)
    peer.objective.eval()
    expected = three_steps(toy_peer("simclr", dropout=0.3))
    losses, state = three_steps(peer)
    assert losses == expected[0]
    assert same_bits(state, expected[1])
