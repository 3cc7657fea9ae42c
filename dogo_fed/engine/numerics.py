"""How a process computes: its threads, its kernels, its device, its compiled networks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from dogo_fed.errors import ConfigError
from dogo_fed.text import one_line


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


def check_compiler(device: torch.device) -> None:
    """Compiles next to nothing for a device, to see whether there is what that needs.

    Raises:
        ConfigError: there is not, for example no C++ compiler.
    """
    least = nn.ReLU()
    compile_backbone(least, uses_cuda_graphs=False)
    with failed_compiling_told():
        least(torch.zeros(2, device=device))


@contextmanager
def failed_compiling_told() -> Iterator[None]:
    """Says in the block, of a network that can't be compiled, which setting asks for that.

    A network is compiled at its first pass, so this may come up at any.

    Raises:
        ConfigError: the cause is torch's own error.
    """
    try:
        yield
    except RuntimeError as error:
        known = sys.modules.get("torch._dynamo.exc")  # not there if nothing was compiled
        if known is None or not isinstance(error, known.TorchDynamoException):
            raise
        reason = one_line(str(error).partition("\n\n")[0], 500)
        raise ConfigError(
            f"compile=true can't be done on this machine: {reason}. On a CPU it needs a C++ compiler "
            "(such as the package g++), on a GPU a C compiler; or leave compile=true out"
        ) from error
