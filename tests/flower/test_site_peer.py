"""A site's peer process: that it comes back, ends well, and ends with its watcher."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients.flower.site.address import SiteAddress
from clients.flower.site.carrier import SiteCarrier
from clients.flower.site.watcher import watch
from dogo_fed.errors import ExchangeError
from dogo_fed.exit_status import EXIT_FAILED
from tests.support.command_line import REPOSITORY, environment
from tests.support.echoing_site import server
from tests.support.run_watch import kill, wait_until_gone

WATCH = (
    "import sys; from clients.flower.site.watcher import watch; "
    "sys.exit(watch(sys.argv[1:], ('-m', 'tests.support.echo_worker')))"
)
REPLY_WITHIN_S = 10.0


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
    assert wait_until_gone([third]) == []
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


def test_a_worker_whose_watcher_is_gone_ends_well(address: SiteAddress, folder: Path) -> None:
    with watched(address, folder) as site:
        worker = site.worker()
        os.kill(site.process.pid, signal.SIGKILL)
        site.process.wait(timeout=10)
        assert wait_until_gone([worker]) == []
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
