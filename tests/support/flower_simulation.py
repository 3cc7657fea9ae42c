"""Flower's simulation as users start it: by the wrapper, or by `flwr run` with Flower's own daemon."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.command_line import REPOSITORY, environment
from tests.support.run_watch import events, records

DAEMON = ("flower-superlink", "flower-superexec")
"""Words of the command lines of what `flwr run` leaves running on purpose."""

_APP = ("dogo_fed", "server", "clients", "configs", "pyproject.toml", "README.md", "LICENSE")
_BIN = Path(sys.executable).parent
_CLI_WITHIN_S = 240.0
_MAX_ATTEMPTS = 3
_STEP_WITHIN_S = 300.0
_ASK_EVERY_S = 1.0
_LOOK_EVERY_S = 0.1
_SETTINGS = {
    "COLUMNS": "200",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "NO_COLOR": "1",
}


def copy_app(folder: Path) -> Path:
    """Returns a copy of the app in this folder: all processes of a test see the files of one moment."""
    folder.mkdir(parents=True)
    for name in _APP:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


@dataclass(frozen=True)
class Place:
    """Where a peer lived."""

    pid: int
    gpu: str


def placements(run_dir: Path) -> dict[str, Place]:
    """Returns where each peer lived last."""
    found = {}
    for event in events(run_dir, "peer_placed"):
        match = re.search(r"process (\d+) GPU (\S+)", event["message"])
        assert match, event
        found[event["peer"]] = Place(int(match[1]), match[2])
    return found


def checkpoints(run_dir: Path, peer: str) -> list[int]:
    """Returns the steps of which a peer has checkpoints."""
    folder = run_dir / "peers" / peer / "checkpoints"
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.iterdir())


def wait_for_step(run_dir: Path, step: int, has_ended: Callable[[], bool]) -> None:
    """Returns when some peer has reported this step; fails where the run ends before, or takes too long."""
    deadline_s = time.monotonic() + _STEP_WITHIN_S
    ask_s = 0.0
    while not any(one["type"] == "step" and one["step"] >= step for one in records(run_dir)):
        now_s = time.monotonic()
        assert now_s < deadline_s, f"no step {step} within {_STEP_WITHIN_S} s"
        if now_s - ask_s > _ASK_EVERY_S:
            assert not has_ended(), f"the run ended before step {step}"
            ask_s = time.monotonic()
        time.sleep(_LOOK_EVERY_S)


def listen_somewhere() -> socket.socket:
    """Returns a socket that has a port of 127.0.0.1 for itself; whoever calls there waits."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    taken.setblocking(False)
    return taken


def was_called(taken: socket.socket) -> bool:
    """Whether somebody has connected to the socket."""
    try:
        taken.accept()[0].close()
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Ended:
    """How Flower says that a run ended, and why."""

    status: str
    details: str


class LocalFlower:
    """`flwr` with a home and a port of its own. The first run starts a daemon, which stays."""

    def __init__(self, home: Path, cwd: Path) -> None:
        """Starts nothing.

        Args:
            home: what Flower keeps goes here.
            cwd: where the user is, unless a call says otherwise.
        """
        home.mkdir(parents=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        path = f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}"
        settings = {"FLWR_HOME": str(home), "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": port}
        self._environment = {**environment(), **_SETTINGS, **settings, "PATH": path}
        self._environment.pop("RAY_ADDRESS", None)
        self._cwd = cwd
        self.home = home

    def flwr(self, *arguments: str, cwd: Path | None = None, expect: int = 0) -> str:
        """Runs `flwr ...` to its end and returns what it printed."""
        for _ in range(_MAX_ATTEMPTS):
            finished = subprocess.run(
                [str(_BIN / "flwr"), *arguments],
                cwd=cwd or self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_CLI_WITHIN_S,
                check=False,
            )
            said = finished.stdout + finished.stderr
            if "Failed to start local SuperLink within" not in said:
                break  # else this machine is too busy for Flower's 15 s
        assert finished.returncode == expect, f"flwr {arguments}:\n{said}"
        return finished.stdout

    def submit(
        self,
        app: Path | str,
        run_dir: Path,
        *settings: str,
        federation: str = "",
        cwd: Path | None = None,
    ) -> str:
        """Submits a run by `flwr run` and returns its id."""
        config = (
            f"run-dir={json.dumps(str(run_dir))} hydra-overrides={json.dumps(' '.join(settings))}"
        )
        size = ["--federation-config", federation] if federation else []
        said = self.flwr("run", str(app), "--run-config", config, *size, "--format=json", cwd=cwd)
        return str(_answer(said)["run-id"])

    def look(self, run_id: str) -> Ended:
        """Returns what Flower says about a run."""
        (run,) = _answer(self.flwr("ls", "--run-id", run_id, "--format=json"))["runs"]
        return Ended(str(run["status"]), str(run["status-details"]))

    def wait(self, run_id: str, within_s: float) -> Ended:
        """Returns how a run ended.

        Raises:
            AssertionError: it goes on for longer than `within_s`.
        """
        deadline_s = time.monotonic() + within_s
        while True:
            asked_at_s = time.monotonic()
            if (seen := self.look(run_id)).status.startswith("finished"):
                return seen
            now_s = time.monotonic()
            assert now_s < deadline_s, f"still {seen}:\n{self.log()}"
            # a look costs seconds of a core, which the run needs
            time.sleep(max(_ASK_EVERY_S, 2 * (now_s - asked_at_s)))

    def finish(self, run_id: str, within_s: float) -> None:
        """Waits for the end of a run, which must be a good one."""
        ended = self.wait(run_id, within_s)
        assert ended.status == "finished:completed", f"{ended}\n{self.log(run_id)}"

    def wait_for_step(self, run_id: str, run_dir: Path, step: int) -> None:
        """Returns when some peer has reported this step."""
        wait_for_step(run_dir, step, lambda: self.look(run_id).status.startswith("finished"))

    def log(self, run_id: str | None = None) -> str:
        """Returns the log of a run, or the daemon's."""
        if run_id is not None:
            return self.flwr("log", run_id, "--show")
        path = self.home / "local-superlink" / "superlink.log"
        return path.read_text(errors="replace")[-8000:] if path.exists() else "no daemon's log"


def _answer(said: str) -> dict[str, Any]:
    """Returns the JSON in what a command printed, which may say things before it."""
    answer: dict[str, Any] = json.loads(said[said.index("{") :])
    assert answer["success"], answer
    return answer
