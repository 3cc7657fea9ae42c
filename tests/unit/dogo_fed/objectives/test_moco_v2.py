"""MoCo v2's queue: first in, first out, of unit length, moved by updates only, restored bit for bit."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dogo_fed.data.roles import StepImages
from dogo_fed.engine.step import absorb, propose
from dogo_fed.evaluation import state_digest
from dogo_fed.objectives.moco_v2 import MoCoV2
from tests.support import loop_formulas as loops
from tests.support.toy_peers import FEATURES, ToyBackbone, toy_images, toy_objective, toy_peer


def moco(queue_size: int = 10, **options) -> MoCoV2:
    torch.manual_seed(0)
    return MoCoV2(
        ToyBackbone(), FEATURES, hidden_dim=8, output_dim=5, queue_size=queue_size, **options
    ).double()


def views(num_images: int, seed: int) -> torch.Tensor:
    shape = (2, num_images, 3, 8, 8)
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def step(objective: MoCoV2, view_a: torch.Tensor, view_b: torch.Tensor) -> None:
    objective(view_a, view_b)
    objective.after_update()


def test_it_starts_with_random_directions():
    queue_KD = moco(500).queue_KD
    torch.testing.assert_close(queue_KD.norm(dim=1), torch.ones(500, dtype=torch.float64))
    assert queue_KD.mean(dim=0).abs().max() < 0.1
    assert torch.equal(moco(500).queue_KD, queue_KD)


@pytest.mark.parametrize(
    ("queue_size", "num_images"), [(10, 4), (8, 4), (7, 3), (5, 5), (3, 4), (1, 2)]
)
def test_it_holds_the_latest_keys_and_forgets_the_oldest(queue_size, num_images):
    objective = moco(queue_size)
    expected = list(objective.queue_KD)
    for number in range(5):
        view_a, view_b = views(num_images, number)
        twin = moco(queue_size)
        twin.load_state_dict(objective.state_dict())
        expected = (expected + list(F.normalize(twin.target(view_b), dim=1)))[-queue_size:]
        step(objective, view_a, view_b)
        oldest = int(objective.queue_position)
        in_order = torch.cat([objective.queue_KD[oldest:], objective.queue_KD[:oldest]])
        torch.testing.assert_close(in_order, torch.stack(expected), rtol=1e-12, atol=1e-14)


def test_the_loss_is_the_papers_with_the_queue_of_before_the_step():
    objective = moco(temperature=0.3)
    for number in range(2):
        step(objective, *views(3, number))
    view_a, view_b = views(3, 9)
    objective.eval()
    query, key = objective.projector(objective.backbone(view_a)), objective.target(view_b)
    arguments = [loops.rows(one) for one in (query, key, objective.queue_KD)]
    expected = loops.queue_contrast(*arguments, 0.3)
    # the first queue is of unit length in float32
    assert objective(view_a, view_b).ssl_loss.item() == pytest.approx(expected, rel=1e-6)


def test_only_an_update_moves_the_queue():
    objective = moco()
    before = objective.queue_KD.clone()
    objective(*views(4, 0))
    objective(*views(4, 1))  # a proposal that came to nothing, and its repetition
    assert torch.equal(objective.queue_KD, before)
    objective.after_update()
    assert objective.queue_position == 4
    objective.after_update()
    assert objective.queue_position == 4, "no step, no keys"
    objective.eval()
    objective(*views(4, 2))
    objective.after_update()
    assert objective.queue_position == 4, "an evaluation is no step"


def test_the_digest_covers_queue_and_position():
    objective = toy_objective("moco_v2")
    digests = {state_digest(objective)}
    objective.queue_KD[3, 2] += 1e-3
    digests.add(state_digest(objective))
    objective.queue_position += 1
    digests.add(state_digest(objective))
    assert len(digests) == 3


def test_a_step_of_a_peer_puts_its_images_into_the_queue():
    peer = toy_peer("moco_v2")
    old = peer.objective.queue_KD.clone()
    absorb(peer, propose(peer, StepImages(toy_images(6)), 0), None)
    is_old = [
        torch.equal(mine, other) for mine, other in zip(peer.objective.queue_KD, old, strict=True)
    ]
    assert is_old == [False] * 6 + [True] * 34
