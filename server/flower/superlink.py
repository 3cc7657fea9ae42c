"""`flwr run` with a SuperLink of our own, which is asked how the run ended."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dogo_fed.errors import PlacementError
from server.process_tree import OwnProcesses

CONNECTION = "own"
"""Name of the connection in our config.toml."""

_RAY_NOT_STARTED = "The current node timed out during startup"
"""What Ray says where the machine was too busy to start it; a second attempt mostly works."""

_START_S = 120.0
_COMMAND_S = 60.0
_SUBMIT_S = 180.0
_SETTLE_S = 60.0
_LAST_WORDS_S = 5.0
_LOOK_EVERY_S = 0.1
_ASK_EVERY_S = 1.0
_MAX_ATTACHED = 5
_KEPT_LINES = 300
_SHOWN_LINES = 10

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_RUN_ID = re.compile(r"Successfully started run (\d+)")
_RAISED = re.compile(r"^[\w.]*(?:Error|Exception|Interrupt|Exit)\b: (?P<message>.+)")
_FLOWERS_WORDS = re.compile(
    r"^(Simulation|ServerApp) failed with exception: |^Task failed with unknown error\.$|"
    r"^An error was encountered\. Ending simulation\.$|^Simulation Runtime crashed\.$"
)
_NOISE = re.compile(
    r"Flower App configuration warnings|- Recommended property|Using SuperLink:|[│╭╰]|"
    r"Successfully (started run|installed)|"
    r".*FutureWarning: Tip: In future versions of Ray|\s*warnings\.warn\($|"
    r"((\([^)]*\) )?(INFO|WARNING) *: *"
    r"(Starting logstream|Exiting logstream|Starting Flower Simulation|Since flwr 1\.32|Federation `|"
    r"To change federation size|\s*flwr federation simulation-config|"
    r"Manually terminating ClientAppActor|$))"
)


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What a SuperLink says about a run.

    Attributes:
        state: e.g. "running", "finished:completed".
        details: why, in one line; empty if there is nothing to say.
    """

    state: str
    details: str = ""

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will come."""
        return self.state.startswith("finished:")


FAILED = "finished:failed"
STOPPED = "finished:stopped"
COMPLETED = "finished:completed"


class LogStream:
    """Shows what a `flwr` command writes, line by line, less what only Flower's developers need."""

    def __init__(
        self, process: subprocess.Popen[bytes], show: Callable[[str], None], skip: int = 0
    ) -> None:
        """Starts to read.

        Args:
            process: its standard output is read to the end.
            show: takes each line, without its end.
            skip: so many of the run's lines have been shown before.
        """
        assert process.stdout is not None, "the process was given a pipe"
        self.process = process
        self.run_id: str | None = None
        self.kept: deque[str] = deque(maxlen=_KEPT_LINES)
        self.num_lines = 0
        self._in_log = False
        self._skip = skip
        self._show = show
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    @property
    def is_open(self) -> bool:
        """Whether more may come."""
        return self._reader.is_alive()

    def wait(self, seconds: float) -> None:
        """Waits for its end, but not for longer."""
        self._reader.join(seconds)

    def take(self, line: str) -> None:
        """Looks at one line of output, and shows it if it is the app's own."""
        plain = _COLOUR.sub("", line).rstrip()
        self.kept.append(plain)
        if self.run_id is None and (found := _RUN_ID.search(plain)):
            self.run_id = found[1]
        if self._in_log:
            self.num_lines += 1
            if self.num_lines > self._skip and not _NOISE.match(plain):
                self._show(plain)
        self._in_log = self._in_log or "Starting logstream" in plain

    def _read(self, output: IO[bytes]) -> None:
        with output:
            for line in output:
                self.take(line.decode(errors="replace"))


class OwnSuperLink:
    """A SuperLink for one run, on a free port of the loopback interface; needs to be ended by its owner."""

    def __init__(self, home: Path, environment: Mapping[str, str], processes: OwnProcesses) -> None:
        """Starts it and waits until it answers.

        Args:
            home: an empty folder for its files.
            environment: of all processes; FLWR_HOME is added.
            processes: starts and knows them.

        Raises:
            PlacementError: it does not start.
        """
        self._home = home
        self._environment = {**environment, "FLWR_HOME": str(home)}
        self._processes = processes
        self._port = _free_port()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "127.0.0.1:{self._port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        self._output = home / "output.log"
        with self._output.open("wb") as output:
            self._process = processes.start(
                [
                    _script("flower-superlink"), "--insecure", "--simulation",
                    "--isolation", "subprocess",
                    "--host", "127.0.0.1", "--port", str(self._port),
                    "--database", str(home / "state.db"),
                ],
                self._environment,
                output,
            )  # fmt: skip
        self._wait_until_it_answers()

    def death(self) -> str | None:
        """Returns how its process ended; None while it lives."""
        status = self._process.poll()
        if status is None:
            return None
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"exited with {status}"
        return f"Flower's SuperLink {how}"

    def run(
        self, app: Path, run_config: Path, federation: str, show: Callable[[str], None]
    ) -> LogStream:
        """Submits the app in this folder and follows its log."""
        return self._follow(
            [
                "run", str(app), CONNECTION, "--stream",
                "--run-config", str(run_config), "--federation-config", federation,
            ],
            show,
        )  # fmt: skip

    def follow(self, run_id: str, show: Callable[[str], None], skip: int) -> LogStream:
        """Follows the log of a running app again, after so many lines."""
        return self._follow(["log", run_id, CONNECTION, "--stream"], show, skip)

    def status(self, run_id: str) -> RunStatus | None:
        """Asks what became of a run; None if there is no answer."""
        answer = self._ask("ls", CONNECTION, "--run-id", run_id, "--format", "json")
        return None if answer is None else parse_status(answer)

    def interrupt(self, run_id: str) -> None:
        """Tells a run to end as Ctrl-C would: its app may save what it has.

        `flwr stop` comes to the same, but the app's process learns of it by its next heartbeat, up to
        half a minute later, and its log is cut off at once.
        """
        apps = self.apps()
        for pid in apps:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)
        if not apps:
            self._ask("stop", run_id, CONNECTION)

    def apps(self) -> list[int]:
        """Returns the processes of running apps: started by the SuperExec that the SuperLink started."""
        executors = self._processes.children(self._process.pid)
        return [pid for executor in executors for pid in self._processes.children(executor)]

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if (death := self.death()) is not None:
                raise PlacementError(f"{death} while it started. It said:\n{self._last_lines()}")
            if _is_healthy(self._port):
                return
            time.sleep(_LOOK_EVERY_S)
        raise PlacementError(
            f"Flower's SuperLink did not answer within {_START_S:g} s. It said:\n{self._last_lines()}"
        )

    def _last_lines(self) -> str:
        lines = self._output.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(_COLOUR.sub("", line) for line in lines[-_SHOWN_LINES:]) or "nothing"

    def _follow(
        self, arguments: list[str], show: Callable[[str], None], skip: int = 0
    ) -> LogStream:
        command = [_script("flwr"), *arguments]
        process = self._processes.start(command, self._environment, subprocess.PIPE)
        return LogStream(process, show, skip)

    def _ask(self, *arguments: str) -> str | None:
        """Returns what a `flwr` command says, or None if it does not end in time."""
        process = self._processes.start(
            [_script("flwr"), *arguments], self._environment, subprocess.PIPE
        )
        try:
            output, _ = process.communicate(timeout=_COMMAND_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=_COMMAND_S)
            return None
        return output.decode(errors="replace")


class FlowerRun:
    """One app, from its submission to its end."""

    def __init__(
        self,
        superlink: OwnSuperLink,
        show: Callable[[str], None],
        stop_requested: Callable[[], bool],
        stop_patience_s: float,
    ) -> None:
        """Submits nothing yet.

        Args:
            superlink: runs it.
            show: takes each line of the log.
            stop_requested: whether the user wants it to end.
            stop_patience_s: how long the app may then take to save what it has.
        """
        self._superlink = superlink
        self._show = show
        self._stop_requested = stop_requested
        self._stop_patience_s = stop_patience_s
        self._stop_deadline: float | None = None
        self._stream: LogStream | None = None

    @property
    def log(self) -> list[str]:
        """The latest lines, noise and all."""
        return [] if self._stream is None else list(self._stream.kept)

    def carry_out(self, app: Path, run_config: Path, federation: str) -> RunStatus:
        """Submits the app in this folder and returns how it ended.

        Raises:
            PlacementError: Flower would not take it.
        """
        stream = self._stream = self._superlink.run(app, run_config, federation, self._show)
        deadline = time.monotonic() + _SUBMIT_S
        while stream.is_open and stream.run_id is None:
            if self._stop_requested():
                return RunStatus(STOPPED)
            if time.monotonic() > deadline:
                raise PlacementError(f"Flower did not take the app within {_SUBMIT_S:g} s")
            time.sleep(_LOOK_EVERY_S)
        if stream.run_id is None:
            why = self._superlink.death() or f"Flower refused the app: {_last_sentence(self.log)}"
            raise PlacementError(why)
        return self._follow(stream, stream.run_id)

    def _follow(self, stream: LogStream, run_id: str) -> RunStatus:
        """Waits for the end; where the log breaks off before that, takes it up again."""
        status = RunStatus("unknown")
        for _ in range(_MAX_ATTACHED):
            while stream.is_open:
                if self._stop_requested() and self._has_stopped(stream, run_id):
                    return RunStatus(STOPPED)
                time.sleep(_LOOK_EVERY_S)
            status = self._settled(run_id)
            if status.is_finished:
                return self._judged(status)
            stream = self._superlink.follow(run_id, self._show, skip=stream.num_lines)
            self._stream = stream
        return RunStatus(
            FAILED, f"its log broke off {_MAX_ATTACHED} times; its state was {status.state!r}"
        )

    def _settled(self, run_id: str) -> RunStatus:
        """Returns the state of a run whose log has ended: final, or as it is after a while."""
        deadline = time.monotonic() + _SETTLE_S
        status = RunStatus("unknown")
        while not status.is_finished and time.monotonic() < deadline:
            if (death := self._superlink.death()) is not None:
                return RunStatus(FAILED, f"{death} while the run went on")
            status = self._superlink.status(run_id) or status
            if not status.is_finished:
                time.sleep(_ASK_EVERY_S)
        return status

    def _judged(self, status: RunStatus) -> RunStatus:
        """Returns the final state in our words; an app that was told to end has not failed by ending."""
        if status.state == FAILED and self._stop_deadline is not None and not bare(status.details):
            return RunStatus(STOPPED)
        return RunStatus(status.state, reason(status, self.log))

    def _has_stopped(self, stream: LogStream, run_id: str) -> bool:
        """Tells the app to end, once; returns whether it has, or has had its time for it."""
        if self._stop_deadline is None:
            self._stop_deadline = time.monotonic() + self._stop_patience_s
            self._superlink.interrupt(run_id)
        if self._superlink.apps():
            return time.monotonic() > self._stop_deadline
        stream.wait(_LAST_WORDS_S)
        return stream.is_open


def parse_status(answer: str) -> RunStatus | None:
    """Returns what `flwr ls --format json` says about its only run; None if that is not an answer."""
    try:
        (run,) = json.loads(answer[answer.index("{") :])["runs"]
        state, details = str(run["status"]), str(run["status-details"])
    except (ValueError, KeyError, TypeError):
        return None
    return RunStatus(state, "" if details == "N/A" else details)


def bare(details: str) -> str:
    """Returns Flower's words on why a run failed in one line, less those that say nothing."""
    without_frame = _FLOWERS_WORDS.sub("", " ".join(details.split()))
    return _FLOWERS_WORDS.sub("", without_frame)


def reason(status: RunStatus, log: Sequence[str]) -> str:
    """Returns why a run failed, in one line; where Flower does not know, as its log has it."""
    if status.state != FAILED:
        return ""
    said = bare(status.details) or next(filter(None, map(bare, reversed(_raised(log)))), "")
    return said or "the app's process ended without a word"


def ray_did_not_start(log: Sequence[str]) -> bool:
    """Whether an exception in the log says that Ray could not be started."""
    return any(message.startswith(_RAY_NOT_STARTED) for message in _raised(log))


def _raised(log: Sequence[str]) -> list[str]:
    """Returns the messages of the exceptions that ended a traceback."""
    return [found["message"] for line in log if (found := _RAISED.match(line))]


def _last_sentence(log: Sequence[str]) -> str:
    """Returns what an error box of the command line says, without its frame."""
    lines = [line.strip("│╭╮╰╯─ ") for line in log if line[:1] in "│╭╰" or not _NOISE.match(line)]
    said = [line for line in lines if line and line != "Error"]
    return " ".join(said[-_SHOWN_LINES:]) or "it did not say why"


def _script(name: str) -> str:
    """Returns the path of a program that was installed with this Python, whatever PATH says."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise PlacementError(
            f"there is no {path}; is Flower installed (pip install 'flwr[simulation]')?"
        )
    return str(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _is_healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1.0)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
