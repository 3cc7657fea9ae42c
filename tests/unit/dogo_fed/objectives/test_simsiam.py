"""SimSiam: against loops, its stopped gradient, and what is learned with and published."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dogo_fed.objectives.simsiam import SimSiam, negative_cosine
from tests.support import loop_formulas as loops
from tests.support.toy_peers import FEATURES, ToyBackbone, toy_objective

CHEAP = settings(max_examples=20, derandomize=True)


def pair(num_images: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    p_ND, z_ND = torch.randn(2, num_images, dim, dtype=torch.float64, generator=generator)
    return p_ND.requires_grad_(), z_ND.requires_grad_()


def two_views(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    view_a, view_b = torch.randn(
        2, 5, 3, 8, 8, dtype=dtype, generator=torch.Generator().manual_seed(0)
    )
    return view_a, view_b


@CHEAP
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10_000))
def test_value_and_gradient_are_the_loop_written_ones(num_images, dim, seed):
    p_ND, z_ND = pair(num_images, dim, seed)
    loss = negative_cosine(p_ND, z_ND)
    loss.backward()
    p, z = loops.rows(p_ND), loops.rows(z_ND)
    assert loss.item() == pytest.approx(loops.negative_cosine(p, z), abs=1e-10)
    expected = torch.tensor(loops.negative_cosine_gradient(p, z), dtype=torch.float64)
    torch.testing.assert_close(p_ND.grad, expected, rtol=1e-9, atol=1e-10)
    assert z_ND.grad is None


def test_gradient_is_the_slope_of_the_loop_written_value():
    p_ND, z_ND = pair(4, 3, seed=5)
    negative_cosine(p_ND, z_ND).backward()
    p, z = loops.rows(p_ND), loops.rows(z_ND)
    for i in range(4):
        for d in range(3):
            expected = loops.slope(lambda x: loops.negative_cosine(x, z), p, i, d)
            assert p_ND.grad[i, d].item() == pytest.approx(expected, abs=1e-6)


@CHEAP
@given(st.floats(1e-4, 1e4), st.floats(1e-4, 1e4), st.integers(0, 1000))
def test_scaling_changes_nothing(scale_p, scale_z, seed):
    p_ND, z_ND = (tensor.detach() for tensor in pair(4, 3, seed))
    expected = negative_cosine(p_ND, z_ND).item()
    assert negative_cosine(p_ND * scale_p, z_ND * scale_z).item() == pytest.approx(
        expected, abs=1e-6
    )


def test_parallel_is_minus_one_and_opposite_plus_one():
    p_ND = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    assert negative_cosine(p_ND, 5 * p_ND).item() == pytest.approx(-1)
    assert negative_cosine(p_ND, -p_ND).item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype):
    p_ND = torch.full((3, 500), 30.0, dtype=dtype).requires_grad_()  # the squares pass 65504
    loss = negative_cosine(p_ND, p_ND)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(-1)
    assert torch.isfinite(p_ND.grad).all()


@pytest.mark.parametrize("shapes", [((2, 3), (3, 3)), ((2, 3), (2, 4)), ((2,), (2,))])
def test_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match="N x D"):
        negative_cosine(torch.ones(shapes[0]), torch.ones(shapes[1]))


@pytest.mark.parametrize("publish", ["projector", "predictor"])
def test_learns_with_the_predictor_and_publishes_what_it_was_told(publish):
    objective = toy_objective("simsiam", publish=publish).double().eval()
    view_a, view_b = two_views()
    output = objective(view_a, view_b)
    z = [objective.projector(objective.backbone(view)) for view in (view_a, view_b)]
    p = [objective.predictor(one) for one in z]
    assert torch.equal(output.learn_with.a_ND, p[0])
    assert torch.equal(output.learn_with.b_ND, p[1])
    published = p if publish == "predictor" else z
    assert torch.equal(output.publish.a_ND, published[0])
    assert torch.equal(output.publish.b_ND, published[1])


def test_the_loss_is_symmetric_over_crossed_views():
    objective = toy_objective("simsiam").double().eval()
    view_a, view_b = two_views()
    output = objective(view_a, view_b)
    z_a, z_b = (objective.projector(objective.backbone(view)) for view in (view_a, view_b))
    p_a, p_b = objective.predictor(z_a), objective.predictor(z_b)
    crossed = (
        loops.negative_cosine(loops.rows(p_a), loops.rows(z_b))
        + loops.negative_cosine(loops.rows(p_b), loops.rows(z_a))
    ) / 2
    straight = (
        loops.negative_cosine(loops.rows(p_a), loops.rows(z_a))
        + loops.negative_cosine(loops.rows(p_b), loops.rows(z_b))
    ) / 2
    assert output.ssl_loss.item() == pytest.approx(crossed, abs=1e-6)
    assert abs(crossed - straight) > 1e-4
    assert objective(view_b, view_a).ssl_loss.item() == pytest.approx(crossed, abs=1e-6)


def test_no_gradient_flows_through_the_targets():
    """A predictor that ignores its input leaves nothing for projector and backbone to learn from."""
    objective = toy_objective("simsiam").train()
    nn.init.zeros_(objective.predictor[-1].weight)
    objective(*two_views(torch.float32)).ssl_loss.backward()
    assert objective.predictor[-1].bias.grad.abs().max() > 0
    for module in (objective.projector, objective.backbone):
        assert all(parameter.grad.abs().max() == 0 for parameter in module.parameters())


def test_the_heads_have_the_published_shapes():
    objective = SimSiam(ToyBackbone(), FEATURES)
    linears = [module for module in objective.projector if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [
        (FEATURES, 2048),
        (2048, 2048),
        (2048, 2048),
    ]
    assert [type(module).__name__ for module in objective.projector] == [
        *["Linear", "BatchNorm1d", "ReLU"] * 2,
        "Linear",
        "BatchNorm1d",
    ]
    hidden, *_, output = objective.predictor
    assert (hidden.in_features, hidden.out_features) == (2048, 512)
    assert (output.in_features, output.out_features) == (512, 2048)
    assert output.bias is not None


@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_projector_has_as_many_layers_as_asked_for(num_layers):
    projector = SimSiam(ToyBackbone(), FEATURES, num_layers=num_layers).projector
    assert sum(isinstance(module, nn.Linear) for module in projector) == num_layers
    assert isinstance(projector[-1], nn.BatchNorm1d)


def test_another_head_to_publish_is_refused():
    with pytest.raises(ValueError, match='publish must be "projector" or "predictor"'):
        SimSiam(ToyBackbone(), FEATURES, publish="backbone")
