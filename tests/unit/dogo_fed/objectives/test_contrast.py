"""A contrast in blocks of rows: the loss and the gradient of the whole, in a fraction of its memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

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


_PEAK = """
import torch
from dogo_fed.objectives.mutual import mutual_kl
from dogo_fed.objectives.similarity import log_similarity_distribution
from dogo_fed.objectives.simclr import nt_xent
torch.set_num_threads(1)
a_ND, b_ND = (torch.randn({n}, {d}, requires_grad=True) for _ in "ab")
nt_xent(a_ND[:8], b_ND[:8], 0.5).backward()
def peak_kib():  # not ru_maxrss, which begins with that of the process that has started this one
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["VmHWM"].split()[0])
before = peak_kib()
loss = nt_xent(a_ND, b_ND, 0.5)
log_p_NN = log_similarity_distribution(a_ND, b_ND, 0.1)
teacher_NN = log_p_NN.detach().exp()
loss = loss + 0.4 * mutual_kl(log_p_NN, teacher_NN, 0.0)
loss.backward()
print((peak_kib() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux keeps it")
def test_a_large_batch_of_wide_embeddings_needs_little_memory():
    """The losses of 4,096 images with 2,048 numbers each, forward and backward: 1.5 GB at most."""
    script = _PEAK.format(n=4096, d=2048)
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True
    )
    assert 100 < int(told.stdout) <= 1500, "MiB"
