"""What is done while a step waits, and read when it waits anyway, changes no number."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.engine import feed, loaded_run, session
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.session import PeerSession
from dogo_fed.engine.trial import do_with_itself
from dogo_fed.errors import TrainingError
from tests.support.run_watch import digests, records
from tests.support.tiny_run import TINY, run_here

CPU = torch.device("cpu")
SETTINGS = (*(one for one in TINY if not one.startswith("steps")), "steps=7", "steps_per_round=4")
PRIVATE = ("partition=iid", "exchange.every_steps=2", "anchors_at=exchanges")
TIMES = ("compute_s", "wait_s", "exchange_s", "seconds")


def told(folder):
    """Returns all records but for times, those of each peer in order."""
    timeless = [{key: one[key] for key in one if key not in TIMES} for one in records(folder)]
    return sorted(timeless, key=lambda one: str(one.get("peer")))


def equal_but_for_times(tmp_path, *settings):
    one, other = tmp_path / "plain", tmp_path / "other"
    assert digests(one) == digests(other)
    assert json.dumps(told(one)) == json.dumps(told(other))


def run_plainly(tmp_path, *settings):
    run_here(compose_run([*SETTINGS, *settings, f"run_dir={tmp_path}/plain"]))


# ---- losses are read late ----


@pytest.fixture
def late(monkeypatch):
    """Peers that read losses and check updates as on a GPU, however long their steps take."""
    monkeypatch.setattr(session, "READ_WITHIN_S", math.inf)
    replace = dataclasses.replace

    def on_a_gpu(one, **changes):
        if "reads_late" in changes:
            changes["reads_late"] = True
        return replace(one, **changes)

    monkeypatch.setattr(loaded_run.dataclasses, "replace", on_a_gpu)


@pytest.mark.parametrize(
    "settings", [(), PRIVATE, ("exchange.enabled=false",), ("exchange.lookahead=1",)]
)
def test_losses_that_are_read_late_are_the_same_and_in_the_same_order(settings, tmp_path, request):
    run_plainly(tmp_path, *settings)
    request.getfixturevalue("late")
    run_here(compose_run([*SETTINGS, *settings, f"run_dir={tmp_path}/other"]))
    equal_but_for_times(tmp_path)


def test_they_are_read_after_the_next_distribution_is_published(late, monkeypatch, tmp_path):
    done = []
    emit, publish = PeerSession._report, PeerSession._ticket

    def reporting(self, opened, *rest):
        done.append(("told", self.peer.id, opened.ticket.step))
        return emit(self, opened, *rest)

    def beginning(self, step):
        done.append(("begun", self.peer.id, step))
        return publish(self, step)

    monkeypatch.setattr(PeerSession, "_report", reporting)
    monkeypatch.setattr(PeerSession, "_ticket", beginning)
    run_here(compose_run([*SETTINGS, f"run_dir={tmp_path}/run"]))
    mine = [one for one in done if one[1] == "wide"]
    assert mine.index(("begun", "wide", 1)) < mine.index(("told", "wide", 0))
    assert mine.index(("told", "wide", 3)) < mine.index(("begun", "wide", 4)), "a round has ended"


def test_an_update_that_went_wrong_is_told_with_its_own_step_and_never_saved(late, tmp_path):
    settings = ("peers.wide.optimizer.options.lr=1e30", "checkpoint.every_steps=1")
    with pytest.raises(TrainingError, match="peer 'wide'"):
        run_here(compose_run([*SETTINGS, *settings, f"run_dir={tmp_path}/run"]))
    saved = sorted((tmp_path / "run/peers/wide/checkpoints").iterdir())
    for path in saved:
        weights = torch.load(path, weights_only=True)["objective"]
        assert all(one.isfinite().all() for one in weights.values() if one.is_floating_point())


@pytest.mark.parametrize("reads_late", [False, True])
def test_a_step_on_trial_that_went_wrong_is_told_at_once(reads_late):
    run = loaded_run.load_run(compose_run(SETTINGS))
    peer = dataclasses.replace(run.build_peer("wide", CPU), reads_late=reads_late)
    weight = next(peer.objective.backbone.parameters())
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match="the length of the gradient"):
        do_with_itself(peer, run.images_of("wide", 0, with_labels=False), 0)


# ---- views are drawn while a step waits ----


def drawing_ahead(patch):
    """Lets sessions prepare their next step, and returns the list of those whose views were drawn."""
    ahead = []
    begin, draw = PeerSession.begin_step, Peer.draw_ahead

    def begin_and_prepare(self):
        begin(self)
        self.prepare_next()

    def noting(self, images_NCHW, step):
        ahead.append(step)
        draw(self, images_NCHW, step)

    patch.setattr(PeerSession, "begin_step", begin_and_prepare)
    patch.setattr(Peer, "draw_ahead", noting)
    return ahead


@pytest.mark.parametrize("settings", [(), PRIVATE, ("exchange.lookahead=1",)])
def test_views_that_were_drawn_ahead_are_the_same(settings, tmp_path, monkeypatch):
    run_plainly(tmp_path, *settings)
    ahead = drawing_ahead(monkeypatch)
    run_here(compose_run([*SETTINGS, *settings, f"run_dir={tmp_path}/other"]))
    equal_but_for_times(tmp_path)
    assert ahead and 4 not in ahead, "at the end of a round a peer evaluates, and may stop"


@pytest.mark.parametrize("are_there", [False, True])
def test_a_step_that_waits_for_nobody_draws_views_of_images_that_are_there(
    are_there, tmp_path, monkeypatch
):
    alone = "exchange.enabled=false"
    run_plainly(tmp_path, alone)
    ahead = drawing_ahead(monkeypatch)
    monkeypatch.setattr(feed.Feed, "is_ready", lambda self, step: are_there)
    run_here(compose_run([*SETTINGS, alone, f"run_dir={tmp_path}/other"]))
    equal_but_for_times(tmp_path)
    assert (ahead != []) == are_there


def test_views_of_another_step_are_not_taken():
    run = loaded_run.load_run(compose_run(SETTINGS))
    peer = run.build_peer("wide", CPU)
    images = run.images_of("wide", 3, with_labels=False).images_NCHW
    peer.draw_ahead(images, 3)
    other = peer.views(images, 5)
    drawn = peer.views(images, 3)
    again = peer.views(images, 3)
    assert all(map(torch.equal, drawn, again))
    assert not any(map(torch.equal, drawn, other))


# ---- a resident set ----


def test_peers_of_a_process_share_what_lies_on_the_device():
    run = loaded_run.load_run(compose_run(SETTINGS))
    first, second = (feed.resident(run.passes[name], CPU, 10**9) for name in ("resnet", "wide"))
    assert first.data.shared.train is second.data.shared.train
    before = len(feed._resident)
    del run, first, second
    assert len(feed._resident) < before
