"""Plain `flwr run .` in simulation, as Flower's own users start an app: on Flower's daemon, which stays."""

from __future__ import annotations

import json
import re
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command_line import SMALL_RUN, dogo_fed
from tests.support.flower_simulation import DAEMON, LocalFlower, checkpoints, copy_app, placements
from tests.support.leftover_processes import Started, started_here
from tests.support.run_watch import digests, events, records

PAIR = ("simclr", "simsiam")
SHORT = (
    *(part for part in SMALL_RUN if not part.startswith("steps")),
    *("steps=6", "steps_per_round=4", "device=cpu"),
)
RUN_WITHIN_S = 600.0
GONE_WITHIN_S = 180.0  # Ray's agents take their time to notice that their raylet is dead
MARK = """
import os as _os
import pathlib as _pathlib

_pathlib.Path({notes!r}, str(_os.getpid())).write_text(__file__)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.flower,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="orphans are taken in on Linux only"),
]


@pytest.fixture(scope="module")
def started() -> Iterator[Started]:
    with started_here() as family:
        yield family


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_app(tmp_path_factory.mktemp("flwr") / "app")


@pytest.fixture(scope="module")
def local(app: Path, started: Started) -> LocalFlower:
    """One daemon for the tests that come after each other, as it is with users."""
    return LocalFlower(app.parent / "home", cwd=app)


def only_the_daemon_is_left(started: Started) -> bool:
    assert started.left(GONE_WITHIN_S, but=DAEMON) == []
    assert any("flower-superlink" in command for command in started.alive().values())
    return True


class TestBundleAlone:
    """The bundle's files and nothing else of ours: no checkout, no installed package."""

    @pytest.fixture
    def unpacked(self, app: Path, local: LocalFlower, tmp_path: Path) -> Path:
        """Holds what is in the bundle; each process that imports it leaves a note."""
        local.flwr("build", "--app", str(app), cwd=tmp_path)
        (bundle,) = tmp_path.glob("*.fab")
        folder = tmp_path / "unpacked"
        with zipfile.ZipFile(bundle) as files:
            files.extractall(folder)
        (tmp_path / "notes").mkdir()
        with (folder / "dogo_fed" / "__init__.py").open("a") as package:
            package.write(MARK.format(notes=str(tmp_path / "notes")))
        return folder

    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Path:
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        return folder

    def importers(self, unpacked: Path) -> dict[int, Path]:
        """Returns who has imported the package since the last call, and from where."""
        notes = unpacked.parent / "notes"
        found = {int(note.name): Path(note.read_text()) for note in notes.iterdir()}
        for note in list(notes.iterdir()):
            note.unlink()
        return found

    def test_from_its_own_folder_and_then_from_another(
        self, unpacked: Path, elsewhere: Path, app: Path, tmp_path: Path, started: Started
    ) -> None:
        settings = (*SHORT, "peers=simclr_simsiam")
        reference = tmp_path / "reference"
        dogo_fed("train", *settings, "host=local", f"run_dir={reference}", cwd=app)
        mine = LocalFlower(tmp_path / "home", cwd=unpacked)
        for name, where, argument in (
            ("first", unpacked, "."),
            ("second", elsewhere, str(unpacked)),
        ):
            run_dir = tmp_path / name
            mine.finish(mine.submit(argument, run_dir, *settings, cwd=where), RUN_WITHIN_S)
            assert digests(run_dir) == digests(reference)
            found = self.importers(unpacked)
            peers = {place.pid for place in placements(run_dir).values()}
            assert len(peers) == 2 and peers <= found.keys()
            allowed = (unpacked, mine.home / "apps")
            assert all(any(path.is_relative_to(one) for one in allowed) for path in found.values())
            assert only_the_daemon_is_left(started)

    def test_a_daemon_that_was_started_elsewhere_takes_what_is_in_the_bundle(
        self, unpacked: Path, elsewhere: Path, tmp_path: Path, started: Started
    ) -> None:
        settings = (*SHORT, "peers=simclr_simsiam")
        mine = LocalFlower(tmp_path / "home", cwd=elsewhere)
        mine.finish(mine.submit(str(unpacked), tmp_path / "run", *settings), RUN_WITHIN_S)
        found = self.importers(unpacked)
        peers = {place.pid for place in placements(tmp_path / "run").values()}
        assert len(peers) == 2 and peers <= found.keys()
        assert all(found[pid].is_relative_to(mine.home / "apps") for pid in peers)
        assert only_the_daemon_is_left(started)


def test_too_few_nodes_are_told_with_what_to_do(
    local: LocalFlower, started: Started, tmp_path: Path
) -> None:
    run_id = local.submit(".", tmp_path / "run", *SHORT, "peers=trio")
    ended = local.wait(run_id, RUN_WITHIN_S)
    assert ended.status == "finished:failed"
    assert "num-supernodes=3" in ended.details and "3 peers" in ended.details
    assert "num-supernodes=3" in local.log(run_id)
    assert only_the_daemon_is_left(started)


def test_a_peer_that_can_not_go_on_fails_the_run(
    local: LocalFlower, started: Started, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    settings = (*SHORT, "peers=simclr_simsiam", "peers.simsiam.optimizer.options.lr=1e30")
    ended = local.wait(local.submit(".", run_dir, *settings), RUN_WITHIN_S)
    assert ended.status == "finished:failed"
    assert "peer simsiam can't go on" in ended.details and "diverged" in ended.details
    summary = json.loads((run_dir / "summary.json").read_text())
    assert summary["peers"]["simclr"]["steps_trained"] == 6
    assert only_the_daemon_is_left(started)


def test_a_relative_run_folder_is_refused(local: LocalFlower, started: Started, app: Path) -> None:
    ended = local.wait(local.submit(".", Path("runs/here"), *SHORT), RUN_WITHIN_S)
    assert ended.status == "finished:failed"
    assert "run_dir=runs/here must be an absolute path" in ended.details
    assert not (app / "runs").exists()


def test_flwr_stop_lets_the_peers_save_themselves_at_one_step(
    local: LocalFlower, started: Started, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run_id = local.submit(
        ".",
        run_dir,
        *(part for part in SHORT if not part.startswith("steps")),
        *("peers=simclr_simsiam", "exchange=flower", "steps=4000", "steps_per_round=4000"),
    )
    local.wait_for_step(run_id, run_dir, 10)
    peers = [place.pid for place in placements(run_dir).values()]
    assert set(peers) <= started.alive().keys()
    local.flwr("stop", run_id)
    assert local.wait(run_id, 90).status == "finished:stopped"
    deadline_s = time.monotonic() + 90
    while not (run_dir / "summary.json").exists():
        assert time.monotonic() < deadline_s, local.log(run_id)
        time.sleep(0.2)
    assert events(run_dir, "stopped")
    saved = [checkpoints(run_dir, peer)[-1] for peer in PAIR]
    assert saved[0] == saved[1] and 10 <= saved[0] < 4000
    last = {one["peer"]: one["step"] for one in records(run_dir) if one["type"] == "step"}
    assert last == dict.fromkeys(PAIR, saved[0] - 1)
    assert only_the_daemon_is_left(started)


def test_sixteen_peers_share_two_workers(
    local: LocalFlower, started: Started, tmp_path: Path
) -> None:
    run_dir = tmp_path / "run"
    run_id = local.submit(
        ".",
        run_dir,
        *("peers=crowd", "data=synthetic", "steps=6", "steps_per_round=3", "batch_size=16"),
        *("eval.knn_k=20", "eval.linear=false", "device=cpu", "exchange.deadline_s=500"),
        federation="num-supernodes=16 client-resources-num-cpus=1 init-args-num-cpus=2",
    )
    local.finish(run_id, within_s=600)
    summary = json.loads((run_dir / "summary.json").read_text())
    assert len(summary["peers"]) == 16
    assert all(peer["steps_trained"] == 6 for peer in summary["peers"].values())
    assert len({place.pid for place in placements(run_dir).values()}) == 16
    assert {one["num_teachers"] for one in records(run_dir) if one["type"] == "step"} == {15}
    assert re.search(r"run=run .*round=2 step=6/6", (run_dir / "coordinator.log").read_text())
    assert only_the_daemon_is_left(started)
