"""How a process computes, and how tensors come to where it does."""

from __future__ import annotations

import pytest
import torch

from dogo_fed.data.to_device import to_device
from dogo_fed.engine.numerics import fix_numerics


@pytest.fixture
def as_before():
    """Puts back what a test sets for the whole process."""
    is_deterministic = torch.are_deterministic_algorithms_enabled()
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    fills = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(is_deterministic)
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    torch.utils.deterministic.fill_uninitialized_memory = fills


def test_float32_is_float32_on_a_gpu_too(as_before):
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("high")
    fix_numerics(torch.get_num_threads())
    assert torch.backends.cudnn.allow_tf32 is False
    assert torch.get_float32_matmul_precision() == "highest"


def test_new_tensors_are_not_filled_with_what_nobody_reads(as_before):
    torch.utils.deterministic.fill_uninitialized_memory = True
    fix_numerics(torch.get_num_threads())
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory is False


class Noted:
    """In place of a tensor: notes how it is moved, for machines without a GPU."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.told: list[object] = []

    def pin_memory(self) -> Noted:
        self.told.append("pinned")
        return self

    def to(self, device: torch.device, *, non_blocking: bool = False) -> Noted:
        self.told.append((device.type, non_blocking))
        return self


@pytest.mark.parametrize(
    ("start", "end", "told"),
    [
        ("cpu", "cuda", ["pinned", ("cuda", True)]),
        ("cuda", "cuda", [("cuda", False)]),
        ("cuda", "cpu", [("cpu", False)]),
        ("cpu", "cpu", [("cpu", False)]),
    ],
)
def test_nobody_waits_for_what_goes_to_a_gpu(start, end, told):
    """A number that comes from one is waited for: it would be read before it is there."""
    tensor = Noted(start)
    to_device(tensor, torch.device(end))
    assert tensor.told == told
