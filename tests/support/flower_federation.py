"""A Flower federation as an operator would start it, on loopback: TLS, SuperNodes with keys of their own.

Every process gets a folder of its own as FLWR_HOME and writes a log there. All of them are ended by
their ids when the `Federation` is closed, with what they have started themselves.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from examples.cross_site.certificates import make_certificates, make_node_key
from tests.support.ports import free_port, is_listening
from tests.support.run_watch import descendants, kill, wait_until_gone

CONNECTION = "loopback"
"""The name of the connection in the CLI's config.toml."""

_BIN = Path(sys.executable).parent
_START_WITHIN_S = 60.0
_CLI_WITHIN_S = 240.0
_RETURN_WITHIN_S = 90.0
_END_WITHIN_S = 10.0
_POLL_S = 0.5
_FLOWER_SETTINGS = {
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONUNBUFFERED": "1",
    "NO_COLOR": "1",
}


def tcp_sockets(pid: int) -> list[tuple[int, bool]]:
    """Returns the local port of every TCP socket of a process, and whether it listens there."""
    own = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            own.add(os.readlink(descriptor))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in own:
                found.append((int(fields[1].rpartition(":")[2], 16), fields[3] == "0A"))
    return found


class Federation:
    """One SuperLink and its SuperNodes. A context manager: leaving it ends all processes."""

    def __init__(self, folder: Path, *, cwd: Path | None = None) -> None:
        self.folder = folder
        self.certificates = make_certificates(folder / "tls")
        self.port = free_port()
        self._cwd = cwd or folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._node_commands: dict[str, list[str]] = {}
        self._write_connection()

    def __enter__(self) -> Federation:
        """Starts the SuperLink."""
        try:
            self._start_superlink()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends everything."""
        self.close()

    def close(self) -> None:
        """Ends all processes, the SuperNodes first; a second call does nothing."""
        for name in reversed(list(self._processes)):
            self.end(name)

    def add_node(
        self, name: str, node_config: Mapping[str, str | int], *, isolation: str = "subprocess"
    ) -> None:
        """Makes a key, registers it and starts the SuperNode.

        With isolation "process" the SuperNode starts no process for a message; a `flower-superexec`
        beside it does, which is started here too, once, and lives on when the SuperNode dies.
        """
        port = free_port()
        key = make_node_key(self.folder / "keys", name)
        self.cli("supernode", "register", f"{key}.pub", CONNECTION, "--name", name)
        settings = " ".join(f"{one}={json.dumps(value)}" for one, value in node_config.items())
        self._node_commands[name] = [
            "flower-supernode",
            f"--superlink=127.0.0.1:{self.port}",
            f"--root-certificates={self.certificates.authority}",
            f"--auth-supernode-private-key={key}",
            f"--isolation={isolation}",
            f"--port={port}",
            f"--node-config={settings}",
        ]
        self.start_node(name)
        if isolation == "process":
            address = f"--runtime-api-address=127.0.0.1:{port}"
            self._start(f"{name}-superexec", ["flower-superexec", "--insecure", address])

    def start_node(self, name: str) -> None:
        """Starts a SuperNode (again), with the key and the settings it had, until it is let in.

        The SuperLink refuses a SuperNode that was killed until it has counted it as lost, up to a
        minute after its last heartbeat. A service manager would start it again and again; so is it here.
        """
        deadline_s = time.monotonic() + _RETURN_WITHIN_S
        while not self._is_node_let_in(name):
            assert time.monotonic() < deadline_s, (
                f"{name} was not let in:\n{self.log(name)[-4000:]}"
            )
            time.sleep(_POLL_S)

    def _is_node_let_in(self, name: str) -> bool:
        """Starts a SuperNode and waits until it has its id (true) or has ended (false)."""
        log = self.folder / name / "log"
        begin = log.stat().st_size if log.exists() else 0
        self._start(name, self._node_commands[name])
        process, deadline_s = self._processes[name], time.monotonic() + _START_WITHIN_S
        while b"SuperNode ID:" not in log.read_bytes()[begin:]:
            if process.poll() is not None:
                self.end(name)
                return False
            assert time.monotonic() < deadline_s, f"{name} hangs:\n{self.log(name)[-4000:]}"
            time.sleep(_POLL_S / 5)
        return True

    def kill(self, name: str, *, below: bool = True) -> None:
        """Ends a process at once, as a power cut would: with everything below it."""
        process = self._processes.pop(name)
        victims = [process.pid, *(descendants(process.pid) if below else [])]
        for pid in victims:
            kill(pid)
        process.wait(timeout=_END_WITHIN_S)

    def end(self, name: str) -> None:
        """Asks a process to end; ends it if it does not, and at once what it leaves behind.

        Flower's helper processes go on trying to reach it for tens of seconds.
        """
        process = self._processes.pop(name)
        victims = [process.pid, *descendants(process.pid)]
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        wait_until_gone([process.pid], within_s=_END_WITHIN_S)
        for pid in victims:
            kill(pid)
        process.wait(timeout=_END_WITHIN_S)

    def pid(self, name: str) -> int:
        """Returns the process id of the SuperLink ("superlink"), a SuperNode or NAME-superexec."""
        return self._processes[name].pid

    def log(self, name: str) -> str:
        """Returns what a process has written so far, over all its starts."""
        return (self.folder / name / "log").read_text(errors="replace")

    def has_log(self, name: str) -> bool:
        """Whether there is, or was, a process of this name."""
        return (self.folder / name / "log").exists()

    def submit(self, app: Path, run_config: str = "") -> int:
        """Submits a run of the app in this folder and returns its id."""
        settings = [f"--run-config={run_config}"] if run_config else []
        reply = self.cli_json("run", str(app), CONNECTION, *settings)
        return int(reply["run-id"])

    def status(self, run_id: int) -> str:
        """Returns what Flower says of a run, e.g. "running" or "finished:completed"."""
        runs = self.cli_json("ls", CONNECTION, f"--run-id={run_id}")["runs"]
        return str(runs[0]["status"])

    def why(self, run_id: int) -> str:
        """Returns what Flower says besides the status of a run, and what the app has written."""
        runs = self.cli_json("ls", CONNECTION, f"--run-id={run_id}")["runs"]
        return f"{runs[0]['status-details']}\n{self.cli('log', str(run_id), CONNECTION, '--show')}"

    def stop(self, run_id: int) -> None:
        """Asks for the end of a run."""
        self.cli("stop", str(run_id), CONNECTION)

    def wait(self, run_id: int, within_s: float) -> str:
        """Returns the final status of a run.

        Raises:
            AssertionError: it goes on for longer than `within_s`.
        """
        deadline_s = time.monotonic() + within_s
        while time.monotonic() < deadline_s:
            status = self.status(run_id)
            if status.startswith("finished"):
                return status
            time.sleep(_POLL_S)
        raise AssertionError(
            f"run {run_id} is still {status!r} after {within_s} s:\n{self.log('superlink')[-8000:]}"
        )

    def cli(self, *arguments: str) -> str:
        """Runs `flwr ...` to its end and returns what it printed."""
        finished = subprocess.run(
            [str(_BIN / "flwr"), *arguments],
            cwd=self._cwd,
            env=self._environment("cli"),
            capture_output=True,
            text=True,
            timeout=_CLI_WITHIN_S,
            check=False,
        )
        assert finished.returncode == 0, f"flwr {arguments}:\n{finished.stdout}{finished.stderr}"
        return finished.stdout

    def cli_json(self, *arguments: str) -> dict[str, Any]:
        """Runs `flwr ... --format=json` and returns its answer."""
        answer: dict[str, Any] = json.loads(self.cli(*arguments, "--format=json"))
        assert answer["success"], answer
        return answer

    def _start_superlink(self) -> None:
        self._start(
            "superlink",
            [
                "flower-superlink",
                f"--ssl-ca-certfile={self.certificates.authority}",
                f"--ssl-certfile={self.certificates.server}",
                f"--ssl-keyfile={self.certificates.key}",
                "--enable-supernode-auth",
                "--host=127.0.0.1",
                f"--port={self.port}",
            ],
        )
        deadline_s = time.monotonic() + _START_WITHIN_S
        while not is_listening(self.port):
            assert self._processes["superlink"].poll() is None, self.log("superlink")
            assert time.monotonic() < deadline_s, self.log("superlink")
            time.sleep(_POLL_S)

    def _start(self, name: str, command: list[str]) -> None:
        assert name not in self._processes, f"{name} runs already"
        environment = self._environment(name)
        with (self.folder / name / "log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(_BIN / command[0]), *command[1:]],
                cwd=self._cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _environment(self, name: str) -> dict[str, str]:
        """Flower finds its own programs on PATH, and keeps what it needs to keep in FLWR_HOME."""
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        path = f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}"
        return {**os.environ, **_FLOWER_SETTINGS, "PATH": path, "FLWR_HOME": str(home)}

    def _write_connection(self) -> None:
        home = self.folder / "cli"
        home.mkdir(parents=True, exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "127.0.0.1:{self.port}"\n'
            f'root-certificates = "{self.certificates.authority}"\n'
        )
