"""The baselines' formulas against loops, and what must hold of them."""

from __future__ import annotations

import math

import pytest
import torch

from dogo_fed.baselines.base import cosines_to_others
from dogo_fed.baselines.fedx import FedXObjective, relation_loss
from dogo_fed.baselines.flesd import distillation, ensemble
from dogo_fed.objectives.similarity import cosine_similarity


@pytest.fixture
def embeddings():
    draw = torch.Generator().manual_seed(3)
    return [torch.randn(5, 4, generator=draw) for _ in range(3)]


def cosine(one, other):
    return float(one @ other / one.norm() / other.norm())


def softmax(row):
    total = sum(map(math.exp, row))
    return [math.exp(one) / total for one in row]


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


# ---- FedX ----


def relation(a, b, others):
    total, size = 0.0, len(a)
    for i in range(size):
        rows = []
        for view in (a, b):
            rows.append(softmax([cosine(view[i], others[j]) / 0.1 for j in range(size) if j != i]))
        mean = [(x + y) / 2 for x, y in zip(*rows, strict=True)]
        total += (kl(mean, rows[0]) + kl(mean, rows[1])) / 2
    return total / size


def contrast(a, b, temperature):
    """NT-Xent: each view of each image against its other view among all views but itself."""
    views = [*a, *b]
    size, total = len(a), 0.0
    for i, view in enumerate(views):
        others = [j for j in range(2 * size) if j != i]
        row = softmax([cosine(view, views[j]) / temperature for j in others])
        total -= math.log(row[others.index((i + size) % (2 * size))])
    return total / (2 * size)


def test_fedx_relations_are_those_of_the_loops(embeddings):
    a, b, others = embeddings
    found = relation_loss(a, b, others, 0.1).item()
    assert found == pytest.approx(relation(a, b, others), rel=1e-4)


def test_fedx_views_that_are_equal_relate_alike(embeddings):
    a, _, others = embeddings
    assert relation_loss(a, a.clone(), others, 0.1).item() == pytest.approx(0.0, abs=1e-6)


def tiny_fedx():
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 6), torch.nn.ReLU())
    return FedXObjective(backbone, 6, temperature=0.3, hidden_dim=8, output_dim=4)


def test_fedx_has_four_terms_and_the_common_network_does_not_learn():
    objective = tiny_fedx().train()
    views = [torch.randn(6, 3, 2, 2) for _ in "ab"]
    output = objective(*views)
    output.ssl_loss.backward()
    assert all(one.grad is None for one in objective.common.parameters())
    assert all(one.grad is not None for one in objective.predictor.parameters())
    seen = objective.embed(*views)
    a, b, h_a, h_b, z_a, z_b = (
        seen[f"{kind}_{view}"].detach()
        for kind in ("projector", "predictor", "common")
        for view in "ab"
    )
    expected = contrast(a, b, 0.3) + contrast(h_a, z_b, 0.3)
    expected += relation(a, b, a) + relation(h_a, h_b, z_a)
    assert objective.loss(seen).item() == pytest.approx(expected, rel=1e-4)


def test_fedx_keeps_the_network_that_a_round_began_with():
    objective = tiny_fedx()
    with torch.no_grad():
        for one in objective.parameters():
            one.add_(1.0)
    view = torch.randn(6, 3, 2, 2)

    def differs():
        mine = objective.projector(objective.backbone(view))
        return not torch.allclose(objective.common(view), mine)

    objective.eval()
    objective.projector[-1].weight.data.mul_(2.0)
    assert differs()
    objective.begin_round()
    assert not differs()


# ---- FLESD ----


def test_flesd_ensemble_is_that_of_the_loops(embeddings):
    keys = [0, 2, 3]
    sims = [cosine_similarity(one, one[keys]) for one in embeddings]
    found = ensemble(sims, 0.1)
    for i in range(5):
        row = [
            sum(math.exp(cosine(one[i], one[key]) / 0.1) for one in embeddings) / 3 for key in keys
        ]
        expected = [one / sum(row) for one in row]
        assert found[i].tolist() == pytest.approx(expected, rel=1e-4)


def test_flesd_distillation_is_that_of_the_loops(embeddings):
    queries, keys = (torch.nn.functional.normalize(one) for one in embeddings[:2])
    targets = embeddings[2] @ embeddings[1].T
    targets = targets.softmax(dim=1)
    expected = 0.0
    for i in range(5):
        mine = softmax([cosine(queries[i], keys[j]) / 0.2 for j in range(5)])
        expected -= sum(float(targets[i, j]) * math.log(mine[j]) for j in range(5)) / 5
    found = distillation(queries, keys, targets, 0.2)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_flesd_ensemble_of_a_sharp_temperature_is_finite(embeddings):
    found = ensemble([-cosine_similarity(one, one) for one in embeddings], 1e-4)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(5))


# ---- FCCL ----


def test_fccl_leaves_out_the_image_itself(embeddings):
    features = embeddings[0]
    found = cosines_to_others(features, features, 0.5)
    assert found.shape == (5, 4)
    for i in range(5):
        expected = [cosine(features[i], features[j]) / 0.5 for j in range(5) if j != i]
        assert found[i].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_fccl_averages_before_the_softmax_which_is_the_geometric_mean_after_it(embeddings):
    logits = torch.stack([cosines_to_others(one, one, 0.1) for one in embeddings])
    geometric = logits.log_softmax(dim=2).mean(dim=0).softmax(dim=1)
    torch.testing.assert_close(logits.mean(dim=0).softmax(dim=1), geometric)
