"""The losses of BYOL, Barlow Twins, VICReg and MoCo: against loops over Python floats, and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dogo_fed.objectives import barlow_twins as barlow
from dogo_fed.objectives.barlow_twins import barlow_twins_loss, cross_correlation
from dogo_fed.objectives.byol import byol_regression
from dogo_fed.objectives.moco_v2 import queue_contrast
from dogo_fed.objectives.moco_v3 import batch_contrast
from dogo_fed.objectives.vicreg import vicreg_loss
from tests.support import loop_formulas as loops

CHEAP = settings(max_examples=15, derandomize=True)

QUEUE_KD = torch.nn.functional.normalize(
    torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=1
)
VICREG_WEIGHTS = {"invariance_weight": 25.0, "variance_weight": 20.0, "covariance_weight": 3.0}


def vicreg_by_loops(a, b):
    invariance, variance, covariance = loops.vicreg_terms(a, b)
    return 25.0 * invariance / len(a[0]) + 20.0 * variance + 3.0 * covariance


LOSSES = {
    "barlow_twins": (
        lambda a, b: barlow_twins_loss(a, b, 0.02),
        lambda a, b: loops.barlow_twins(a, b, 0.02, barlow.EPSILON),
    ),
    "byol": (byol_regression, loops.distance_of_units),
    "moco_v2": (
        lambda a, b: queue_contrast(a, b, QUEUE_KD, 0.2),
        lambda a, b: loops.queue_contrast(a, b, loops.rows(QUEUE_KD), 0.2),
    ),
    "moco_v3": (
        lambda a, b: batch_contrast(a, b, 0.2),
        lambda a, b: loops.batch_contrast(a, b, 0.2),
    ),
    "vicreg": (lambda a, b: vicreg_loss(a, b, **VICREG_WEIGHTS), vicreg_by_loops),
}
"""By objective: the library's loss of two views, and the one written as loops from the paper."""

STOPPED = ("byol", "moco_v2", "moco_v3")
"""Losses whose second argument is a target."""


def views(num_images: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a_ND, b_ND = torch.randn(2, num_images, dim, dtype=torch.float64, generator=generator)
    return a_ND.requires_grad_(), b_ND.requires_grad_()


@pytest.mark.parametrize("name", LOSSES)
@CHEAP
@given(num_images=st.integers(2, 6), scale=st.floats(0.1, 3.0), seed=st.integers(0, 10_000))
def test_the_value_is_the_loop_written_one(name, num_images, scale, seed):
    loss, by_loops = LOSSES[name]
    a_ND, b_ND = (view.detach() * scale for view in views(num_images, 3, seed))
    expected = by_loops(loops.rows(a_ND), loops.rows(b_ND))
    assert loss(a_ND, b_ND).item() == pytest.approx(expected, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_the_slopes_of_the_loop_written_value(name):
    loss, by_loops = LOSSES[name]
    a_ND, b_ND = views(5, 3, seed=5)
    loss(a_ND, b_ND).backward()
    a, b = loops.rows(a_ND), loops.rows(b_ND)
    if name in STOPPED:
        assert b_ND.grad is None
    for i in range(5):
        for d in range(3):
            by_a = loops.slope(lambda x: by_loops(x, b), a, i, d)
            assert a_ND.grad[i, d].item() == pytest.approx(by_a, abs=1e-6)
            if name not in STOPPED:
                by_b = loops.slope(lambda x: by_loops(a, x), b, i, d)
                assert b_ND.grad[i, d].item() == pytest.approx(by_b, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(name, dtype):
    """Sums of squares pass 65504 here, the largest number of float16."""
    a_ND, b_ND = (30 * view.detach() for view in views(40, 3, seed=2))
    a_ND, b_ND = a_ND.to(dtype).requires_grad_(), b_ND.to(dtype)
    loss = LOSSES[name][0](a_ND, b_ND)
    loss.backward()
    wide = LOSSES[name][0](a_ND.detach().double(), b_ND.double())
    assert loss.dtype == (torch.float64 if name == "moco_v2" else torch.float32)
    assert loss.item() == pytest.approx(wide.item(), rel=1e-4)
    assert torch.isfinite(a_ND.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing(name):
    a_ND, b_ND = (view.detach().float() for view in views(6, 3, seed=3))
    expected = LOSSES[name][0](a_ND, b_ND)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert LOSSES[name][0](a_ND, b_ND).item() == expected.item()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    "shapes", [((3, 3), (2, 3)), ((3, 3), (3, 4)), ((3,), (3,)), ((0, 3),) * 2]
)
def test_other_shapes_are_refused(name, shapes):
    with pytest.raises(ValueError, match=r"N x D .* of one shape"):
        LOSSES[name][0](torch.ones(shapes[0]), torch.ones(shapes[1]))


@pytest.mark.parametrize("name", ["barlow_twins", "vicreg", "moco_v3"])
def test_one_image_is_not_a_batch(name):
    with pytest.raises(ValueError, match="N >= 2"):
        LOSSES[name][0](torch.ones(1, 3), torch.ones(1, 3))


@pytest.mark.parametrize("name", LOSSES)
def test_a_collapsed_view_has_a_finite_loss_and_gradient(name):
    a_ND = torch.ones(4, 3).requires_grad_()
    loss = LOSSES[name][0](a_ND, torch.ones(4, 3))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(a_ND.grad).all()


# ---------------------------------------------------------------------------------------------------
# By hand


def test_byol_is_0_for_parallel_2_for_orthogonal_and_4_for_opposite_embeddings():
    p_ND = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    assert byol_regression(p_ND, 7 * p_ND).item() == pytest.approx(0, abs=1e-6)
    assert byol_regression(p_ND, p_ND.flip(1)).item() == pytest.approx(2)
    assert byol_regression(p_ND, -p_ND).item() == pytest.approx(4)


def test_the_correlations_of_equal_decorrelated_views_are_the_identity():
    """The columns of a Hadamard matrix but the first: mean 0, orthogonal."""
    z_ND = torch.tensor([[1.0, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
    torch.testing.assert_close(
        cross_correlation(5 * z_ND + 2, z_ND), torch.eye(3), rtol=1e-4, atol=1e-6
    )
    assert barlow_twins_loss(z_ND, z_ND, 1.0).item() == pytest.approx(0, abs=1e-8)
    assert barlow_twins_loss(z_ND, -z_ND, 1.0).item() == pytest.approx(12, rel=1e-4)
    swapped = z_ND[:, [1, 0, 2]]
    assert barlow_twins_loss(z_ND, swapped, 0.5).item() == pytest.approx(2 + 0.5 * 2, rel=1e-4)


def test_the_published_equation_of_barlow_twins_has_no_epsilon():
    """What ours adds is not seen in numbers of the usual size."""
    a_ND, b_ND = views(6, 4, seed=8)
    exact = loops.barlow_twins(loops.rows(a_ND), loops.rows(b_ND), 0.005, 0.0)
    assert barlow_twins_loss(a_ND, b_ND, 0.005).item() == pytest.approx(exact, rel=1e-4)


def test_the_three_terms_of_vicreg_by_hand():
    def terms(a_ND, b_ND):
        names = ("invariance_weight", "variance_weight", "covariance_weight")
        return [
            vicreg_loss(a_ND, b_ND, **{one: float(one == name) for one in names}).item()
            for name in names
        ]

    z_ND = torch.tensor([[1.0, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]])
    assert terms(z_ND, z_ND) == [0, 0, 0]  # deviations of sqrt(4/3), above 1
    assert terms(z_ND, z_ND + 3)[0] == pytest.approx(9)
    constant_ND = torch.zeros(4, 3)
    assert terms(constant_ND, constant_ND) == [0, pytest.approx(2 * (1 - 0.01)), 0]
    twice_ND = z_ND[:, [0, 0, 1]]  # two outputs are one: two covariances of 4/3, D = 3
    assert terms(twice_ND, z_ND)[2] == pytest.approx(2 * (4 / 3) ** 2 / 3)


def test_contrasts_of_perfect_keys_by_hand():
    """The positive at cosine 1, all negatives at 0."""
    unit_ND = torch.eye(3)
    positive = math.exp(1 / 0.2)
    expected = -math.log(positive / (positive + 2))
    queue_KD = torch.tensor([[0.0, 0.0, 1.0]]).expand(2, 3)
    assert queue_contrast(unit_ND[:2], 4 * unit_ND[:2], queue_KD, 0.2).item() == pytest.approx(
        expected, rel=1e-5
    )
    assert batch_contrast(unit_ND, 4 * unit_ND, 0.2).item() == pytest.approx(
        0.4 * expected, rel=1e-5
    )


def test_no_gradient_flows_to_the_queue():
    queue_KD = QUEUE_KD.clone().requires_grad_()
    a_ND, b_ND = views(4, 3, seed=4)
    queue_contrast(a_ND, b_ND, queue_KD, 0.2).backward()
    assert a_ND.grad.abs().max() > 0
    assert queue_KD.grad is None
    assert b_ND.grad is None


@pytest.mark.parametrize("shape", [(7, 4), (7,)])
def test_a_queue_of_another_width_is_refused(shape):
    with pytest.raises(ValueError, match="K x 3"):
        queue_contrast(torch.ones(4, 3), torch.ones(4, 3), torch.ones(shape), 0.2)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        queue_contrast(torch.ones(4, 3), torch.ones(4, 3), QUEUE_KD, temperature)
    with pytest.raises(ValueError, match="temperature"):
        batch_contrast(torch.ones(4, 3), torch.ones(4, 3), temperature)


@pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf")])
def test_impossible_weights_are_refused(weight):
    with pytest.raises(ValueError, match="off_diagonal_weight must be 0 or more"):
        barlow_twins_loss(torch.ones(4, 3), torch.ones(4, 3), weight)
    for name in VICREG_WEIGHTS:
        with pytest.raises(ValueError, match=f"{name} must be 0 or more"):
            vicreg_loss(torch.ones(4, 3), torch.ones(4, 3), **{**VICREG_WEIGHTS, name: weight})
