"""NT-Xent and SimCLR: against loops, and what is learned with and published."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dogo_fed.objectives.simclr import SimCLR, nt_xent
from tests.support import loop_formulas as loops
from tests.support.toy_peers import FEATURES, ToyBackbone, toy_objective

CHEAP = settings(max_examples=20, derandomize=True)


def views(num_images: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a_ND, b_ND = torch.randn(2, num_images, dim, dtype=torch.float64, generator=generator)
    return a_ND.requires_grad_(), b_ND.requires_grad_()


@CHEAP
@given(st.integers(2, 6), st.integers(1, 6), st.floats(0.05, 2.0), st.integers(0, 10_000))
def test_value_and_gradients_are_the_loop_written_ones(num_images, dim, temperature, seed):
    a_ND, b_ND = views(num_images, dim, seed)
    loss = nt_xent(a_ND, b_ND, temperature)
    loss.backward()
    a, b = loops.rows(a_ND), loops.rows(b_ND)
    assert loss.item() == pytest.approx(loops.nt_xent(a, b, temperature), abs=1e-10)
    for tensor, grad in zip((a_ND, b_ND), loops.nt_xent_gradients(a, b, temperature), strict=True):
        torch.testing.assert_close(
            tensor.grad, torch.tensor(grad, dtype=torch.float64), rtol=1e-9, atol=1e-10
        )


def test_gradients_are_the_slopes_of_the_loop_written_value():
    a_ND, b_ND = views(4, 3, seed=5)
    nt_xent(a_ND, b_ND, 0.5).backward()
    a, b = loops.rows(a_ND), loops.rows(b_ND)
    for i in range(4):
        for d in range(3):
            by_a = loops.slope(lambda x: loops.nt_xent(x, b, 0.5), a, i, d)
            by_b = loops.slope(lambda x: loops.nt_xent(a, x, 0.5), b, i, d)
            assert a_ND.grad[i, d].item() == pytest.approx(by_a, abs=1e-8)
            assert b_ND.grad[i, d].item() == pytest.approx(by_b, abs=1e-8)


def test_two_perfect_pairs_by_hand():
    """Positives at cosine 1, both negatives at 0: -log(e^(1/t) / (e^(1/t) + 2))."""
    z_ND = torch.eye(2)
    positive = math.exp(2.0)
    assert nt_xent(z_ND, z_ND, 0.5).item() == pytest.approx(-math.log(positive / (positive + 2)))


@CHEAP
@given(st.permutations(range(5)), st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_order_scale_and_swapped_views_change_nothing(order, scale, seed):
    a_ND, b_ND = (view.detach() for view in views(5, 4, seed))
    expected = nt_xent(a_ND, b_ND, 0.5).item()
    assert nt_xent(a_ND[order], b_ND[order], 0.5).item() == pytest.approx(expected, abs=1e-12)
    assert nt_xent(b_ND, a_ND, 0.5).item() == pytest.approx(expected, abs=1e-12)
    assert nt_xent(a_ND * scale, b_ND / scale, 0.5).item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_finite_in_half_precision_at_the_extremes(dtype, temperature):
    line = torch.tensor([3.0, -1.0, 2.0], dtype=dtype)
    a_ND = torch.stack([line, -line]).requires_grad_()
    loss = nt_xent(a_ND, torch.stack([-line, line]), temperature)
    loss.backward()
    assert loss.item() == pytest.approx(2 / temperature, rel=1e-2)
    assert torch.isfinite(a_ND.grad).all()


@pytest.mark.parametrize("shapes", [((1, 3), (1, 3)), ((2, 3), (3, 3)), ((2,), (2,))])
def test_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match="N >= 2"):
        nt_xent(torch.ones(shapes[0]), torch.ones(shapes[1]), 0.5)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        nt_xent(torch.eye(2), torch.eye(2), temperature)


def test_learns_with_and_publishes_the_projections():
    objective = toy_objective("simclr").double().eval()
    x_a, x_b = torch.randn(
        2, 4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    output = objective(x_a, x_b)
    z_a, z_b = (objective.projector(objective.backbone(x)) for x in (x_a, x_b))
    for pair in (output.learn_with, output.publish):
        assert torch.equal(pair.a_ND, z_a)
        assert torch.equal(pair.b_ND, z_b)
    expected = loops.nt_xent(loops.rows(z_a), loops.rows(z_b), 0.5)
    assert output.ssl_loss.item() == pytest.approx(expected, abs=1e-10)


def test_the_temperature_option_is_used():
    a, b = torch.randn(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    backbone = ToyBackbone().eval()
    losses = set()
    for temperature in (0.1, 0.5):
        torch.manual_seed(0)
        objective = SimCLR(backbone, FEATURES, temperature=temperature).eval()
        losses.add(round(objective(a, b).ssl_loss.item(), 4))
    assert len(losses) == 2


def test_the_projector_has_the_published_shape():
    projector = SimCLR(ToyBackbone(), FEATURES).projector
    shapes = [tuple(parameter.shape) for parameter in projector.parameters()]
    assert shapes == [(512, FEATURES), (512,), (512,), (128, 512), (128,)]
