"""The supervisor with made-up peers: who is started again, who is given up, who is ended."""

from __future__ import annotations

import dataclasses
import math
import socket
import time
from types import SimpleNamespace

import pytest

from clients.peer.grpc_link import Connection, GrpcLink
from configs.compose import compose_run
from dogo_fed.config_text import from_mapping
from dogo_fed.contracts import Ending, Outcome, PeerId, StepReport
from dogo_fed.coordination import standstill
from dogo_fed.errors import ExchangeError, StartError
from dogo_fed.run.prepare import prepare
from dogo_fed.storage.run_folder import create
from dogo_fed.wire.format import WireFormat
from server.coordinator import host as coordinator_host
from server.coordinator.host import CoordinatorHost
from server.hosts import supervisor
from server.hosts.supervisor import Supervisor
from tests.support.distributions import KeepingSink

ADA, BOB = PeerId("resnet"), PeerId("wide")
FINISHED, STOPPED = Ending(Outcome.FINISHED), Ending(Outcome.STOPPED)
PATIENCE = 5000
"""Looks after which a test gives up."""


@pytest.fixture(scope="module")
def prepared():
    return prepare(
        compose_run(
            [
                "data=synthetic",
                "data.options.size=32",
                "data.options.test_size=8",
                "batch_size=16",
                "eval.knn_k=5",
                "steps=6",
                "exchange.deadline_s=7",
                "recovery.silence_s=50",
                "recovery.max_restarts=2",
            ]
        )
    )


class Handle:
    """A peer that does what its script says, one word at each look; the last one for good."""

    def __init__(self, script, log):
        self._script = list(script)
        self._log = log
        self._num_looks = 0
        self.kills = 0

    def where(self):
        return "nowhere"

    def ending(self):
        self._num_looks += 1
        assert self._num_looks < PATIENCE, "the supervisor looks on and on"
        word = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        return word() if callable(word) else word

    def kill(self):
        self.kills += 1
        self._log.append(self)


class Launcher:
    """Starts handles with the scripts given: peer to one script for each start."""

    def __init__(self, **scripts):
        self.scripts = scripts
        self.started = []
        self.handles = []
        self.kill_log = []

    def listen_address(self):
        return "127.0.0.1"

    def wait(self, seconds):
        time.sleep(seconds)

    def start(self, peer, number, assignment):
        self.started.append((peer, number, assignment))
        script = self.scripts[peer][min(number, len(self.scripts[peer]) - 1)]
        if isinstance(script, Exception):
            raise script
        handle = Handle(script, self.kill_log)
        self.handles.append(handle)
        return handle

    def starts(self, peer):
        return [number for name, number, _ in self.started if name == peer]

    @property
    def port(self):
        return int(self.started[0][2].address.rpartition(":")[2])


class Scene:
    """One supervised run; its clock can be put forward."""

    def __init__(self, run, folder, clock):
        self.run_, self.folder, self.clock = run, folder, clock
        self.sink = KeepingSink()
        self.is_stop_requested = False

    def supervise(self, launcher):
        stop_requested = lambda: self.is_stop_requested  # noqa: E731
        with CoordinatorHost.of(
            self.run_, self.folder, self.sink, launcher.listen_address
        ) as coordinator:
            Supervisor(self.run_, self.folder, launcher, coordinator, stop_requested).run()

    def fail(self, launcher):
        with pytest.raises(ExchangeError) as caught:
            self.supervise(launcher)
        return str(caught.value)

    def kinds(self, peer):
        return [event.kind for event in self.sink.events() if event.peer == peer]

    def until_stopped(self):
        """A script: goes on until the coordinator has decided to stop."""
        return [lambda: STOPPED if self.sink.events("stopped") else None]

    def put_forward(self, seconds):
        """A word of a script: says nothing while so much time passes."""

        def pass_time():
            self.clock.offset_s += seconds

        return pass_time


@pytest.fixture
def scene(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr(standstill, "_LONGEST_PAUSE_S", math.inf)  # the clock is put forward
    clock = SimpleNamespace(offset_s=0.0)
    clock.monotonic = lambda: time.monotonic() + clock.offset_s
    for module in (supervisor, coordinator_host):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(supervisor, "_POLL_S", 0.001)
    config = dataclasses.replace(prepared.config, run_dir=str(tmp_path / "run"))
    return Scene(dataclasses.replace(prepared, config=config), create(config), clock)


def assert_gone(launcher):
    """All that was started has been ended, and nobody listens any more."""
    assert all(handle.kills for handle in launcher.handles)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", launcher.port), timeout=2)


def test_a_run_whose_peers_finish_ends_without_a_word(scene):
    launcher = Launcher(resnet=[[None, None, FINISHED]], wide=[[FINISHED]])
    scene.supervise(launcher)
    assert [(peer, number) for peer, number, _ in launcher.started] == [(ADA, 0), (BOB, 0)]
    assert scene.kinds(ADA) == scene.kinds(BOB) == ["peer_started"]
    assert_gone(launcher)


def test_every_peer_is_told_all_it_needs_and_a_credential_of_its_own(scene):
    launcher = Launcher(resnet=[["died", FINISHED], [FINISHED]], wide=[[FINISHED]])
    scene.supervise(launcher)
    assignments = [assignment for _, _, assignment in launcher.started]
    assert [one.peer for one in assignments] == [ADA, BOB, ADA]
    first, other, again = (one.credential for one in assignments)
    assert first == again != other and len(first) == len(other) == 64
    assert len({one.address for one in assignments}) == 1
    for one in assignments:
        assert from_mapping(one.config) == scene.run_.config
        assert (one.run_id, one.run_dir) == (scene.folder.run_id, str(scene.folder.path))


def test_two_runs_have_two_secrets(scene):
    secrets = set()
    for _ in range(2):
        launcher = Launcher(resnet=[[FINISHED]], wide=[[FINISHED]])
        scene.supervise(launcher)
        secrets.add(launcher.started[0][2].credential)
    assert len(secrets) == 2


def test_who_dies_is_lost_and_started_again(scene):
    launcher = Launcher(resnet=[[None, "died of SIGKILL"], [None, FINISHED]], wide=[[FINISHED]])
    scene.supervise(launcher)
    assert launcher.starts(ADA) == [0, 1]
    assert scene.kinds(ADA) == ["peer_started", "peer_lost", "peer_started"]
    messages = [event.message for event in scene.sink.events() if event.peer == ADA]
    assert messages[1] == "peer resnet died of SIGKILL"
    assert messages[2] == "peer resnet started again: nowhere"


def test_a_checkpoint_that_a_restarted_peer_can_not_read_is_an_event(scene, monkeypatch):
    monkeypatch.setattr(CoordinatorHost, "has_joined", lambda self, peer: True)
    folder = scene.folder.path / "peers" / ADA / "checkpoints"
    folder.mkdir(parents=True)
    (folder / "step-000000007.pt").write_bytes(b"torn")
    launcher = Launcher(resnet=[["died"], [FINISHED]], wide=[[FINISHED]])
    scene.supervise(launcher)
    told = [one.message for one in scene.sink.events("checkpoint_passed_over")]
    assert told and all(
        "peer resnet: checkpoint" in one and "step-000000007" in one for one in told
    )


def test_who_keeps_dying_is_given_up_after_max_restarts_and_the_others_go_on(scene):
    launcher = Launcher(resnet=[["exited with 1"]], wide=[[None] * 50 + [FINISHED]])
    message = scene.fail(launcher)
    assert launcher.starts(ADA) == [0, 1, 2]
    assert launcher.starts(BOB) == [0]
    assert "peer resnet exited with 1" in message and "recovery.max_restarts" in message
    assert "peers/resnet/peer.log" in message and "wide" not in message
    assert launcher.handles[1]._script == [FINISHED], "the other one came to its end"
    assert scene.sink.events("stopped") == []


def test_the_dead_process_is_put_away_before_its_successor_starts(scene):
    """Its pipes are closed, and there are never two processes of one peer."""
    launcher = Launcher(resnet=[["died"], [FINISHED]], wide=[[FINISHED]])
    scene.supervise(launcher)
    first = next(handle for handle in launcher.handles if handle._script == ["died"])
    assert first.kills == 1
    assert_gone(launcher)


def test_without_restarts_the_first_death_is_the_last(scene):
    recovery = dataclasses.replace(scene.run_.config.recovery, max_restarts=0)
    config = dataclasses.replace(scene.run_.config, recovery=recovery)
    scene.run_ = dataclasses.replace(scene.run_, config=config)
    launcher = Launcher(resnet=[["died"]], wide=[[FINISHED]])
    assert "peer resnet died" in scene.fail(launcher)
    assert launcher.starts(ADA) == [0]


def test_who_can_not_be_started_again_is_listed_with_the_reason(scene):
    launcher = Launcher(resnet=[["died"], StartError("no GPU is free")], wide=[[FINISHED]])
    assert scene.fail(launcher) == "peer resnet can't be started again: no GPU is free"


def test_a_peer_that_was_cut_off_is_started_again(scene):
    """The coordinator is here and lives, so it was frozen, or the network was away."""
    cut_off = Ending(Outcome.CUT_OFF, "the coordinator did not answer in time")
    launcher = Launcher(resnet=[[cut_off], [FINISHED]], wide=[[None, None, FINISHED]])
    scene.supervise(launcher)
    assert launcher.starts(ADA) == [0, 1]
    assert scene.kinds(ADA) == ["peer_started", "peer_lost", "peer_started"]
    (lost,) = scene.sink.events("peer_lost")
    assert lost.message == f"peer resnet was cut off: {cut_off.message}"


def test_a_peer_that_is_cut_off_at_every_start_is_given_up(scene):
    cut_off = [Ending(Outcome.CUT_OFF, "no route to host")]
    launcher = Launcher(resnet=[cut_off] * 3, wide=[[FINISHED]])
    message = scene.fail(launcher)
    assert message.startswith("peer resnet was cut off: no route to host, and has been started ")
    assert launcher.starts(ADA) == [0, 1, 2]


def test_who_can_not_go_on_is_not_started_again_and_the_others_go_on(scene):
    failed = Ending(Outcome.FAILED, "the loss is NaN")
    launcher = Launcher(resnet=[[failed]], wide=[[None, FINISHED]])
    assert scene.fail(launcher) == "peer resnet can't go on: the loss is NaN"
    assert launcher.starts(ADA) == [0]
    assert scene.kinds(ADA) == ["peer_started", "peer_lost"]
    assert scene.sink.events("stopped") == []


def test_an_unfit_peer_stops_the_run(scene):
    unfit = Ending(Outcome.UNFIT, "seed is 7 at peer resnet and 0 at the coordinator")
    launcher = Launcher(resnet=[[unfit]], wide=[scene.until_stopped()])
    message = scene.fail(launcher)
    assert message == f"peer resnet can't go on: {unfit.message}"
    assert [event.message for event in scene.sink.events("stopped")] == [message]
    assert launcher.starts(ADA) == [0]


def test_every_failure_is_listed(scene):
    launcher = Launcher(
        resnet=[[Ending(Outcome.FAILED, "one reason")]],
        wide=[[Ending(Outcome.FAILED, "another reason")]],
    )
    message = scene.fail(launcher)
    assert message == "peer resnet can't go on: one reason; peer wide can't go on: another reason"


def test_a_silent_run_is_ended(scene):
    launcher = Launcher(resnet=[[None, scene.put_forward(51.0), None]], wide=[[None]])
    message = scene.fail(launcher)
    said = "peer resnet, wide said nothing for 50 s (recovery.silence_s) and was ended"
    assert said in message
    for peer in (ADA, BOB):
        assert scene.kinds(peer) == ["peer_started", "peer_lost"]
    assert_gone(launcher)


def test_a_run_is_not_silent_while_one_peer_reports(scene):
    clients = []

    def report(step):
        def word():
            scene.clock.offset_s += 30.0
            if not clients:
                assignment = launcher.started[0][2]
                connection = Connection(
                    address=assignment.address,
                    credential=assignment.credential,
                    wire=WireFormat(16),
                    answer_within_s=5.0,
                    reconnect_s=1.0,
                )
                clients.append(GrpcLink(ADA, assignment.run_id, connection))
                clients[0].join(scene.run_.agreement)
            clients[0].report(
                [StepReport(ADA, step // 2 + 1, step, 1.0, 1.0, 1, 1.0, 1.0, 1.0, 1, 1)], [], None
            )

        return word

    launcher = Launcher(
        resnet=[[*(report(step) for step in range(6)), FINISHED]], wide=[[None] * 6 + [FINISHED]]
    )
    try:
        scene.supervise(launcher)
    finally:
        for client in clients:
            client.close()
    assert launcher.starts(BOB) == [0]


def test_a_stop_of_the_users_ends_the_run_well(scene):
    scene.is_stop_requested = True
    launcher = Launcher(resnet=[scene.until_stopped()], wide=[scene.until_stopped()])
    scene.supervise(launcher)
    assert [event.message for event in scene.sink.events("stopped")] == ["stopped by the user"]


def test_who_does_not_stop_in_time_is_ended(scene):
    scene.is_stop_requested = True
    almost = scene.put_forward(36.0)
    launcher = Launcher(
        resnet=[[None, almost, *[None] * 20, scene.put_forward(2.0), None]],
        wide=[[*[None] * 15, STOPPED]],
    )
    assert scene.fail(launcher) == "peer resnet did not stop within 37 s and was ended"
    assert launcher.handles[1]._script == [STOPPED], "the grace was not cut short"
    assert_gone(launcher)


def test_who_dies_while_the_run_stops_is_not_started_again_and_is_no_failure(scene):
    scene.is_stop_requested = True
    launcher = Launcher(resnet=[[None, None, "died of SIGTERM"]], wide=[scene.until_stopped()])
    scene.supervise(launcher)
    assert launcher.starts(ADA) == [0]


def test_no_room_for_the_second_peer_ends_the_first(scene):
    launcher = Launcher(resnet=[[None]], wide=[StartError("2 GPUs asked for, 1 there")])
    with pytest.raises(StartError, match="2 GPUs asked for"):
        scene.supervise(launcher)
    assert_gone(launcher)


def test_an_interrupt_ends_everybody(scene):
    def interrupt():
        raise KeyboardInterrupt

    launcher = Launcher(resnet=[[None]], wide=[[None, interrupt]])
    with pytest.raises(KeyboardInterrupt):
        scene.supervise(launcher)
    assert_gone(launcher)


def test_one_process_that_can_not_be_ended_does_not_save_the_others(scene):
    """Else peers and service would outlive the run."""
    launcher = Launcher(resnet=[[FINISHED]], wide=[[FINISHED]])
    plain_kill = Handle.kill

    def stuck(handle):
        plain_kill(handle)
        if handle is launcher.handles[0]:
            raise TimeoutError("process 7 does not end")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handle, "kill", stuck)
        with pytest.raises(TimeoutError, match="process 7"):
            scene.supervise(launcher)
    assert_gone(launcher)
