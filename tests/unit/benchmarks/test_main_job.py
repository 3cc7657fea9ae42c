"""The main job, measured: what its command is, and what is read of its folder and its processes."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import main_job, page
from configs.compose import compose_run
from dogo_fed.config import Host, Precision
from dogo_fed.reporting.summary import PeerSummary, RunSummary

RUN = """
import json, pathlib, sys
settings = dict(one.split("=") for one in sys.argv[1:])
folder = pathlib.Path(settings["run_dir"])
folder.mkdir()
if settings["precision"] == "fp16":
    sys.exit("no instructions for it")
(folder / "config.yaml").write_text("precision: bf16\\nseed: " + settings["seed"])
peers = {"wide": {"knn_top1": 0.75, "linear_top1": None, "host": settings["host"]}}
(folder / "summary.json").write_text(json.dumps({"wall_s": 95.0, "peers": peers}))
"""

BUSY = """
import subprocess, sys, time
below = int(sys.argv[2])
if below:
    more = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[1], str(below - 1)])
while time.process_time() < 0.5:
    pass
print("used", flush=True)
sys.stdin.read()
"""


def test_a_run_is_told_its_settings_and_its_folder_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_job, "TRAIN", (sys.executable, "-c", RUN))
    job = main_job.Job("ray", "auto")
    done = main_job.run_once(job, ["seed=3"])
    assert (done.takes, done.wall_s) == ("bf16", 95.0)
    assert done.accuracies == {"wide, kNN": 0.75, "wide, linear": None}
    row = main_job.row(job, [done, done])
    assert (row["host"], row["precision"], row["takes"]) == ("ray", "auto", "bf16")
    assert row["wide, kNN"]["median"] == 0.75 and row["wide, linear"] is None
    made = page.TITLES["main_job"][1]({"rows": [row]})
    assert "| wide, kNN |" in made and "| 0.75 (0.75 to 0.75) | not measured |" in made


def test_a_run_that_fails_says_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main_job, "TRAIN", (sys.executable, "-c", RUN))
    with pytest.raises(RuntimeError, match="ended with 1: no instructions for it"):
        main_job.run_once(main_job.Job("ray", "fp16"), [])


def test_what_it_asks_and_reads_is_there() -> None:
    config = compose_run(["host=processes", "precision=auto", "run_dir=somewhere"])
    assert (config.host, config.precision) == (Host.PROCESSES, Precision.AUTO)
    assert {"knn_top1", "linear_top1"} <= set(PeerSummary.__annotations__)
    assert {"wall_s", "peers"} <= set(RunSummary.__annotations__)
    assert compose_run([]).host.value == "ray", "the usual of --hosts"


def test_the_processor_of_processes_below_counts() -> None:
    command = [sys.executable, "-c", BUSY, BUSY, "1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        processor = main_job.ProcessorOf(process.pid)
        assert process.stdin is not None and process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
        processor._look()
        process.stdin.close()
    processor._look()  # they have ended, and count all the same
    assert processor.seconds > 0.9, "0.5 of each"


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main_job, "find_spec", lambda name: None if name == "ray" else name)
    monkeypatch.setattr("sys.argv", ["main_job"])
    with pytest.raises(SystemExit, match=r"on ray, which needs ray; .* --hosts processes"):
        main_job.main()
    assert main_job.missing(["processes"]) == []


def test_an_override_after_a_list_is_no_precision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["main_job", "--precisions", "fp32", "seed=3"])
    with pytest.raises(SystemExit):
        main_job.main()
    assert "invalid choice: 'seed=3'" in capsys.readouterr().err
