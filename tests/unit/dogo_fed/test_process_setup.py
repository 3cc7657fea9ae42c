"""Freed memory stays in the process."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")

FAULTS = """
import resource, sys
import torch
from dogo_fed.process_setup import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    print("unknown")
    sys.exit()
torch.set_num_threads(1)
for _ in range(30):
    torch.ones(16 << 20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> str:
    command = [sys.executable, "-c", FAULTS, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_a_block_that_is_freed_is_used_again_without_a_page_fault() -> None:
    kept = faults("keep")
    if kept == "unknown":
        pytest.skip("this system's malloc has no such setting")
    assert int(kept) < 100
    assert int(faults("default")) > 1000
