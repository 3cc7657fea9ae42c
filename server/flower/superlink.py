"""`flwr run` with a SuperLink of our own, which is asked how the run ended."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from dogo_fed.errors import StartError
from dogo_fed.exit_status import say
from server.child_process import how_it_ended
from server.process_tree import ProcessTree

CONNECTION = "own"
"""Name of the connection in our config.toml."""

COMPLETED = "finished:completed"
FAILED = "finished:failed"
STOPPED = "finished:stopped"

_ANSWER_WITHIN_S = 120.0
_LAST_WORDS_S = 5.0
_POLL_S = 0.1
_STATUS_POLL_S = 2.0
_SHOWN_LINES = 10


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


class OwnSuperLink:
    """A SuperLink for one run, on a free port of the loopback interface; its owner ends it."""

    def __init__(self, home: Path, environment: Mapping[str, str], processes: ProcessTree) -> None:
        """Starts it and waits until it answers.

        Args:
            home: an empty folder for its files.
            environment: of all processes; Flower's programs are on its PATH. FLWR_HOME is added.
            processes: starts and knows them.

        Raises:
            StartError: it does not start.
        """
        if shutil.which("flower-superlink", path=environment["PATH"]) is None:
            raise StartError("Flower's program flower-superlink is not on PATH; is flwr installed?")
        self._environment = {**environment, "FLWR_HOME": str(home)}
        self._processes = processes
        self._port = _free_port()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "127.0.0.1:{self._port}"\ninsecure = true\n',
            encoding="utf-8",
        )
        with (home / "output.log").open("wb") as output:
            self._process = processes.start(
                [
                    "flower-superlink", "--insecure", "--simulation",
                    "--isolation", "subprocess",
                    "--host", "127.0.0.1", "--port", str(self._port),
                    "--database", str(home / "state.db"),
                ],
                self._environment,
                output,
            )  # fmt: skip
        self._wait_until_it_answers(home / "output.log")

    def death(self) -> str | None:
        """Returns how its process ended; None while it lives."""
        status = self._process.poll()
        return None if status is None else f"Flower's SuperLink {how_it_ended(status)}"

    def submit(self, app: Path, run_config: Path, federation: str) -> str:
        """Submits the app in this folder and returns the id of its run.

        Raises:
            StartError: Flower would not take it.
        """
        said = self._ask(
            "run", str(app), CONNECTION, "--format", "json",
            "--run-config", str(run_config), "--federation-config", federation,
        )  # fmt: skip
        answer = parse_answer(said)
        if "run-id" in answer:
            return str(answer["run-id"])
        why = answer.get("error-message") or said or "it gave no answer"
        raise StartError(self.death() or f"Flower refused the app: {_one_line(str(why))}")

    def follow(self, run_id: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Returns a process that writes the log of a run, from its start until it finishes."""
        command = ["flwr", "log", run_id, CONNECTION, "--stream"]
        return self._processes.start(command, self._environment, output)

    def status(self, run_id: str) -> RunStatus | None:
        """Asks what became of a run; None if there is no answer."""
        return parse_status(self._ask("ls", CONNECTION, "--run-id", run_id, "--format", "json"))

    def interrupt(self, run_id: str) -> None:
        """Tells a run to end as Ctrl-C would: its app may save what it has.

        `flwr stop` comes to the same, but the app's process learns of it by its next heartbeat, up to
        half a minute later, and its log is cut off at once.
        """
        apps = self.apps()
        for app in apps:
            with suppress(psutil.NoSuchProcess):
                app.send_signal(signal.SIGINT)
        if not apps:
            self._ask("stop", run_id, CONNECTION)

    def apps(self) -> list[psutil.Process]:
        """Returns the processes of running apps: children of the SuperExec that it started."""
        executors = self._processes.children(self._process.pid)
        return [app for executor in executors for app in self._processes.children(executor.pid)]

    def _wait_until_it_answers(self, output: Path) -> None:
        deadline_s = time.monotonic() + _ANSWER_WITHIN_S
        while not _is_healthy(self._port):
            death = self.death()
            if death is not None or time.monotonic() > deadline_s:
                why = death or f"Flower's SuperLink gave no answer within {_ANSWER_WITHIN_S:g} s"
                said = output.read_text(encoding="utf-8", errors="replace").splitlines()
                last_lines = "\n".join(said[-_SHOWN_LINES:]) or "nothing"
                raise StartError(f"{why} while it started. It said:\n{last_lines}")
            time.sleep(_POLL_S)

    def _ask(self, *arguments: str) -> str:
        """Returns what a `flwr` command says; nothing if it does not end in time."""
        process = self._processes.start(["flwr", *arguments], self._environment, subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=_ANSWER_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=_ANSWER_WITHIN_S)
            return ""
        return output.decode(errors="replace")


class FlowerRun:
    """One app, from its submission to its end."""

    def __init__(
        self,
        superlink: OwnSuperLink,
        log: Path,
        stop_requested: Callable[[], bool],
        stop_patience_s: float,
    ) -> None:
        """Submits nothing yet.

        Args:
            superlink: runs it.
            log: file for what Flower logs, which is shown meanwhile.
            stop_requested: whether the user wants it to end.
            stop_patience_s: how long the app may then take to save what it has.
        """
        self._superlink = superlink
        self._log = log
        self._stop_requested = stop_requested
        self._stop_patience_s = stop_patience_s
        self._stop_deadline_s: float | None = None

    def carry_out(self, app: Path, run_config: Path, federation: str) -> RunStatus:
        """Submits the app in this folder, shows its log, and returns how it ended.

        Raises:
            StartError: Flower would not take it.
        """
        run_id = self._superlink.submit(app, run_config, federation)
        self._show_log(run_id)
        return self._final_status(run_id)

    def _show_log(self, run_id: str) -> None:
        """Returns when the log has ended, or a stopped app has had its time."""
        with self._log.open("wb") as output:
            process = self._superlink.follow(run_id, output)
        with self._log.open("rb") as log:
            while process.poll() is None and not self._has_had_its_time(run_id):
                _show(log)
                time.sleep(_POLL_S)
            _show(log)

    def _final_status(self, run_id: str) -> RunStatus:
        """Returns how it ended; if its log broke off before that, says so and goes on asking."""
        status = self._status(run_id)
        if not status.is_finished:
            say("Flower's log broke off, but the run goes on; waiting for its end", 0)
        while not status.is_finished:
            time.sleep(_STATUS_POLL_S)
            status = self._status(run_id)
        was_told_to_end = self._stop_deadline_s is not None
        return RunStatus(STOPPED) if was_told_to_end and status.state == FAILED else status

    def _status(self, run_id: str) -> RunStatus:
        """Returns the state of the run; final if nothing more will be heard of it."""
        deadline_s = time.monotonic() + _ANSWER_WITHIN_S
        while time.monotonic() < deadline_s:
            if self._has_had_its_time(run_id):
                return RunStatus(STOPPED)
            if (death := self._superlink.death()) is not None:
                return RunStatus(FAILED, f"{death} while the run went on")
            if (status := self._superlink.status(run_id)) is not None:
                return status
            time.sleep(_STATUS_POLL_S)
        return RunStatus(FAILED, f"Flower's SuperLink gave no answer within {_ANSWER_WITHIN_S:g} s")

    def _has_had_its_time(self, run_id: str) -> bool:
        """Tells the app to end if the user wants it, once; returns whether its time for that is over."""
        if not self._stop_requested():
            return False
        if self._stop_deadline_s is None:
            self._stop_deadline_s = time.monotonic() + self._stop_patience_s
            self._superlink.interrupt(run_id)
        if not self._superlink.apps():
            last_words_s = time.monotonic() + _LAST_WORDS_S
            self._stop_deadline_s = min(self._stop_deadline_s, last_words_s)
        return time.monotonic() > self._stop_deadline_s


def parse_answer(said: str) -> dict[str, Any]:
    """Returns the JSON object in what `flwr ... --format json` says; an empty one if it has none."""
    try:
        answer, _ = json.JSONDecoder().raw_decode(said, said.index("{"))
    except ValueError:
        return {}
    return dict(answer)


def parse_status(said: str) -> RunStatus | None:
    """Returns what `flwr ls --format json` says about its only run; None if that is not an answer."""
    try:
        (run,) = parse_answer(said)["runs"]
        state, details = str(run["status"]), _one_line(str(run["status-details"]))
    except (ValueError, KeyError, TypeError):
        return None
    return RunStatus(state, "" if details == "N/A" else details)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _show(log: IO[bytes]) -> None:
    """Writes what has been added to the log to standard output."""
    shutil.copyfileobj(log, sys.stdout.buffer)
    sys.stdout.flush()


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
