"""Flower in deployment, as two sites would run it: TLS, SuperNodes with keys, a peer process per site."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.command_line import SMALL_RUN, dogo_fed, environment
from tests.support.flower_federation import Federation, tcp_sockets
from tests.support.flower_simulation import copy_app
from tests.support.ports import free_port
from tests.support.run_watch import (
    descendants,
    digests,
    events,
    kill,
    records,
    state,
    wait_until_gone,
)

PEERS = {
    "simclr_simsiam": {"simclr": "subprocess", "simsiam": "process"},
    "sites": dict.fromkeys(("a_resnet", "b_wide", "c_resnet", "d_wide"), "process"),
}
"""The isolation of each peer's SuperNode, by the name of the set of peers."""

PRIVATE = ("partition=dirichlet", "partition.alpha=0.1")
WITH_PRIVATE = pytest.mark.parametrize("images", [(), PRIVATE], ids=["shared", "private"])
LONG_RUN = (
    "data=synthetic",
    "steps=300",
    "steps_per_round=100",
    "batch_size=32",
    "eval.knn_k=20",
    "eval.linear=false",
    "checkpoint.every_steps=10",
)
SHORT_RUN = (
    "data=synthetic",
    "steps=8",
    "steps_per_round=4",
    "batch_size=32",
    "eval.knn_k=20",
    "eval.linear=false",
)
KINDS = ("node_lost", "peer_lost", "peer_started")
RUN_WITHIN_S = 240.0
GIVEN_UP_WITHIN_S = 180.0
"""60 s until Flower tells of a lost node, 30 s of patience, 30 s to let go, and some for a slow machine."""

ENDED_WITHIN_S = 100.0
"""Longer than a site's watcher gives the process below it to save itself."""

POLL_S = 0.2

pytestmark = [pytest.mark.slow, pytest.mark.flower, pytest.mark.timeout(600)]


class Site:
    """What one institution runs besides its SuperNode: the peer's process."""

    def __init__(self, folder: Path, certificate: Path, app: Path, peers: str) -> None:
        folder.mkdir(mode=0o700)
        self._folder = folder
        self._app = app
        self.address = f"unix:{folder}/peer.sock"
        self._command = [
            *(sys.executable, "-m", "server", "peer", f"listen={self.address}"),
            *(f"root_certificates={certificate}", f"run_dir={folder}/runs"),
            *(f"peers={peers}", "device=cpu", "data=synthetic"),
        ]
        self.start()

    def start(self) -> None:
        """Starts the process (again)."""
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=self._folder,
                env={**environment(), "PYTHONPATH": str(self._app)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Ends the process and what is below it at once, as a power cut would."""
        for pid in (self.process.pid, *descendants(self.process.pid)):
            kill(pid)
        self.process.wait(timeout=10)

    def worker(self) -> int:
        """Returns the id of the process that holds the model."""
        return descendants(self.process.pid)[0]

    def checkpoints(self, run: str, peer: str) -> list[str]:
        """Returns the names of the checkpoints of a run that this site keeps."""
        folder = self._folder / "runs" / run / "peers" / peer / "checkpoints"
        return sorted(path.name for path in folder.iterdir())

    def close(self) -> None:
        """Ends the process and what is below it."""
        below = descendants(self.process.pid)
        self.process.send_signal(signal.SIGTERM)
        left = wait_until_gone([self.process.pid, *below], within_s=ENDED_WITHIN_S)
        states = [state(pid) for pid in left]
        for pid in left:
            kill(pid)
        self.process.wait(timeout=10)
        log = (self._folder / "log").read_text()[-2000:]
        assert not left, f"did not end when told to, with {below} below: {states}\n\n{log}"


class Deployment:
    """A federation with a SuperNode and a peer process for each peer, and runs of this app on it."""

    def __init__(
        self,
        folder: Path,
        app: Path,
        federation: Federation,
        peers: str,
        sites: Mapping[str, Site],
    ) -> None:
        self.federation = federation
        self.sites = sites
        self._settings = (f"peers={peers}", "device=cpu")
        self._app = app
        self._folder = folder

    def submit(self, name: str, *settings: str) -> tuple[int, Path]:
        """Submits a run with a coordinator that sites can reach; returns its id and its folder."""
        tls, port = self.federation.certificates, free_port()
        return self.submit_as_is(
            name,
            *(*settings, "coordinator.address=127.0.0.1", f"coordinator.port={port}"),
            f"coordinator.public_address=localhost:{port}",
            *(f"coordinator.certificate={tls.server}", f"coordinator.private_key={tls.key}"),
        )

    def submit_as_is(self, name: str, *settings: str) -> tuple[int, Path]:
        """Submits a run with these settings only; returns its id and its folder."""
        run_dir, overrides = self._folder / name, " ".join((*self._settings, *settings))
        run_config = f"run-dir={json.dumps(str(run_dir))} hydra-overrides={json.dumps(overrides)}"
        return self.federation.submit(self._app, run_config), run_dir

    def go_on(self, run_dir: Path, *settings: str) -> int:
        """Submits the run of a folder again, to go on; returns the new id."""
        overrides = " ".join((f"resume={run_dir}", *settings))
        return self.federation.submit(self._app, f"hydra-overrides={json.dumps(overrides)}")

    def wait_for_step(self, run_id: int, run_dir: Path, step: int) -> None:
        """Returns when some peer has reported `step`."""
        deadline_s = time.monotonic() + RUN_WITHIN_S
        while time.monotonic() < deadline_s:
            if any(one["type"] == "step" and one["step"] >= step for one in records(run_dir)):
                return
            time.sleep(POLL_S)
        raise AssertionError(self.told(f"step {step} was not reached", run_id))

    def told(self, what: str, run_id: int) -> str:
        """Returns `what` with the ends of all logs, for a test that fails."""
        names = ("superlink", *self.sites, *(f"{one}-superexec" for one in self.sites))
        logs = [
            self.federation.log(name)[-4000:] for name in names if self.federation.has_log(name)
        ]
        logs += [(self._folder / f"site-{name}" / "log").read_text()[-2000:] for name in self.sites]
        return "\n\n".join([f"run {run_id}: {what}", *logs])

    def finish(self, run_id: int) -> None:
        """Waits for the end of a run, which must be a good one."""
        status = self.federation.wait(run_id, RUN_WITHIN_S)
        assert status == "finished:completed", self.told(status, run_id)

    def reference(self, folder: Path, *settings: str) -> dict[str, str]:
        """Runs the same in one process; returns the digests."""
        run_dir = folder / "reference"
        dogo_fed("train", *self._settings, *settings, "host=local", f"run_dir={run_dir}")
        return digests(run_dir)


@contextmanager
def deployment(folder: Path, peers: str) -> Iterator[Deployment]:
    app = copy_app(folder / "app")
    with ExitStack() as stack:
        federation = stack.enter_context(Federation(folder / "flower"))
        sites = {}
        for name, isolation in PEERS[peers].items():
            authority = federation.certificates.authority
            sites[name] = Site(folder / f"site-{name}", authority, app, peers)
            stack.callback(sites[name].close)
            settings = {"peer": name, "peer-address": sites[name].address}
            federation.add_node(name, settings, isolation=isolation)
        yield Deployment(folder, app, federation, peers, sites)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("deployed"), "simclr_simsiam") as made:
        yield made


@WITH_PRIVATE
def test_sites_equal_one_process(
    running: Deployment, images: tuple[str, ...], tmp_path: Path
) -> None:
    run_id, run_dir = running.submit(f"equal{len(images)}", *SMALL_RUN, *images)
    expected = running.reference(tmp_path, *SMALL_RUN, *images)
    running.finish(run_id)
    assert digests(run_dir) == expected
    where = [event["message"] for event in events(run_dir, "peer_placed")]
    for site in running.sites.values():
        assert any(f"process {site.worker()} " in message for message in where), where


@WITH_PRIVATE
def test_a_run_outlives_a_supernode_and_its_numbers_do_not_change(
    running: Deployment, images: tuple[str, ...], tmp_path: Path
) -> None:
    run_id, run_dir = running.submit(f"supernode{len(images)}", *LONG_RUN, *images)
    running.wait_for_step(run_id, run_dir, 20)
    running.federation.kill("simclr")
    running.federation.start_node("simclr")  # before the reference: the others wait deadline_s only
    expected = running.reference(tmp_path, *LONG_RUN, *images)
    running.finish(run_id)
    assert digests(run_dir) == expected
    assert events(run_dir, "peer_lost") == []


@WITH_PRIVATE
def test_a_run_outlives_a_supernode_and_the_other_sites_peer_process(
    running: Deployment, images: tuple[str, ...]
) -> None:
    run_id, run_dir = running.submit(f"both{len(images)}", *LONG_RUN, *images)
    running.wait_for_step(run_id, run_dir, 20)
    running.federation.kill("simsiam")
    kill(running.sites["simclr"].worker())
    running.federation.start_node("simsiam")
    running.finish(run_id)
    summary = json.loads((run_dir / "summary.json").read_text())
    told = {kind: [e for e in summary["events"] if e["kind"] == kind] for kind in KINDS}
    assert {event["peer"] for event in told["node_lost"]} == {"simsiam"}, summary["events"]
    assert {event["peer"] for event in told["peer_lost"]} == {"simclr"}, summary["events"]
    again = [event for event in told["peer_started"] if "started again" in event["message"]]
    assert {event["peer"] for event in again} == {"simclr"}, summary["events"]
    trained = {name: peer["steps_trained"] for name, peer in summary["peers"].items()}
    assert trained["simsiam"] == 300 > trained["simclr"] > 20, trained
    last = {one["peer"]: one["step"] for one in records(run_dir) if one["type"] == "step"}
    assert last == {"simclr": 299, "simsiam": 299}


def test_a_site_that_never_returns(running: Deployment) -> None:
    patience = ("exchange.deadline_s=10", "exchange.join_deadline_s=20")
    run_id, run_dir = running.submit("gone", *LONG_RUN, *patience)
    running.wait_for_step(run_id, run_dir, 20)
    running.federation.kill("simclr")
    running.sites["simclr"].kill()
    try:
        status = running.federation.wait(run_id, GIVEN_UP_WITHIN_S)
        why = running.federation.why(run_id)
    finally:
        running.sites["simclr"].start()
        running.federation.start_node("simclr")
    assert status == "finished:failed", running.told(status, run_id)
    assert "peer simclr can't go on: was not there for 30 s" in why, why
    for kind in ("peer_lost", "node_lost"):
        assert {event["peer"] for event in events(run_dir, kind)} == {"simclr"}, kind
    summary = json.loads((run_dir / "summary.json").read_text())
    assert {name: one["steps_trained"] for name, one in summary["peers"].items()} == {
        "simsiam": 300
    }


def test_steps_in_flowers_messages_need_no_port(running: Deployment, tmp_path: Path) -> None:
    run_id, run_dir = running.submit_as_is("messages", *SHORT_RUN, "exchange=flower")
    expected = running.reference(tmp_path, *SHORT_RUN)
    running.wait_for_step(run_id, run_dir, 1)
    superlink = running.federation.pid("superlink")
    assert (running.federation.port, True) in tcp_sockets(superlink)
    listening = [
        port for pid in descendants(superlink) for port, is_open in tcp_sockets(pid) if is_open
    ]
    assert listening == []
    assert [tcp_sockets(site.worker()) for site in running.sites.values()] == [[], []]
    running.finish(run_id)
    assert digests(run_dir) == expected


def test_sites_must_be_told_where_the_coordinator_is(running: Deployment) -> None:
    run_id, _ = running.submit_as_is("nowhere", *SHORT_RUN)
    status = running.federation.wait(run_id, RUN_WITHIN_S)
    assert status == "finished:failed", running.told(status, run_id)
    why = running.federation.why(run_id)
    assert "set coordinator.public_address=<host>:<port>" in why, why


@WITH_PRIVATE
def test_a_run_that_is_stopped_in_a_round_goes_on_to_the_numbers_of_one_process(
    running: Deployment, images: tuple[str, ...], tmp_path: Path
) -> None:
    settings = [part for part in LONG_RUN if not part.startswith(("steps=", "steps_per_round="))]
    settings += ["steps_per_round=3000", *images]
    name = f"stopped{len(images)}"
    run_id, run_dir = running.submit(name, *settings, "steps=3000")
    running.wait_for_step(run_id, run_dir, 20)
    running.federation.stop(run_id)
    assert running.federation.wait(run_id, RUN_WITHIN_S) == "finished:stopped"
    deadline_s = time.monotonic() + 60
    while not (run_dir / "summary.json").exists():
        assert time.monotonic() < deadline_s, running.told("no summary after a stop", run_id)
        time.sleep(POLL_S)
    assert events(run_dir, "stopped")
    saved = [site.checkpoints(name, peer)[-1] for peer, site in running.sites.items()]
    assert saved[0] == saved[1], "all peers stop after the same step"
    stopped_at = int(saved[0].removeprefix("step-").removesuffix(".pt"))
    assert stopped_at >= 20
    longer = f"steps={stopped_at + 20}"
    again = running.go_on(run_dir, longer)
    expected = running.reference(tmp_path, *settings, longer)
    running.finish(again)
    assert digests(run_dir) == expected
    assert events(run_dir, "resumed")[-1]["step"] == stopped_at


def test_four_sites_with_private_images_equal_one_process(tmp_path: Path) -> None:
    with deployment(tmp_path / "deployed", "sites") as running:
        run_id, run_dir = running.submit("equal", *SMALL_RUN, *PRIVATE)
        expected = running.reference(tmp_path, *SMALL_RUN, *PRIVATE)
        running.finish(run_id)
        assert len(set(expected.values())) == 4
        assert digests(run_dir) == expected
