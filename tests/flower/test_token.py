"""Ray takes no orders from others in a simulation either, whoever has started Flower."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ray_intruder
from tests.support.command_line import SMALL_RUN, start
from tests.support.flower_simulation import LocalFlower, copy_app
from tests.support.leftover_processes import Started, started_here
from tests.support.run_watch import wait_for_step

RUN = (
    *(one for one in SMALL_RUN if not one.startswith("steps=")), "steps=900",
    "peers=simclr_simsiam", "device=cpu",
)  # fmt: skip
WITHIN_S = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.flower,
    pytest.mark.timeout(900),
    pytest.mark.skipif(sys.platform != "linux", reason="orphans are taken in on Linux only"),
]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("RAY_A")]:
        monkeypatch.delenv(name)
    return copy_app(tmp_path / "app")


@pytest.fixture
def started() -> Iterator[Started]:
    with started_here() as family:
        yield family


def takes_no_orders(mark: Path) -> bool:
    """Whether a Ray is below this process that refuses a job without a token."""
    ports = ray_intruder.ports_of_a_whole_ray(os.getpid())
    answers = ray_intruder.submit_jobs(ports, mark, None)
    statuses = set().union(*(answers[name] for name in answers if name.startswith("ray::")))
    assert 401 in statuses and statuses <= {401, 405}, answers
    assert (401 in answers.get(ray_intruder.AGENT, ())) is ray_intruder.takes_jobs(ports), answers
    return not mark.exists()


def test_of_the_wrapper(app: Path, started: Started, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    process = start("flower", *RUN, f"run_dir={run_dir}", cwd=app)
    wait_for_step(run_dir, 1, process, within_s=WITHIN_S)
    assert takes_no_orders(tmp_path / "mark")
    output, _ = process.communicate(timeout=WITHIN_S)
    assert process.returncode == 0, output
    assert "asks for no token" not in output


def test_of_flowers_own_command(app: Path, started: Started, tmp_path: Path) -> None:
    local, run_dir = LocalFlower(tmp_path / "home", cwd=app), tmp_path / "run"
    run_id = local.submit(".", run_dir, *RUN)
    local.wait_for_step(run_id, run_dir, 1)
    assert takes_no_orders(tmp_path / "mark")
    local.finish(run_id, WITHIN_S)
    assert "asks for no token" not in local.log(run_id)
