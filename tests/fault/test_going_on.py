"""A run that is stopped where its peers are not in step goes on to the weights of one that was not."""

from __future__ import annotations

import json
import re
import shlex
import signal
from pathlib import Path

import pytest

from dogo_fed.errors import ConfigError
from dogo_fed.storage.run_lock import run_lock
from tests.support.command_line import SMALL_RUN, dogo_fed, start
from tests.support.run_watch import digests, events, records, wait_for_step

TOTAL_STEPS = 60
RUN = (
    *(part for part in SMALL_RUN if not part.startswith("steps")),
    f"steps={TOTAL_STEPS}",
    f"steps_per_round={TOTAL_STEPS}",
    "peers=simclr_simsiam",
    "eval.linear=false",
)

pytestmark = [pytest.mark.kill, pytest.mark.grpc, pytest.mark.slow]


@pytest.mark.parametrize(
    ("teaching", "number"),
    [("exchange.every_steps=1000", signal.SIGHUP), ("exchange.enabled=false", signal.SIGINT)],
)
def test_a_stop_saves_every_peer_where_it_is_and_the_last_line_says_how_to_go_on(
    teaching: str, number: signal.Signals, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    process = start("train", *RUN, teaching, "host=processes", f"run_dir={run_dir}")
    try:
        wait_for_step(run_dir, 5, process)
        with pytest.raises(ConfigError, match=rf"a run goes on in .* process {process.pid} on"):
            run_lock(run_dir).__enter__()
        process.send_signal(number)
        output, _ = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert not (run_dir / "run.lock").exists()
    summary = json.loads((run_dir / "summary.json").read_text())
    told = re.search(r"stopped after (\d+) of (\d+) steps; go on with it by: dogo-fed (.*)", output)
    assert told is not None, output
    assert (int(told[1]), int(told[2])) == (summary["steps_done"], TOTAL_STEPS)
    saved = {
        name: max(
            int(path.stem[5:]) for path in (run_dir / "peers" / name / "checkpoints").iterdir()
        )
        for name in summary["unfinished"]
    }
    assert saved == {name: one["steps_done"] for name, one in summary["unfinished"].items()}
    assert 5 < max(saved.values()) < TOTAL_STEPS

    dogo_fed(*shlex.split(told[3]), "host=local", timeout_s=400)
    dogo_fed("train", *RUN, teaching, "host=local", f"run_dir={tmp_path / 'whole'}", timeout_s=400)
    assert digests(run_dir) == digests(tmp_path / "whole")
    done = [(one["peer"], one["step"]) for one in records(run_dir) if one["type"] == "step"]
    peers = sorted(digests(run_dir))  # one of them may have come to its end before the stop
    assert sorted(done) == [(name, step) for name in peers for step in range(TOTAL_STEPS)]
    (changed,) = events(run_dir, "settings_changed")
    assert 'host "processes" -> "local"' in changed["message"]
