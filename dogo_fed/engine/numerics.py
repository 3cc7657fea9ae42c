"""How a process computes: its threads, its kernels, its device, its compiled networks."""

from __future__ import annotations

import os

import torch
from torch import nn

from dogo_fed.errors import ConfigError


def fix_numerics(threads: int) -> None:
    """Makes this process's arithmetic repeatable: thread count and deterministic kernels.

    float32 means float32 on a GPU too: TF32, which rounds factors to 10 bits, is off. Affects
    the whole process, so hosts call it once, before the first tensor.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch asks for it on CUDA
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    # Else each new tensor is filled with NaN, which only shows who reads what was never written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def resolve_device(name: str) -> torch.device:
    """Returns the device called "auto", "cpu" or "cuda".

    Raises:
        ConfigError: "cuda" was asked for, and this process sees no GPU.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError('device="cuda" was asked for, but this process sees no GPU')
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def compile_backbone(backbone: nn.Module, *, uses_cuda_graphs: bool) -> None:
    """Lets the module's passes be compiled, each for its first shapes; its weights stay as they are."""
    backbone.compile(mode="reduce-overhead" if uses_cuda_graphs else None)
