"""The life of a coordinator: started by itself, written, read back, and gone on with under living peers."""

from __future__ import annotations

import dataclasses
import json
import stat
import threading
from pathlib import Path

import numpy as np
import pytest

from clients.peer.grpc_link import Connection, GrpcLink
from dogo_fed.config import Encoding
from dogo_fed.contracts import EventKind, PeerId, RoundReport, StepReport, TeacherSignal
from dogo_fed.coordination.state import Membership
from dogo_fed.errors import CheckpointError, StaleTicket
from dogo_fed.reporting.sink import TeeSink
from dogo_fed.wire.format import WireFormat
from server.coordinator.host import CoordinatorHost
from server.coordinator.service import ServiceSettings
from server.coordinator.state_file import read_state
from tests.support.distributions import (
    ADA,
    AGREEMENT,
    BOB,
    RUN_ID,
    SIZE,
    KeepingSink,
    both_ways,
    seed_of,
    settings,
    ticket,
)

WIRE = WireFormat(SIZE, is_symmetric=True)


def new_host(sink=None, **changes) -> CoordinatorHost:
    service = ServiceSettings(address="127.0.0.1", port=0, answer_within_s=20.0)
    return CoordinatorHost(settings((ADA, BOB), **changes), WIRE, service, sink or TeeSink())


def read_host(path: Path, sink=None, **changes) -> CoordinatorHost:
    return CoordinatorHost.read(
        path, settings((ADA, BOB), **changes), WIRE, sink or TeeSink(), answer_within_s=20.0
    )


def link_to(host: CoordinatorHost, peer: PeerId) -> GrpcLink:
    connection = Connection(
        address=host.address,
        credential=host.credential_of(peer),
        wire=WIRE,
        answer_within_s=10.0,
        reconnect_s=20.0,
    )
    return GrpcLink(peer, RUN_ID, connection)


def joined(host: CoordinatorHost) -> dict[PeerId, GrpcLink]:
    links = {peer: link_to(host, peer) for peer in (ADA, BOB)}
    for link in links.values():
        link.join(AGREEMENT)
    return links


def swap(links: dict[PeerId, GrpcLink], step: int) -> dict[PeerId, TeacherSignal]:
    for peer, link in links.items():
        link.publish(ticket(step), both_ways(seed_of(peer, step)))
    return {peer: link.collect(ticket(step)) for peer, link in links.items()}


def bits(signal: TeacherSignal) -> tuple[object, ...]:
    assert signal.mean_NN is not None and signal.reverse is not None
    return (
        signal.mean_NN.tobytes(),
        signal.reverse.p_NN.tobytes(),
        signal.negative_entropy,
        signal.teachers,
        signal.next_step,
        signal.stop,
    )


def test_it_can_be_started_by_itself() -> None:
    with new_host() as host:
        assert host.address.startswith("127.0.0.1:") and len(host.secret) == 64
        links = joined(host)
        assert swap(links, 0)[ADA].teachers == (BOB,)
        assert host.has_joined(ADA) and host.ask(lambda one: one.next_step) == 1
        for link in links.values():
            link.close()


def test_who_says_that_it_evaluates_has_given_a_sign_of_life() -> None:
    """Else the supervisor would end a run whose peers evaluate for longer than recovery.silence_s."""
    with new_host() as host:
        links = joined(host)
        before_s = host.last_report_s
        links[ADA].report([], [], None, is_evaluating=True)
        assert host.last_report_s > before_s
        for link in links.values():
            link.close()


def test_two_hosts_never_share_a_secret() -> None:
    assert new_host().secret != new_host().secret


def test_living_peers_go_on_with_a_coordinator_that_was_read_back(tmp_path: Path) -> None:
    """Killed between two steps: same address, same secret, nobody joins again, and no bit differs."""
    path, expected = tmp_path / "coordinator.state", {}
    with new_host() as host:
        links = joined(host)
        for step in range(3):
            expected[step] = swap(links, step)
        for link in links.values():
            link.close()
    with new_host() as first:
        links = joined(first)
        swap(links, 0)
        first.write(path)
        address, secret = first.address, first.secret
    with read_host(path) as second:
        assert (second.address, second.secret) == (address, secret)
        for step in (1, 2):
            found = swap(links, step)
            assert {peer: bits(one) for peer, one in found.items()} == {
                peer: bits(one) for peer, one in expected[step].items()
            }
        for link in links.values():
            link.close()


def test_a_peer_that_waits_in_an_open_step_is_answered_by_the_next_coordinator(
    tmp_path: Path,
) -> None:
    path, found = tmp_path / "coordinator.state", {}
    with new_host() as first:
        links = joined(first)
        links[ADA].publish(ticket(0), both_ways(seed_of(ADA, 0)))
        waiting = threading.Thread(
            target=lambda: found.setdefault(ADA, links[ADA].collect(ticket(0)))
        )
        waiting.start()
        while not first.ask(lambda one: one.snapshot(0.0).meetings):
            pass
        first.write(path)
    with read_host(path) as second:
        assert second.ask(lambda one: one.next_open_step) == 0
        links[BOB].publish(ticket(0), both_ways(seed_of(BOB, 0)))
        found[BOB] = links[BOB].collect(ticket(0))
        waiting.join(20.0)
        for link in links.values():
            link.close()
    assert np.array_equal(found[ADA].mean_NN, both_ways(seed_of(BOB, 0)).p_NN)
    assert np.array_equal(found[BOB].mean_NN, both_ways(seed_of(ADA, 0)).p_NN)


def test_an_answer_that_got_lost_is_given_again_by_the_next_coordinator(tmp_path: Path) -> None:
    """The step has closed and one peer has not heard: it asks again, and hears the same."""
    path = tmp_path / "coordinator.state"
    with new_host() as first:
        links = joined(first)
        heard = swap(links, 0)[ADA]
        first.write(path)
    with read_host(path) as second:
        links[ADA].publish(ticket(0), both_ways(seed_of(ADA, 0)))
        assert bits(links[ADA].collect(ticket(0))) == bits(heard)
        with pytest.raises(StaleTicket, match="another distribution"):
            links[ADA].publish(ticket(0), both_ways(1))
            links[ADA].collect(ticket(0))
        assert second.ask(lambda one: one.next_open_step) == 1
        for link in links.values():
            link.close()


def step_report(step: int) -> StepReport:
    return StepReport(ADA, 1, step, 1.0, 1.0, 1, 1.0, 1.0, 1.0, 1, 1)


def test_a_report_that_is_repeated_to_the_next_coordinator_is_counted_once(tmp_path: Path) -> None:
    path, sink = tmp_path / "coordinator.state", KeepingSink()
    reports = ([step_report(0), step_report(1)], [RoundReport(ADA, 0, 2, 0.5, 1.0)], None)
    with new_host(sink) as first:
        links = joined(first)
        links[ADA].report(*reports)
        first.write(path)
    with read_host(path, sink) as second:
        links[ADA].report(*reports)
        links[ADA].report([step_report(2)], [], None)
        assert second.last_report_s > 0
        for link in links.values():
            link.close()
    steps = [one.step for one in sink.records if isinstance(one, StepReport)]
    assert steps == [0, 1, 2]
    assert sum(isinstance(one, RoundReport) for one in sink.records) == 1


def test_who_is_lost_and_that_the_run_stops_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "coordinator.state"
    with new_host() as first:
        links = joined(first)
        first.lose(BOB, "died")
        first.request_stop("enough")
        first.write(path)
    with read_host(path) as second:
        assert second.ask(lambda one: one.membership(BOB)) is Membership.LOST
        links[ADA].publish(ticket(0), both_ways(0))
        assert links[ADA].collect(ticket(0)).stop
        for link in links.values():
            link.close()


# ---- the file ----


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with new_host() as host:
        links = joined(host)
        swap(links, 0)
        host.write(tmp_path / "coordinator.state")
        for link in links.values():
            link.close()
    return tmp_path / "coordinator.state"


def test_only_its_owner_may_read_it_and_it_is_read_as_it_was_written(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == [path.name], (
        "nothing half-written is left"
    )
    state = read_state(path, WIRE)
    assert [one.step for one in state.coordinator.meetings] == [0]
    given = state.coordinator.meetings[0].contributions[BOB]
    sent = both_ways(seed_of(BOB, 0))
    assert given.p_NN.tobytes() == sent.p_NN.tobytes()
    assert given.reverse.p_NN.tobytes() == sent.reverse.p_NN.tobytes()


def test_the_names_of_a_member_in_the_file_stay_what_they_are(path: Path) -> None:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    members = json.loads(header["__metadata__"]["dogo_fed"])["members"]
    assert set(members) == {ADA, BOB} and members[ADA]["membership"] == "present"
    assert set(members[ADA]) == {"membership", "incarnation", "next_step", "first_joined_s"}


@pytest.mark.parametrize("keep", [0, 5, 200, -1])
def test_a_torn_file_is_refused(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"coordinator\.state"):
        read_host(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format_version": 99}, "format version 99"),
        ({"meetings": [{"step": 0}]}, "is no state of a coordinator"),
        ({"members": {"ada": {"membership": "king"}}}, "is no state of a coordinator"),
        ({"members": []}, "is no state of a coordinator"),
        ({"reported": {"last_step": 3}}, "is no state of a coordinator"),
    ],
)
def test_a_file_that_says_something_else_is_refused(path: Path, changes, said) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    inner = json.loads(header["__metadata__"]["dogo_fed"])
    header["__metadata__"]["dogo_fed"] = json.dumps({**inner, **changes})
    written = json.dumps(header).encode()
    path.write_bytes(len(written).to_bytes(8, "little") + written + content[8 + length :])
    with pytest.raises(CheckpointError, match=said):
        read_host(path)


def test_a_matrix_in_the_file_that_is_no_distribution_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32(7.0).tobytes()
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is no state of a coordinator"):
        read_host(path)


@pytest.mark.parametrize(
    ("wire", "said"),
    [
        (WireFormat(SIZE), "both view directions; this run exchanges one view direction"),
        (WireFormat(SIZE + 1, is_symmetric=True), rf"the batch size is {SIZE + 1}"),
    ],
)
def test_matrices_in_the_file_of_another_form_than_the_run_s_are_refused(path, wire, said) -> None:
    with pytest.raises(CheckpointError, match=said):
        read_state(path, wire)


def test_a_row_in_the_file_is_as_exact_as_the_run_s_encoding(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-4:] = (np.frombuffer(content[-4:], "<f4") + np.float32(0.0015)).tobytes()
    path.write_bytes(content)
    rounded = dataclasses.replace(WIRE, encoding=Encoding.FLOAT16)
    assert read_state(path, rounded).coordinator.meetings
    with pytest.raises(CheckpointError, match=r"rows must sum to 1 within 0\.001"):
        read_state(path, WIRE)


def test_the_state_of_another_run_or_of_other_peers_is_refused(path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="peers ada, bob, not of run 'run-1' with peers ada, cat"
    ):
        CoordinatorHost.read(
            path,
            settings((ADA, PeerId("cat"))),
            WIRE,
            TeeSink(),
            answer_within_s=1.0,
        )


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can't be read"):
        read_host(tmp_path / "nothing")


# ---- what is written ----


class HeldSink(KeepingSink):
    """A disk that takes nothing for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def emit(self, record) -> None:
        assert self.go.wait(20)
        super().emit(record)


def test_a_slow_disk_holds_up_the_report_and_nobody_s_exchange() -> None:
    sink = HeldSink()
    with new_host(sink) as host:
        links = joined(host)
        other = link_to(host, ADA)
        other._sender.CopyFrom(links[ADA]._sender)
        reporting = threading.Thread(target=other.report, args=([step_report(0)], [], None))
        reporting.start()
        host.note(EventKind.PEER_STARTED, "happened", None)
        for step in range(3):
            swap(links, step)
        assert reporting.is_alive(), "answered only when it is written"
        sink.go.set()
        reporting.join(20)
        assert not reporting.is_alive()
        assert step_report(0) in sink.records
        for link in links.values():
            link.close()


def test_what_was_reported_is_written_before_the_host_is_left() -> None:
    sink = KeepingSink()
    with new_host(sink) as host:
        for number in range(50):
            host.note(EventKind.PEER_STARTED, str(number), None)
    assert [one.message for one in sink.events("peer_started")] == [str(n) for n in range(50)]
