"""The similarity distribution: against loops, and against what it promises."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dogo_fed.objectives.similarity import (
    cosine_similarity,
    log_similarity_distribution,
    negative_entropy,
)
from tests.support import loop_formulas as loops

CHEAP = settings(max_examples=25, derandomize=True)
shapes = st.tuples(st.integers(1, 7), st.integers(1, 9))
temperatures = st.floats(0.02, 2.0)
seeds = st.integers(0, 10_000)


def two_views(num_images: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a_ND, b_ND = torch.randn(2, num_images, dim, dtype=torch.float64, generator=generator)
    return a_ND, b_ND


@CHEAP
@given(shapes, temperatures, seeds)
def test_the_distribution_is_the_loop_written_one(shape, temperature, seed):
    a_ND, b_ND = two_views(*shape, seed)
    log_p_NN = log_similarity_distribution(a_ND, b_ND, temperature)
    expected = loops.similarity_distribution(loops.rows(a_ND), loops.rows(b_ND), temperature)
    torch.testing.assert_close(
        log_p_NN, torch.tensor(expected, dtype=torch.float64).log(), rtol=1e-10, atol=1e-10
    )


@CHEAP
@given(shapes, temperatures, seeds)
def test_rows_sum_to_one(shape, temperature, seed):
    a_ND, b_ND = two_views(*shape, seed)
    row_sums_N = log_similarity_distribution(a_ND, b_ND, temperature).exp().sum(dim=1)
    torch.testing.assert_close(row_sums_N, torch.ones_like(row_sums_N), rtol=0, atol=1e-12)


def test_rows_are_images_of_the_first_view_and_columns_of_the_second():
    a_ND = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    b_ND = torch.tensor([[1.0, 1.0], [5.0, 0.0], [0.0, 3.0]])
    p_NN = log_similarity_distribution(a_ND, b_ND, 0.1).exp()
    assert p_NN.argmax(dim=1).tolist() == [1, 2, 0]
    swapped_NN = log_similarity_distribution(b_ND, a_ND, 0.1).exp()
    assert swapped_NN.argmax(dim=1).tolist() == [2, 0, 1]


def test_the_diagonal_is_kept():
    a_ND = torch.eye(4)
    p_NN = log_similarity_distribution(a_ND, a_ND, 0.1).exp()
    expected = math.exp(10) / (math.exp(10) + 3)
    torch.testing.assert_close(p_NN.diagonal(), torch.full((4,), expected))


@CHEAP
@given(st.permutations(range(6)), seeds)
def test_permuting_images_permutes_rows_and_columns(order, seed):
    a_ND, b_ND = two_views(6, 4, seed)
    log_p_NN = log_similarity_distribution(a_ND, b_ND, 0.1)
    permuted_NN = log_similarity_distribution(a_ND[order], b_ND[order], 0.1)
    torch.testing.assert_close(permuted_NN, log_p_NN[order][:, order], rtol=1e-12, atol=1e-12)


@CHEAP
@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), seeds)
def test_scaling_embeddings_changes_nothing(scale_a, scale_b, seed):
    a_ND, b_ND = two_views(5, 4, seed)
    torch.testing.assert_close(
        log_similarity_distribution(a_ND * scale_a, b_ND * scale_b, 0.1),
        log_similarity_distribution(a_ND, b_ND, 0.1),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("temperature", [0.1, 0.01])
def test_finite_at_the_extremes_in_half_precision(dtype, temperature):
    line = torch.tensor([1.0, 2.0, -3.0], dtype=dtype)
    a_ND = torch.stack([line, -line, line, -line]).requires_grad_()
    b_ND = torch.stack([line, line, -line, -line])  # cosines are +1 and -1 only
    log_p_NN = log_similarity_distribution(a_ND, b_ND, temperature)
    assert log_p_NN.dtype == torch.float32
    assert torch.isfinite(log_p_NN).all()
    torch.testing.assert_close(
        log_p_NN[0].detach(),
        -math.log(2) - torch.tensor([0.0, 0.0, 2.0, 2.0]) / temperature,
        rtol=1e-4,
        atol=1e-4,
    )
    torch.testing.assert_close(log_p_NN.exp().sum(dim=1), torch.ones(4), rtol=0, atol=1e-5)
    assert math.isfinite(negative_entropy(log_p_NN.exp(), log_p_NN).item())
    log_p_NN[0, 3].backward()
    assert torch.isfinite(a_ND.grad).all()


def test_half_precision_inputs_are_widened_before_the_product():
    a_ND, b_ND = two_views(5, 300)
    half_a, half_b = a_ND.half(), b_ND.half()
    exact_NN = cosine_similarity(half_a.double(), half_b.double())
    torch.testing.assert_close(
        cosine_similarity(half_a, half_b).double(), exact_NN, rtol=0, atol=1e-6
    )


def test_autocast_does_not_narrow_the_product():
    a_ND, b_ND = (view.float() for view in two_views(5, 300))
    plain_NN = log_similarity_distribution(a_ND, b_ND, 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a_ND @ b_ND.T).dtype == torch.bfloat16, "autocast is on"
        inside_NN = log_similarity_distribution(a_ND, b_ND, 0.01)
    assert torch.equal(plain_NN, inside_NN)


def test_float64_stays_float64():
    assert log_similarity_distribution(*two_views(3, 2), 0.1).dtype == torch.float64


def test_negative_entropy_is_the_loop_written_one():
    log_p_NN = log_similarity_distribution(*two_views(6, 4), 0.3)
    p = loops.rows(log_p_NN.exp())
    expected = math.fsum(x * math.log(x) for row in p for x in row) / len(p)
    assert negative_entropy(log_p_NN.exp(), log_p_NN).item() == pytest.approx(expected, abs=1e-12)
    assert -math.log(6) < expected < 0


def test_negative_entropy_has_its_extremes_where_it_should():
    uniform_NN = torch.full((8, 8), math.log(1 / 8))
    assert negative_entropy(uniform_NN.exp(), uniform_NN).item() == pytest.approx(-math.log(8))
    certain_NN = torch.eye(8).log().clamp(min=-300.0)
    assert negative_entropy(certain_NN.exp(), certain_NN).item() == 0.0


def test_gradients_are_those_derived_by_hand():
    a_ND, b_ND = (view.requires_grad_() for view in two_views(5, 4, seed=3))
    chosen_NN = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    temperature = 0.2
    (chosen_NN * log_similarity_distribution(a_ND, b_ND, temperature)).sum().backward()
    a, b, chosen = loops.rows(a_ND), loops.rows(b_ND), loops.rows(chosen_NN)
    p = loops.similarity_distribution(a, b, temperature)
    by_cosine = [
        [(chosen[i][j] - p[i][j] * math.fsum(chosen[i])) / temperature for j in range(5)]
        for i in range(5)
    ]
    for tensor, grad in zip((a_ND, b_ND), loops.cosine_chain(a, b, by_cosine), strict=True):
        torch.testing.assert_close(
            tensor.grad, torch.tensor(grad, dtype=torch.float64), rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [((3, 2), (4, 2)), ((3, 2), (3, 5)), ((3,), (3,)), ((1, 2, 3), (1, 2, 3))],
)
def test_other_shapes_are_refused(a_shape, b_shape):
    with pytest.raises(ValueError, match="N x D"):
        log_similarity_distribution(torch.ones(a_shape), torch.ones(b_shape), 0.1)


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan")])
def test_impossible_temperatures_are_refused(temperature):
    with pytest.raises(ValueError, match="temperature"):
        log_similarity_distribution(torch.ones(2, 2), torch.ones(2, 2), temperature)
