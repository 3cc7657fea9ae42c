"""`ray start`, `ray job submit` and `dogo-fed train ray.address=...`, as docs/ray.md has them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY, dogo_fed
from tests.support.ray_clusters import IDLE, Running, head, seats
from tests.support.run_watch import digests

LARGEST_UPLOAD = 20 * 2**20

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Running]:
    with head(num_cpus=2, num_gpus=2) as running:
        yield running


def submit(
    cluster: Running, *entrypoint: str, folder: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    assert cluster.dashboard is not None
    ray = str(Path(sys.executable).with_name("ray"))
    return subprocess.run(
        [
            *(ray, "job", "submit", "--address", cluster.dashboard, "--working-dir", "."),
            *("--", *entrypoint),
        ],
        cwd=folder,
        env=cluster.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=170,
        check=False,
    )


def test_a_job_trains_each_peer_on_a_gpu_of_its_own(
    cluster: Running,
    run_settings: tuple[str, ...],
    reference: dict[str, str],
    tmp_path: Path,
) -> None:
    run_dir = tmp_path / "run"
    settings = [one for one in run_settings if not one.startswith("device=")]  # auto: cpu here
    job = submit(cluster, "dogo-fed", "train", "ray.address=auto", *settings, f"run_dir={run_dir}")
    assert job.returncode == 0, job.stdout
    assert "succeeded" in job.stdout
    assert sorted(seat.gpu for _, seat in seats(run_dir)) == ["0", "1"]
    assert json.loads((run_dir / "summary.json").read_text())["host"] == "ray"
    assert digests(run_dir) == reference
    assert cluster.busy() == IDLE


def test_a_job_that_fails_says_so(cluster: Running, tmp_path: Path) -> None:
    job = submit(
        cluster,
        *("dogo-fed", "train", "ray.address=auto", "data=synthetic", "steps=3"),
        *("ray.gpus_per_peer=2", f"run_dir={tmp_path / 'run'}"),
    )
    assert job.returncode != 0
    assert "2 peers need 2 GPU each" in job.stdout
    assert cluster.busy() == IDLE


def test_the_upload_is_the_source_and_nothing_else(cluster: Running) -> None:
    job = submit(cluster, "python", "-c", "import os; print('here:', sorted(os.listdir()))")
    assert job.returncode == 0, job.stdout
    match = re.search(r"^here: (.*)$", job.stdout, re.MULTILINE)
    assert match, job.stdout
    assert {"server", "clients", "dogo_fed", "configs", "pyproject.toml"} <= set(
        re.findall(r"'([^']+)'", match.group(1))
    )
    uploaded = list(cluster.temp_dir.glob("session_2*/runtime_resources/working_dir_files/*/"))
    assert uploaded
    for one in uploaded:
        names = {path.name for path in one.iterdir()}
        assert not names & {".venv", ".git", "runs", ".mypy_cache"}
        size = sum(path.stat().st_size for path in one.rglob("*") if path.is_file())
        assert size < LARGEST_UPLOAD


def test_data_and_runs_stay_at_home_where_no_git_ignores_them(
    cluster: Running, tmp_path: Path
) -> None:
    shutil.copy(REPOSITORY / ".rayignore", tmp_path)
    left = ("data", ".venv-proto", ".mypy_cache", "runs", "multirun")
    for name in (*left, "package/data"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("large")
    program = "import pathlib; print('here:', sorted(map(str, pathlib.Path().rglob('file'))))"
    job = submit(cluster, "python", "-c", program, folder=tmp_path)
    assert job.returncode == 0, job.stdout
    assert "here: ['package/data/file']" in job.stdout


def test_two_runs_one_after_the_other_join_the_cluster(
    cluster: Running, run_settings: tuple[str, ...], reference: dict[str, str], tmp_path: Path
) -> None:
    for name in ("first", "second"):
        run_dir = tmp_path / name
        dogo_fed("train", *run_settings, f"ray.address={cluster.address}", f"run_dir={run_dir}")
        assert sorted(seat.gpu for _, seat in seats(run_dir)) == ["0", "1"]
        assert digests(run_dir) == reference
        assert cluster.busy() == IDLE
