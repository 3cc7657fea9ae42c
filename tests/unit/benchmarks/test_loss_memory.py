"""The memory of the losses: a figure of a process of its own, which grows with the batch."""

from __future__ import annotations

import sys

import pytest
import torch

from benchmarks import loss_memory, page

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux keeps it")
def test_the_peak_is_that_of_the_losses_alone() -> None:
    held = torch.ones(64_000_000)  # 256 MB in this process, which do not count
    number = 1024
    found = loss_memory.measure(number, 16, 1, CPU)
    assert (found["batch_size"], found["dim"]) == (number, 16) and held.numel()
    matrix_bytes = 4 * number**2
    assert matrix_bytes < 1e9 * found["peak_gb"] < 40 * matrix_bytes
    assert found["cpu_s"] > 0 and found["wall_s"] > 0
    assert f"| {number} | 16 |" in page.TITLES["loss_memory"][1]({"rows": [found]})


def test_the_losses_have_a_gradient_by_both_views() -> None:
    views = [torch.randn(8, 4, requires_grad=True) for _ in "ab"]
    loss_memory.losses(*views)
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in views)
