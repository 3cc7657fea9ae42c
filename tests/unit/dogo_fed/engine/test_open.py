"""Opening a session: where a peer goes on, what it removes and when, and that every session runs the step."""

from __future__ import annotations

import dataclasses
import inspect
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch

from configs.compose import compose_run
from dogo_fed import atomic
from dogo_fed.config_text import load_run_config
from dogo_fed.contracts import PeerId, TeacherSignal
from dogo_fed.data.source import TensorImages
from dogo_fed.engine import session as session_module
from dogo_fed.engine import step as step_module
from dogo_fed.engine.feed import Feed
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from dogo_fed.engine.open import open_session
from dogo_fed.engine.session import PeerSession
from dogo_fed.errors import CheckpointError, ConfigError, Refused
from dogo_fed.exchange.base import Traffic
from dogo_fed.storage.checkpoint import CheckpointStore
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.run_folder import create, reopen
from tests.support.command_line import REPOSITORY
from tests.support.distributions import KeepingSink
from tests.support.tiny_run import TINY, run_here

ADA = PeerId("wide")


class FakeLink:
    """Lets everybody in at one step, teaches nothing, and remembers the calls."""

    last_traffic = Traffic()

    def __init__(self, next_step: int = 0, refusal: Exception | None = None) -> None:
        self.calls: list[str] = []
        self._next_step = next_step
        self._refusal = refusal

    def join(self, agreement):
        self.calls.append("join")
        if self._refusal is not None:
            raise self._refusal
        return self._next_step

    def publish(self, ticket, distribution):
        self.calls.append(f"publish {ticket.step}")

    def collect(self, ticket):
        self.calls.append(f"collect {ticket.step}")
        return TeacherSignal(None, 0.0, (), ticket.step + 1)

    def close(self):
        self.calls.append("close")


@pytest.fixture
def run() -> LoadedRun:
    return load_run(compose_run([*TINY, "peers=pair", "checkpoint.keep=9"]))


def opened(run: LoadedRun, folder: Path, link: FakeLink | None = None, **where) -> PeerSession:
    where = {"checkpoint_step": None, **where}
    return open_session(run, folder, ADA, link or FakeLink(), KeepingSink(), **where)


def gone_on(run: LoadedRun, folder: Path) -> LoadedRun:
    return dataclasses.replace(run, config=dataclasses.replace(run.config, resume=str(folder)))


@pytest.fixture
def folder(run: LoadedRun, tmp_path: Path) -> Path:
    """A run folder with checkpoints of the steps 0, 1, 2."""
    session = opened(run, tmp_path / "run")
    session.start()
    for _ in range(2):
        session.begin_step()
        session.end_step()
        session.save()
    assert steps(tmp_path / "run") == [0, 1, 2]
    return tmp_path / "run"


def steps(folder: Path) -> list[int]:
    return PeerFolder(folder, ADA).checkpoints.steps()


def steps_set_aside(folder: Path) -> list[int]:
    return CheckpointStore(PeerFolder(folder, ADA).checkpoints.folder / "ahead", keep=9).steps()


@pytest.mark.parametrize(
    ("where", "next_step", "left"),
    [
        ({"checkpoint_step": 1}, 1, [0, 1]),
        ({"checkpoint_step": None}, 0, []),
        ({"checkpoint_step": 1, "takes_newest": True}, 2, [0, 1, 2]),
    ],
)
def test_a_peer_goes_on_where_the_run_does_and_sets_aside_what_it_will_write_again(
    run, folder, where, next_step, left
):
    assert opened(gone_on(run, folder), folder, **where).next_step == next_step
    assert steps(folder) == left
    assert sorted(steps(folder) + steps_set_aside(folder)) == [0, 1, 2], "nothing is unlinked"


@pytest.mark.parametrize("what", ["checkpoints", "encoder"])
def test_a_new_run_does_not_write_over_an_earlier_one_of_its_name(run, folder, what):
    """A site has a folder of its own for a run, into which whoever starts the run does not look."""
    peer_folder = PeerFolder(folder, ADA)
    if what == "encoder":
        shutil.rmtree(peer_folder.checkpoints.folder)
        peer_folder.encoder_path.touch()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    link = FakeLink()
    with pytest.raises(
        Refused, match=rf"'{ADA}' has .*{what}.*'{folder.name}'.*resume=.*afresh"
    ) as no:
        opened(run, folder, link)
    assert str(folder.parent) not in str(no.value), "it is told to the coordinator"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert link.calls == []
    assert opened(gone_on(run, folder), folder).next_step == 0


def test_what_a_killed_save_has_left_is_removed_where_the_peer_is(run, folder, monkeypatch):
    """At a site nobody else looks into its folder."""
    store = PeerFolder(folder, ADA).checkpoints
    monkeypatch.setattr(atomic, "_is_alive", lambda pid, started_at: False)
    with atomic.atomic_path(store.folder / "step-000000003.pt") as partial:
        partial.touch()
        (kept := store.folder / "mine.partial").touch()
        opened(gone_on(run, folder), folder, checkpoint_step=1)
        assert not partial.exists() and kept.exists()
        partial.touch()


def test_what_was_set_aside_is_removed_when_the_peer_has_got_as_far_again(run, folder):
    session = opened(run, folder, checkpoint_step=0)
    session.start()
    assert steps_set_aside(folder) == [1, 2]
    session.begin_step()
    session.end_step()
    session.save()
    assert (steps(folder), steps_set_aside(folder)) == ([0, 1], [2])


def test_a_checkpoint_that_is_not_there_costs_nothing(run, folder):
    with pytest.raises(CheckpointError, match="step-000000007"):
        opened(run, folder, checkpoint_step=7)
    assert steps(folder) == [0, 1, 2]


def test_going_on_with_a_run_removes_nothing_by_itself(tmp_path):
    config = compose_run(
        [*TINY, "peers=pair", "checkpoint.every_steps=1", f"run_dir={tmp_path}/run"]
    )
    run_here(config)
    ahead = PeerFolder(tmp_path / "run", ADA).checkpoints
    behind = PeerFolder(tmp_path / "run", PeerId("resnet")).checkpoints
    before = ahead.steps()
    behind.set_aside_after(before[0])
    found = reopen(tmp_path / "run", config, 3, lambda step: step)
    assert set(found.checkpoints.values()) == {before[0]} and before[0] < before[-1]
    assert ahead.steps() == before


def test_a_new_run_has_nothing_to_go_on_from(tmp_path):
    found = create(compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/run"]))
    assert (found.first_step, found.is_resumed, dict(found.checkpoints)) == (0, False, {})


def test_a_peer_that_was_away_goes_on_at_the_runs_step(run, folder, caplog):
    with caplog.at_level(logging.WARNING):
        session = opened(run, folder, FakeLink(next_step=3), checkpoint_step=1)
    assert session.next_step == 3
    assert "goes on at step 3; its checkpoint is of step 1" in caplog.text


def test_a_peer_joins_when_its_images_are_near(run, tmp_path, monkeypatch):
    """That may take minutes on a GPU, and once it has joined, the others wait for it."""
    link, of = FakeLink(), Feed.of.__func__

    def noting(cls, *arguments, **given):
        link.calls.append("images")
        return of(cls, *arguments, **given)

    monkeypatch.setattr(Feed, "of", classmethod(noting))
    opened(run, tmp_path / "run", link).start()
    assert link.calls == ["images", "join"]


def test_a_peer_that_is_not_let_in_has_no_session(run, folder):
    with pytest.raises(Refused, match="no such peer"):
        opened(run, folder, FakeLink(refusal=Refused("no such peer")), checkpoint_step=1)


# ---- what is told of a peer's images ----

OWN = ("+data@peers.wide.data=synthetic", "peers.wide.data.options.size=20",
       "peers.wide.data.options.test_size=8", "peers.wide.data.options.seed=5")  # fmt: skip


def told_of(tmp_path, caplog, *settings, is_site=True, **changes) -> list[str]:
    """Returns what is told of the images of the peer `wide`, at the level that a terminal shows."""
    loaded = load_run(compose_run([*TINY, "peers=pair", *settings]), peers=(ADA,))
    if changes:
        mine = loaded.private[ADA]
        own = dataclasses.replace(mine.own, **changes)
        private = {ADA: dataclasses.replace(mine, own=own, evaluated=own)}
        loaded = dataclasses.replace(loaded, private=private)
    with caplog.at_level(logging.INFO):
        opened(loaded, tmp_path / "run", is_site=is_site)
    wanted = logging.WARNING if is_site else logging.INFO
    found = [one for one in caplog.records if one.name == "dogo_fed.engine.open"]
    assert {one.levelno for one in found} <= {wanted}
    return [one.getMessage() for one in found]


def test_nothing_is_told_of_images_that_are_as_they_should_be(tmp_path, caplog):
    assert told_of(tmp_path, caplog) == []
    assert told_of(tmp_path / "own", caplog, *OWN) == []


@pytest.mark.parametrize("is_site", [True, False])
def test_a_peer_that_forgot_its_private_images_is_told_so(is_site, tmp_path, caplog):
    (note,) = told_of(tmp_path, caplog, "anchor_share=0.5", is_site=is_site)
    assert note.startswith("peer=wide no private images: a pass holds 8 anchors and nothing else")
    assert "batch_size=16" in note and note.endswith("name them by peers.wide.data")


def test_private_images_that_are_nearly_black_and_of_no_class_are_told(tmp_path, caplog):
    pixels = torch.full((20, 3, 16, 16), 9, dtype=torch.uint8)
    dark = TensorImages(pixels, torch.full((20,), -1))
    black, no_class = told_of(tmp_path, caplog, *OWN, train=dark)
    assert "the images of peers.wide.data are nearly black (" in black
    assert "brightest pixel 9 of 255" in black
    assert "no kNN and no linear probe: no training image has a class" in no_class


def test_fewer_neighbours_than_the_run_asks_for_are_told_where_the_images_are(tmp_path, caplog):
    """An error would tell the coordinator how many there are."""
    (note,) = told_of(tmp_path, caplog, *OWN, "eval.knn_k=50")
    assert "kNN takes 20 neighbours in place of eval.knn_k=50" in note


# ---- the step that every session runs ----


def test_the_step_is_what_a_session_runs_in_this_order(run, tmp_path, monkeypatch):
    seen: list[str] = []
    for name in ("propose", "show", "absorb"):
        original = getattr(step_module, name)
        assert getattr(session_module, name) is original, "the session runs the function of step.py"

        def spy(*arguments, name=name, original=original):
            seen.append(name)
            return original(*arguments)

        monkeypatch.setattr(session_module, name, spy)
    link = FakeLink()
    session = opened(run, tmp_path / "run", link)
    session.begin_step()
    assert seen == ["propose", "show"] and link.calls == ["join", "publish 0"]
    session.end_step()
    assert seen == ["propose", "show", "absorb"]
    assert link.calls == ["join", "publish 0", "collect 0"]


def test_the_step_is_short_enough_to_be_read_at_once():
    lines = inspect.getsource(step_module).splitlines()
    assert len(lines) <= 100


def test_only_sessions_the_trial_and_the_example_that_shows_it_run_the_step():
    """One home: no host has a step of its own."""
    users = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("dogo_fed", "server", "clients", "examples")
        for path in (REPOSITORY / package).rglob("*.py")
        if re.search(
            r"from dogo_fed\.engine\.step import .*(propose|show|absorb)",
            path.read_text(encoding="utf-8"),
        )
    }
    assert users == {
        "dogo_fed/engine/session.py",
        "dogo_fed/engine/trial.py",
        "examples/two_peers.py",
    }


def test_a_run_without_exchange_has_no_exchange_but_still_joins(tmp_path):
    config = compose_run([*TINY, "peers=pair", "exchange.enabled=false"])
    link = FakeLink()
    session = opened(load_run(config), tmp_path / "run", link)
    session.begin_step()
    session.end_step()
    assert link.calls == ["join"] and session.can_stop_here


def test_a_process_knows_what_its_settings_say(run):
    twin = load_run(dataclasses.replace(run.config, batch_size=8))
    assert twin.wire_format.batch_size == 8 and run.wire_format.batch_size == 16
    assert twin.agreement != run.agreement


# ---- a site's own settings ----

SITE = ("peers=pair", "checkpoint.keep=9", "peers.wide.distill_weight=9", "anchor_share=0.5")
GRAPH = "exchange.graph={wide: {resnet: 2}, resnet: {wide: 1}}"
PRIVATE = ("+data@peers.wide.data=synthetic", "peers.wide.data.options.seed=5")


def site_run(*settings: str) -> LoadedRun:
    return load_run(compose_run([*TINY, *SITE, *settings]), peers=(ADA,))


def begun(run: LoadedRun, folder: Path) -> Path:
    """Returns the folder of a site whose peer has done a step."""
    session = opened(run, folder, is_site=True)
    session.start()
    session.begin_step()
    session.end_step()
    session.save()
    return folder


def test_a_site_has_its_own_settings_from_the_start_and_nobody_else_s(tmp_path):
    opened(site_run(GRAPH, *PRIVATE), tmp_path / "run", is_site=True)
    left = load_run_config(tmp_path / "run")
    assert list(left.peers) == [ADA] and left.exchange.graph is None
    assert left.peers[ADA].distill_weight == 9 and left.peers[ADA].data is not None
    assert (tmp_path / "run" / "site.yaml").stat().st_mode & 0o077 == 0


def test_where_the_launcher_has_all_settings_a_peer_notes_none(run, tmp_path):
    opened(run, tmp_path / "run")
    assert not (tmp_path / "run" / "site.yaml").exists()


@pytest.mark.parametrize("where", [{"checkpoint_step": 1}, {"takes_newest": True}])
@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ((), ("peers.wide.distill_weight=3",), "peers.wide.distill_weight is 9.0 in the run and 3"),
        ((), ("peers.wide.optimizer.options.lr=1",), "peers.wide.optimizer.options.lr is"),
        (PRIVATE, (), "peers.wide.data"),
        ((), PRIVATE, "peers.wide.data"),
    ],
)
def test_a_site_that_goes_on_with_other_settings_is_refused(before, after, told, where, tmp_path):
    folder = begun(site_run(*before), tmp_path / "run")
    note = (folder / "site.yaml").read_text()
    with pytest.raises(ConfigError, match=re.escape(told)):
        opened(gone_on(site_run(*after), folder), folder, is_site=True, **where)
    assert (folder / "site.yaml").read_text() == note
    assert opened(gone_on(site_run(*before), folder), folder, is_site=True, **where).next_step == 1


def test_a_site_that_begins_again_may_have_other_settings(tmp_path):
    folder = begun(site_run(), tmp_path / "run")
    other = gone_on(site_run("peers.wide.distill_weight=3", *PRIVATE), folder)
    opened(other, folder, is_site=True)
    assert load_run_config(folder).peers[ADA].distill_weight == 3


def test_a_site_whose_peer_is_frozen_notes_nothing_since_it_learns_nothing(tmp_path):
    source = tmp_path / "source"
    run_here(compose_run([*TINY, "peers=pair", f"run_dir={source}"]))
    run = site_run(f"peers.wide.frozen_from={source / 'peers/wide/encoder.safetensors'}",
                   "exchange.rows=features", "anchor_share=1")  # fmt: skip
    opened(run, tmp_path / "run", is_site=True)
    assert not (tmp_path / "run" / "site.yaml").exists()
