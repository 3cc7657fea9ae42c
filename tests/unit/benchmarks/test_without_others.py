"""The benchmarks without ray, flwr, hydra, lightly and kornia."""

from __future__ import annotations

import subprocess
import sys

import kornia.enhance
import kornia.filters
import pytest
import torch
from kornia.augmentation import RandomGrayscale

from benchmarks import kornia_stand_in
from tests.support.command_line import REPOSITORY

MISSING = ("ray", "flwr", "hydra", "omegaconf", "lightly", "kornia")

PROGRAM = """
import importlib, pkgutil, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
import benchmarks
for one in pkgutil.iter_modules(benchmarks.__path__):
    importlib.import_module(f"benchmarks.{one.name}")

import torch
from benchmarks import data_path, epoch, kornia_stand_in, machine, settings
torch.set_num_threads(1)
pair = settings.peers_named("tiny")
cpu = torch.device("cpu")
found = epoch.measure(pair, epoch.made_up(32), cpu, steps=1, rounds=1, batch_size=8)
found = found.rounds()
for rounds in found.values():
    assert 0.0 <= rounds[0].exchange_share < 1.0, rounds
data_path.measure(data_path.in_memory(4, 32, cpu), 2, 1, cpu)
assert kornia_stand_in.is_in_use()
print(sorted(found), machine.machine()["kornia"])
"""


@pytest.mark.slow
def test_all_are_imported_and_an_epoch_is_measured() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *MISSING],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    left_out = [line.partition(" is left out")[0] for line in said[:-1]]
    assert left_out == ["dogo on demand", "kornia", "lightly"], "the images are in memory"
    names = ["alone, fp32", "pair apart, fp32", "pair, fp32"]
    assert said[-1] == f"{names} plain torch in its place"


def images() -> torch.Tensor:
    """Four images, of which one is grey."""
    drawn = torch.rand(4, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    drawn[0] = 0.5
    return drawn


@pytest.mark.parametrize(
    "name",
    [
        "adjust_brightness_accumulative",
        "adjust_contrast_with_mean_subtraction",
        "adjust_saturation_with_gray_subtraction",
    ],
)
def test_an_adjustment_is_kornias(name: str) -> None:
    factors = torch.tensor([0.2, 0.8, 1.3, 1.9])
    ours = getattr(kornia_stand_in, name)(images(), factors)
    torch.testing.assert_close(
        ours, getattr(kornia.enhance, name)(images(), factors), atol=1e-4, rtol=0
    )


def test_grey_and_blur_are_kornias() -> None:
    torch.testing.assert_close(
        kornia_stand_in.RandomGrayscale(p=1.0)(images()), RandomGrayscale(p=1.0)(images())
    )
    ours = kornia_stand_in.RandomGaussianBlur((5, 5), (1.2, 1.2), p=1.0)(images())
    theirs = kornia.filters.gaussian_blur2d(images(), (5, 5), (1.2, 1.2))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_kornia_itself_is_used_where_it_is() -> None:
    assert not kornia_stand_in.is_in_use()
