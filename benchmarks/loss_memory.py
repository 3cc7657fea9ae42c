"""How much memory the losses of a batch take: contrast, similarity and mutual KL, forward and backward.

    python -m benchmarks.loss_memory [--batch-sizes 1024 4096] [--dims 128 2048] [--threads 1] [--device auto]

The embeddings are there, N x D for each view; the networks are not. A contrast with all N^2 pairs is computed
in blocks where it is large (dogo_fed/objectives/contrast.py). Each figure is of a process of its own: the
peak of its resident memory, or of what it has allocated on a GPU, above what it had before the losses.
"""

# N = images of the batch, D = embedding dimension

from __future__ import annotations

import argparse
import itertools
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import Result
from benchmarks.turns import clocked
from dogo_fed.engine.numerics import fix_numerics, resolve_device
from dogo_fed.objectives.mutual import mutual_kl
from dogo_fed.objectives.simclr import nt_xent
from dogo_fed.objectives.similarity import log_similarity_distribution

HOW = (
    "NT-Xent, the similarity distribution and the mutual KL with a teacher, forward and backward, once for "
    "each batch size and dimension, each in a process of its own. Peak: above what the process had before."
)
_STATUS = Path("/proc/self/status")
_KIB = 1024


def losses(a_ND: torch.Tensor, b_ND: torch.Tensor) -> None:
    """Computes the losses of a step that exchanges, and their gradient by the embeddings."""
    loss = nt_xent(a_ND, b_ND, 0.5)
    log_p_NN = log_similarity_distribution(a_ND, b_ND, 0.1)
    teacher_NN = log_p_NN.detach().exp()
    loss = loss + 0.4 * mutual_kl(log_p_NN, teacher_NN, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]


def peak_bytes(device: torch.device) -> int:
    """Returns the most memory that this process has had so far.

    On a CPU it is not that of getrusage, which begins with that of the process that has started this one.

    Raises:
        OSError: this is not Linux, which alone tells it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="utf-8").splitlines())
    return int(lines["VmHWM"].split()[0]) * _KIB


def measure_here(batch_size: int, dim: int, threads: int, device: torch.device) -> dict[str, Any]:
    """Returns the figures of one batch; only the first call in a process is right."""
    fix_numerics(threads)
    a_ND, b_ND = (torch.randn(batch_size, dim, device=device, requires_grad=True) for _ in range(2))
    losses(a_ND[:8], b_ND[:8])  # so that what is loaded at first use does not count
    before = peak_bytes(device)
    took = clocked(lambda: losses(a_ND, b_ND))
    peak = peak_bytes(device) - before
    return {
        "batch_size": batch_size,
        "dim": dim,
        "peak_gb": peak / 1e9,
        "cpu_s": took.cpu_s,
        "wall_s": took.wall_s,
    }


def measure(batch_size: int, dim: int, threads: int, device: torch.device) -> dict[str, Any]:
    """Returns the figures of one batch, measured in a new process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(measure_here, batch_size, dim, threads, device).result()


def main() -> None:
    """Measures every combination, prints a table and writes the figures."""
    assert __doc__ is not None, "this module has a docstring"
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=[1024, 4096])
    parser.add_argument("--dims", type=int, nargs="*", default=[128, 2048])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    asked = parser.parse_args()
    device = resolve_device(asked.device)
    with Result("loss_memory", HOW, parser, asked) as result:
        result.settings["device"] = device.type
        result.found["rows"] = []
        for batch_size, dim in itertools.product(asked.batch_sizes, asked.dims):
            with result.going_on(f"N {batch_size}, D {dim}"):
                row = measure(batch_size, dim, asked.threads, device)
                result.found["rows"].append(row)
                print(
                    f"N {batch_size:>5}, D {dim:>5}: {row['peak_gb']:.3f} GB, "
                    f"{row['cpu_s']:.3g} CPU seconds, {row['wall_s']:.3g} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
