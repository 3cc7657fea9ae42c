"""The mutual KL: against loops, for any number of peers, and in the published convention."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from dogo_fed.objectives.mutual import Reduction, distillation_loss, mutual_kl
from dogo_fed.objectives.similarity import log_similarity_distribution, negative_entropy
from tests.support import loop_formulas as loops

CHEAP = settings(max_examples=25, derandomize=True)
seeds = st.integers(0, 10_000)


def embeddings(num_images: int, dim: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a_ND, b_ND = torch.randn(2, num_images, dim, dtype=torch.float64, generator=generator)
    return a_ND, b_ND


def log_distribution(num_images: int, seed: int, temperature: float = 0.3) -> torch.Tensor:
    return log_similarity_distribution(*embeddings(num_images, 4, seed), temperature)


def taught_by(log_q_NN: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Returns the arguments that a single other peer's distribution becomes."""
    q_NN = log_q_NN.exp()
    return q_NN, negative_entropy(q_NN, log_q_NN).item()


@CHEAP
@given(st.integers(1, 7), st.floats(0.05, 2.0), seeds)
def test_value_and_gradients_are_the_loop_written_ones(num_images, temperature, seed):
    a_ND, b_ND = (view.requires_grad_() for view in embeddings(num_images, 5, seed))
    log_q_NN = log_distribution(num_images, seed + 1)
    log_p_NN = log_similarity_distribution(a_ND, b_ND, temperature)
    value = mutual_kl(log_p_NN, *taught_by(log_q_NN))
    value.backward()

    a, b, q = loops.rows(a_ND), loops.rows(b_ND), loops.rows(log_q_NN.exp())
    expected = loops.kl(q, loops.similarity_distribution(a, b, temperature))
    assert value.item() == pytest.approx(expected, abs=1e-10)
    for tensor, grad in zip((a_ND, b_ND), loops.kl_gradients(a, b, q, temperature), strict=True):
        torch.testing.assert_close(
            tensor.grad, torch.tensor(grad, dtype=torch.float64), rtol=1e-9, atol=1e-10
        )


def test_gradients_are_the_slopes_of_the_loop_written_value():
    a_ND, b_ND = (view.requires_grad_() for view in embeddings(4, 3, seed=5))
    log_q_NN, temperature = log_distribution(4, seed=6), 0.4
    mutual_kl(log_similarity_distribution(a_ND, b_ND, temperature), *taught_by(log_q_NN)).backward()
    a, b, q = loops.rows(a_ND), loops.rows(b_ND), loops.rows(log_q_NN.exp())
    for i in range(4):
        for d in range(3):
            by_a = loops.slope(
                lambda x: loops.kl(q, loops.similarity_distribution(x, b, temperature)), a, i, d
            )
            by_b = loops.slope(
                lambda x: loops.kl(q, loops.similarity_distribution(a, x, temperature)), b, i, d
            )
            assert a_ND.grad[i, d].item() == pytest.approx(by_a, abs=1e-8)
            assert b_ND.grad[i, d].item() == pytest.approx(by_b, abs=1e-8)


@CHEAP
@given(st.integers(2, 8), seeds, seeds)
def test_never_negative(num_images, seed, other_seed):
    log_p_NN = log_distribution(num_images, seed)
    value = mutual_kl(log_p_NN, *taught_by(log_distribution(num_images, other_seed))).item()
    assert value >= -1e-12
    assert (value > 1e-6) == (seed != other_seed)


def test_zero_on_itself_with_zero_gradient():
    a_ND, b_ND = (view.requires_grad_() for view in embeddings(6, 4, seed=0))
    log_p_NN = log_similarity_distribution(a_ND, b_ND, 0.1)
    value = mutual_kl(log_p_NN, *taught_by(log_p_NN.detach()))
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-12)
    assert a_ND.grad.abs().max() < 1e-12
    assert b_ND.grad.abs().max() < 1e-12


def test_the_direction_is_theirs_to_mine():
    log_p_NN, log_q_NN = log_distribution(5, seed=1), log_distribution(5, seed=2)
    p, q = loops.rows(log_p_NN.exp()), loops.rows(log_q_NN.exp())
    value = mutual_kl(log_p_NN, *taught_by(log_q_NN)).item()
    assert value == pytest.approx(loops.kl(q, p), abs=1e-12)
    assert value != pytest.approx(loops.kl(p, q), abs=1e-3)


def test_no_gradient_reaches_the_others():
    others_a_ND = embeddings(5, 4, seed=2)[0].requires_grad_()
    q_NN = log_similarity_distribution(others_a_ND, embeddings(5, 4, seed=2)[1], 0.1).exp()
    mine_ND = embeddings(5, 4, seed=1)[0].requires_grad_()
    log_p_NN = log_similarity_distribution(mine_ND, embeddings(5, 4, seed=1)[1], 0.1)
    q_NN.retain_grad()
    mutual_kl(log_p_NN, q_NN, -1.0).backward()
    assert mine_ND.grad.abs().max() > 0
    assert others_a_ND.grad is None
    assert q_NN.grad is None


@pytest.mark.parametrize("num_others", [1, 2, 3, 7])
def test_mean_distribution_and_mean_entropy_give_the_mean_of_pairwise_kls(num_others):
    others = [log_distribution(6, seed=10 + k) for k in range(num_others)]

    def gradient_and_value(loss_of):
        a_ND, b_ND = (view.requires_grad_() for view in embeddings(6, 4, seed=0))
        loss = loss_of(log_similarity_distribution(a_ND, b_ND, 0.1))
        loss.backward()
        return loss.item(), a_ND.grad, b_ND.grad

    def pairwise(log_p_NN):
        kls = [(q.exp() * (q - log_p_NN)).sum(dim=1).mean() for q in others]
        return sum(kls) / num_others

    mean_q_NN = torch.stack([q.exp() for q in others]).mean(dim=0)
    mean_entropy = sum(negative_entropy(q.exp(), q).item() for q in others) / num_others
    value, *gradients = gradient_and_value(lambda p: mutual_kl(p, mean_q_NN, mean_entropy))
    expected, *expected_gradients = gradient_and_value(pairwise)
    assert value == pytest.approx(expected, abs=1e-10, rel=0)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=1e-10)
        assert gradient.abs().max() > 1e-3


def test_the_entropy_of_the_mean_would_not_do():
    """What the extra scalar is for: the mean distribution's own entropy gives another number."""
    others = [log_distribution(6, seed=10 + k) for k in range(3)]
    mean_q_NN = torch.stack([q.exp() for q in others]).mean(dim=0)
    mean_of_entropies = sum(negative_entropy(q.exp(), q).item() for q in others) / 3
    entropy_of_mean = negative_entropy(mean_q_NN, mean_q_NN.log()).item()
    assert mean_of_entropies - entropy_of_mean > 0.1


def test_the_published_convention_is_torchs_default_mean():
    """F.kl_div's default divides by all N * N elements; weight 100 is 100 / N in batchmean units."""
    num_images = 256
    log_p_NN, log_q_NN = log_distribution(num_images, seed=1), log_distribution(num_images, seed=2)
    with pytest.warns(UserWarning, match="reduction: 'mean' divides"):
        published = 100 * F.kl_div(log_p_NN, log_q_NN.exp())  # as the published code calls it
    value = mutual_kl(log_p_NN, *taught_by(log_q_NN))
    by_elements = distillation_loss(value, 100, Reduction.MEAN_OVER_ELEMENTS, num_images)
    by_rows = distillation_loss(value, 100 / 256, Reduction.BATCHMEAN, num_images)
    assert by_elements.item() == pytest.approx(published.item(), rel=1e-10)
    assert by_rows.item() == pytest.approx(published.item(), rel=1e-10)
    expected = F.kl_div(log_p_NN, log_q_NN.exp(), reduction="batchmean") * 0.390625
    assert by_rows.item() == pytest.approx(expected.item(), rel=1e-10)


@pytest.mark.parametrize(("reduction", "factor"), [("batchmean", 1), ("mean_over_elements", 1 / 5)])
def test_weight_is_a_factor_of_value_and_gradient(reduction, factor):
    value = torch.tensor(3.0, requires_grad=True)
    loss = distillation_loss(value, 7.0, Reduction(reduction), 5)
    loss.backward()
    assert loss.item() == pytest.approx(21.0 * factor)
    assert value.grad.item() == pytest.approx(7.0 * factor)


@pytest.mark.parametrize("temperature", [0.1, 0.01])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_finite_where_the_peers_contradict_each_other(dtype, temperature):
    line = torch.tensor([1.0, -2.0, 2.0], dtype=dtype)
    a_ND = torch.stack([line, -line]).requires_grad_()
    b_ND = torch.stack([line, -line])
    log_p_NN = log_similarity_distribution(a_ND, b_ND, temperature)
    log_q_NN = log_p_NN.detach().flip(dims=(1,))
    value = mutual_kl(log_p_NN, *taught_by(log_q_NN))
    value.backward()
    assert value.item() == pytest.approx(2 / temperature, rel=1e-3)
    assert torch.isfinite(a_ND.grad).all()


def test_a_uniform_teacher_costs_log_n_minus_entropy():
    log_p_NN = torch.full((4, 4), math.log(1 / 4), dtype=torch.float64)
    assert mutual_kl(log_p_NN, torch.eye(4, dtype=torch.float64), 0.0).item() == pytest.approx(
        math.log(4)
    )


def test_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(4, 4\)"):
        mutual_kl(torch.zeros(3, 3), torch.zeros(4, 4), 0.0)
