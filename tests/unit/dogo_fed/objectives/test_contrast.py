"""A contrast in blocks of rows: the loss and the gradient of the whole, in a fraction of its memory."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import loss_memory
from dogo_fed.objectives import contrast
from dogo_fed.objectives.moco_v2 import queue_contrast
from dogo_fed.objectives.moco_v3 import batch_contrast
from dogo_fed.objectives.simclr import nt_xent

N, D, K = 48, 8, 200


def nt_xent_of(a_ND, b_ND):
    return nt_xent(a_ND, b_ND, 0.5)


def queue_contrast_of(a_ND, b_ND):
    queue_KD = torch.randn(K, D, generator=torch.Generator().manual_seed(3))
    return queue_contrast(a_ND, b_ND, torch.nn.functional.normalize(queue_KD, dim=1), 0.2)


def batch_contrast_of(a_ND, b_ND):
    return batch_contrast(a_ND, b_ND, 0.2)


def loss_and_gradient(loss_of):
    generator = torch.Generator().manual_seed(7)
    a_ND, b_ND = (torch.randn(N, D, generator=generator, requires_grad=True) for _ in "ab")
    loss = loss_of(a_ND, b_ND)
    loss.backward()
    return loss.detach(), a_ND.grad


@pytest.mark.parametrize("loss_of", [nt_xent_of, queue_contrast_of, batch_contrast_of])
@pytest.mark.parametrize("block", [1, 700, 5000])
def test_blocks_have_the_loss_and_the_gradient_of_the_whole(loss_of, block, monkeypatch):
    whole, gradient = loss_and_gradient(loss_of)
    monkeypatch.setattr(contrast, "MOST_AT_ONCE", 0)
    monkeypatch.setattr(contrast, "BLOCK", block)
    sizes = []
    original = contrast.F.cross_entropy
    monkeypatch.setattr(
        contrast.F,
        "cross_entropy",
        lambda logits, *rest, **how: sizes.append(logits.numel()) or original(logits, *rest, **how),
    )
    loss, in_blocks = loss_and_gradient(loss_of)
    torch.testing.assert_close(loss, whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(in_blocks, gradient, rtol=1e-5, atol=1e-7)
    assert len(sizes) >= 2, "computed block by block, and again in the backward pass"
    assert max(sizes) <= max(block, N * 2, K + 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux keeps it")
def test_a_large_batch_of_wide_embeddings_needs_little_memory():
    """The losses of 4,096 images with 2,048 numbers each, forward and backward: 1.5 GB at most."""
    found = loss_memory.measure(4096, 2048, 1, torch.device("cpu"))
    assert 100e6 < 1e9 * found["peak_gb"] <= 1.5e9
