"""An early end that is asked for while a peer evaluates: the evaluation is left off, and made later."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from configs.compose import compose_run
from configs.resume import resumed
from dogo_fed.engine import round_end
from dogo_fed.reporting.summary import RunSummary, was_stopped
from dogo_fed.run.local import run_local
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import conduct
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here

SETTINGS = (*TINY, "peers=pair")
NUM_EVALUATIONS = 6
"""Each of two peers: untrained, after the first round, at the end."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return folder, run_here(compose_run([*SETTINGS, f"run_dir={folder}"]))


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A peer says after every batch of an evaluation that it is alive, and not once a second."""
    monkeypatch.setattr(round_end, "_ALIVE_EVERY_S", 0.0)
    monkeypatch.setattr("dogo_fed.run.train.draw_curves", lambda *arguments: None)


def stopped_in(number: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> RunSummary:
    """Runs until the user asks for an end in this evaluation, counted from 1; returns the summary."""
    begun: list[object] = []
    ended: list[object] = []
    plain = round_end.measure

    def measure(*given, **more):
        begun.append(given)
        found = plain(*given, **more)
        ended.append(given)
        return found

    def host(run, its_folder, sink, stop_requested):
        run_local(run, its_folder, sink, lambda: len(begun) >= number)

    with monkeypatch.context() as patch:
        patch.setattr(round_end, "measure", measure)
        summary = conduct(prepare(compose_run([*SETTINGS, f"run_dir={folder}"])), host)
    assert len(ended) == number - 1, (
        "what was under way is left off, and no other begins to its end"
    )
    return summary


@pytest.mark.parametrize("number", range(1, NUM_EVALUATIONS + 1))
def test_a_run_that_is_stopped_in_an_evaluation_loses_nothing(
    number, undisturbed, tmp_path, monkeypatch
):
    whole_folder, whole = undisturbed
    folder = tmp_path / "run"
    summary = stopped_in(number, folder, monkeypatch)
    assert was_stopped(summary) and summary["unfinished"]
    again = [f"resume={folder}"]
    after = run_here(resumed(compose_run(again), again))
    assert digests(folder) == digests(whole_folder)
    for peer, result in whole["peers"].items():
        for metric in ("knn_top1", "knn_top1_untrained", "linear_top1", "rankme_untrained"):
            assert after["peers"][peer][metric] == result[metric], metric
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    told = Counter((one["peer"], one["round"]) for one in records if one["type"] == "round")
    assert told == {(peer, number): 1 for peer in whole["peers"] for number in range(3)}
