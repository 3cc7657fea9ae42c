"""A site's peer process: who may call it, and that it comes back, ends well, and ends with its watcher."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.flower.site.address import METHOD, SiteAddress, make_token, read_token
from clients.flower.site.carrier import SiteCarrier
from clients.flower.site.options import SiteOptions
from clients.flower.site.server import SiteServer
from clients.flower.site.watcher import EXIT_FAILED, watch
from dogo_fed.errors import ConfigError, ExchangeError, ExchangeTimeout, Refused
from tests.support.command_line import REPOSITORY, environment
from tests.support.ports import free_port
from tests.support.run_watch import kill, wait_until_gone
from tests.support.unfinished_calls import ended_calls

WATCH = (
    "import sys; from clients.flower.site.watcher import watch; "
    "sys.exit(watch(sys.argv[1:], ('-m', 'tests.support.echo_worker')))"
)
REPLY_WITHIN_S = 10.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "site"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def address(folder: Path) -> SiteAddress:
    return SiteAddress.parse(f"unix:{folder}/peer.sock")


@contextmanager
def server(listen: SiteAddress, token: str | None = None, limit: int = 10_000) -> Iterator[None]:
    """An echoing server in this process."""
    running = SiteServer(listen, bytes.upper, token=token, max_message_bytes=limit)
    try:
        yield
    finally:
        running.stop()


class Watched:
    """A watching process and its worker, in processes of their own."""

    def __init__(self, listen: SiteAddress, folder: Path, *more: str) -> None:
        self.carrier = SiteCarrier(listen)
        self.notes = folder / "notes"
        self.process = subprocess.Popen(
            [sys.executable, "-c", WATCH, f"listen={listen}", *more],
            cwd=REPOSITORY,
            env={**environment(), "DOGO_TEST_NOTES": str(self.notes)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def worker(self) -> int:
        """Returns the worker's process id, as soon as it answers."""
        return int(self.carrier.forward(b"", REPLY_WITHIN_S))

    def output(self) -> str:
        """Waits for the end and returns what was written."""
        _, errors = self.process.communicate(timeout=30)
        return errors


@contextmanager
def watched(listen: SiteAddress, folder: Path, *more: str) -> Iterator[Watched]:
    started, workers = Watched(listen, folder, *more), []
    try:
        yield started
    finally:
        children = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children")
        if children.exists():
            workers = [int(pid) for pid in children.read_text().split()]
        started.process.kill()
        started.process.communicate(timeout=10)
        for pid in workers:
            kill(pid)


def test_bytes_there_and_back_over_a_socket_of_the_owner(address: SiteAddress) -> None:
    assert address.path is not None
    with server(address):
        assert stat.S_IMODE(address.path.stat().st_mode) == 0o600
        assert SiteCarrier(address).forward(b"start", REPLY_WITHIN_S) == b"START"
        with pytest.raises(ExchangeError, match="max_message_bytes"):
            SiteCarrier(address).forward(b"x" * 20_000, REPLY_WITHIN_S)


def test_a_missing_folder_is_made_for_the_owner_only(tmp_path: Path) -> None:
    with server(SiteAddress(path=tmp_path / "new" / "peer.sock")):
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700


def test_a_folder_that_others_may_write_to_is_refused(address: SiteAddress, folder: Path) -> None:
    folder.chmod(0o777)
    with pytest.raises(ConfigError, match="chmod 700"), server(address):
        pass


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(address: SiteAddress) -> None:
    assert address.path is not None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(address.path))
    with server(address):
        assert SiteCarrier(address).forward(b"a", REPLY_WITHIN_S) == b"A"
        with pytest.raises(ConfigError, match="already"), server(address):
            pass
        assert SiteCarrier(address).forward(b"still", REPLY_WITHIN_S) == b"STILL"


def test_a_file_in_the_way_is_left_alone(address: SiteAddress) -> None:
    assert address.path is not None
    address.path.write_text("precious")
    with pytest.raises(ConfigError, match="in the way"), server(address):
        pass
    assert address.path.read_text() == "precious"


def test_a_port_that_is_taken_is_refused() -> None:
    listen = SiteAddress(port=free_port())
    with (
        server(listen, token="t" * 32),
        pytest.raises(ConfigError, match="already"),
        server(listen, token="t" * 32),
    ):
        pass


def test_the_token_decides_who_may_call(tmp_path: Path) -> None:
    listen, token = SiteAddress(port=free_port()), make_token(tmp_path / "token")
    node_config = {"peer-address": str(listen), "peer-token-file": str(tmp_path / "token")}
    with server(listen, token):
        carrier = SiteCarrier.from_node_config(node_config)
        assert carrier.forward(b"a", REPLY_WITHIN_S) == b"A"
        for wrong in (None, "x" * 64):
            with pytest.raises(Refused, match="peer-token-file"):
                SiteCarrier(listen, wrong).forward(b"a", REPLY_WITHIN_S)


def test_who_never_finishes_a_message_and_has_no_token_keeps_nobody_out(tmp_path: Path) -> None:
    """All threads would wait for such messages, if they waited for messages at all."""
    listen, token = SiteAddress(port=free_port()), make_token(tmp_path / "token")
    assert listen.port is not None
    with (
        server(listen, token),
        socket.create_connection(("127.0.0.1", listen.port), timeout=5) as line,
    ):
        assert ended_calls(line, METHOD, 8, 9000) == 8
        assert SiteCarrier(listen, token).forward(b"a", REPLY_WITHIN_S) == b"A"


def test_a_token_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = make_token(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert make_token(path) == token == read_token(path)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        make_token(path)
    path.chmod(0o600)
    path.write_text("short")
    with pytest.raises(ConfigError, match="shorter"):
        read_token(path)


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("0.0.0.0:9000", "127.0.0.1 only"),
        ("192.0.2.1:9000", "127.0.0.1 only"),
        ("localhost:9000", "127.0.0.1 only"),
        (":9000", "127.0.0.1 only"),
        ("127.0.0.1:0", "no address"),
        ("127.0.0.1", "no address"),
        ("unix:peer.sock", "absolute"),
        (f"unix:/{'x' * 120}", "longer"),
    ],
)
def test_other_addresses_are_refused(listen: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SiteAddress.parse(listen)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "listen="),
        (("listen=127.0.0.1:9000",), "token_file="),
        (("listen=unix:/x/peer.sock", "--cfg"), "--help"),
        (("listen=unix:/x/peer.sock", "root_certificates=/no/such/file"), "root_certificates"),
        (("listen=unix:/x/peer.sock", "max_message_bytes=many"), "max_message_bytes"),
    ],
)
def test_an_impossible_command_line_is_refused(arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SiteOptions.parse(arguments)


def test_what_is_not_an_option_is_a_setting_of_the_site(tmp_path: Path) -> None:
    certificates = tmp_path / "ca.pem"
    certificates.write_text("-----BEGIN CERTIFICATE-----\n")
    options = SiteOptions.parse(
        ["listen=unix:/x/peer.sock", f"root_certificates={certificates}", "peers=trio", "seed=3"]
    )
    assert options.overrides == ("peers=trio", "seed=3")
    assert options.root_certificates == certificates.read_bytes()


def test_a_node_that_names_no_address_is_told_how() -> None:
    with pytest.raises(ConfigError, match="--node-config 'peer-address="):
        SiteCarrier.from_node_config({"partition-id": 0})


def test_nobody_there_names_the_address_and_the_command(address: SiteAddress) -> None:
    with pytest.raises(ExchangeTimeout, match=f"dogo-fed peer listen=unix:{address.path}"):
        SiteCarrier(address).forward(b"a", 0.3)


def test_a_frozen_process_is_not_waited_for_for_ever(address: SiteAddress) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(address.path))
        silent.listen()
        with pytest.raises(ExchangeTimeout, match=str(address)):
            SiteCarrier(address).forward(b"a", 0.3)


def test_a_worker_that_dies_is_started_again_and_answers(
    address: SiteAddress, folder: Path
) -> None:
    with watched(address, folder) as site:
        first = site.worker()
        kill(first)
        second = site.worker()
        with pytest.raises(ExchangeError, match="ended before"):
            site.carrier.forward(b"die", REPLY_WITHIN_S)
        third = site.worker()
        with pytest.raises(ExchangeError, match="ValueError: told to fail"):
            site.carrier.forward(b"fail", REPLY_WITHIN_S)
        assert site.worker() == third
        assert len({first, second, third}) == 3
        site.process.send_signal(signal.SIGTERM)
        output = site.output()
    assert site.process.returncode == 0
    assert site.notes.read_text() == f"closed {third}"
    assert wait_until_gone([third], within_s=5) == []
    assert "status -9" in output and "status 7" in output, output


def test_ctrl_c_ends_both_and_the_next_start_finds_the_way_free(
    address: SiteAddress, folder: Path
) -> None:
    for _ in range(2):
        with watched(address, folder) as site:
            worker = site.worker()
            site.process.send_signal(signal.SIGINT)
            output = site.output()
        assert site.process.returncode == 0
        assert site.notes.read_text() == f"closed {worker}"
        assert "Traceback" not in output


def test_a_server_that_ends_turns_calls_away_and_keeps_its_address(address: SiteAddress) -> None:
    ending = SiteServer(address, bytes.upper, token=None, max_message_bytes=100)
    ending.refuse()
    with pytest.raises(ExchangeError, match="just ending"):
        SiteCarrier(address).forward(b"a", REPLY_WITHIN_S)
    with pytest.raises(ConfigError, match="already"), server(address):
        pass
    ending.stop()
    with server(address):
        assert SiteCarrier(address).forward(b"a", REPLY_WITHIN_S) == b"A"


def test_a_worker_whose_watcher_is_gone_ends_well(address: SiteAddress, folder: Path) -> None:
    with watched(address, folder) as site:
        worker = site.worker()
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait(timeout=10)
        assert wait_until_gone([worker], within_s=10) == []
        assert site.notes.read_text() == f"closed {worker}"


def test_a_worker_that_keeps_dying_is_given_up(
    address: SiteAddress,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("clients.flower.site.watcher._FIRST_PAUSE_S", 0.01)
    monkeypatch.chdir(REPOSITORY)
    worker = ("-c", "import sys; sys.exit(9)")
    assert watch([f"listen={address}"], worker) == EXIT_FAILED
    errors = capfd.readouterr().err
    assert "5 times" in errors and "status 9" in errors


def test_an_unusable_site_is_not_tried_again(address: SiteAddress, folder: Path) -> None:
    with server(address), watched(address, folder) as site:
        output = site.output()
    assert site.process.returncode == 2
    assert output.count("another process listens") == 1


def test_the_watching_process_is_light() -> None:
    code = (
        "import sys, clients.flower.site.watcher, clients.flower.site.carrier; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'flwr', 'ray', 'hydra')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=30).returncode == 0
