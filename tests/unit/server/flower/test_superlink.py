"""Our own SuperLink, by programs that stand for Flower's, and a run on it, from submission to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, cast

import pytest

from dogo_fed.errors import StartError
from server.flower import superlink as superlink_module
from server.flower.superlink import (
    COMPLETED,
    FAILED,
    STOPPED,
    FlowerRun,
    OwnSuperLink,
    RunStatus,
    parse_status,
)
from server.process_tree import ProcessTree, process_tree
from tests.support.run_watch import wait_until_gone

RUNNING = RunStatus("running")


def answer(state: str, details: str = "N/A") -> str:
    run = {"run-id": "7", "status": state, "status-details": details}
    return "a warning before it\n" + json.dumps({"success": True, "runs": [run]}, indent=2)


class TestAnswers:
    def test_what_flower_says_about_a_run(self) -> None:
        assert parse_status(answer("running")) == RUNNING
        assert not RUNNING.is_finished
        status = parse_status(answer(FAILED, "no\n room") + "\na warning after it {")
        assert status == RunStatus(FAILED, "no room") and status.is_finished

    @pytest.mark.parametrize(
        "text", ["", "Error", '{"success": false, "error-message": "x"}', "{", '{"runs": []}']
    )
    def test_no_answer_is_no_status(self, text: str) -> None:
        assert parse_status(text) is None


HEALTHY = """#!{python}
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


class TestOwnSuperLink:
    @pytest.fixture
    def programs(self, tmp_path: Path) -> Path:
        """A folder with programs; the only one on PATH besides the system's."""
        folder = tmp_path / "bin"
        folder.mkdir()
        return folder

    @pytest.fixture
    def processes(self) -> Iterator[ProcessTree]:
        with process_tree() as processes:
            yield processes
            assert processes.end(patience_s=0) == []

    def start(self, programs: Path, processes: ProcessTree) -> OwnSuperLink:
        home = programs.parent / "home"
        home.mkdir()
        path = os.pathsep.join([str(programs), "/usr/bin", "/bin"])
        return OwnSuperLink(home, {"PATH": path}, processes)

    def install(self, programs: Path, name: str, content: str) -> None:
        program = programs / name
        program.write_text(content.replace("{python}", sys.executable))
        program.chmod(0o755)

    def test_one_that_is_not_there_is_named(self, programs: Path, processes: ProcessTree) -> None:
        with pytest.raises(StartError, match="flower-superlink is not on PATH"):
            self.start(programs, processes)

    def test_one_that_ends_at_once_says_why(self, programs: Path, processes: ProcessTree) -> None:
        self.install(programs, "flower-superlink", "#!/bin/sh\necho no room\nexit 3\n")
        with pytest.raises(StartError, match="exited with 3 while it started") as error:
            self.start(programs, processes)
        assert "no room" in str(error.value)

    def test_one_that_does_not_answer_is_not_waited_for_for_ever(
        self, programs: Path, processes: ProcessTree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(superlink_module, "_ANSWER_WITHIN_S", 0.3)
        self.install(programs, "flower-superlink", "#!/bin/sh\nexec sleep 300\n")
        with pytest.raises(StartError, match=r"no answer within 0\.3 s"):
            self.start(programs, processes)

    def test_what_is_asked_is_asked_there(self, programs: Path, processes: ProcessTree) -> None:
        self.install(programs, "flower-superlink", HEALTHY)
        self.install(
            programs,
            "flwr",
            '#!/bin/sh\necho "$@" >> $FLWR_HOME/asked\ncase $1 in\n'
            'run) echo started; echo \'{"success": true, "run-id": "7"}\';;\n'
            f"ls) echo '{answer(FAILED, 'no room')}';;\nlog) echo its log;;\nesac\n",
        )
        superlink = self.start(programs, processes)
        assert superlink.death() is None
        assert superlink.submit(Path("/app"), Path("/run.toml"), "num-supernodes=2") == "7"
        assert superlink.status("7") == RunStatus(FAILED, "no room")
        log = programs.parent / "log"
        with log.open("wb") as output:
            assert superlink.follow("7", output).wait(timeout=20) == 0
        assert log.read_text() == "its log\n"
        superlink.interrupt("7")  # no app runs that a signal could reach
        asked = (programs.parent / "home" / "asked").read_text().splitlines()
        assert [line.split()[0] for line in asked] == ["run", "ls", "log", "stop"]
        assert asked[3] == "stop 7 own" and "--run-id 7" in asked[1]
        (found,) = [one for one in processes.alive() if "flower-superlink" in one.cmdline()[1]]
        found.kill()
        assert wait_until_gone([found.pid]) == []
        assert superlink.death() == "Flower's SuperLink died of SIGKILL"

    @pytest.mark.parametrize(
        ("said", "words"),
        [
            ('{"success": false, "error-message": "a note\\nno such setting"}', "a note no such"),
            ("Traceback\nOSError: broken", "Traceback OSError: broken"),
            ("", "it gave no answer"),
        ],
    )
    def test_what_flower_refuses_is_said_in_one_line(
        self, said: str, words: str, programs: Path, processes: ProcessTree
    ) -> None:
        (programs / "said").write_text(said)
        self.install(programs, "flower-superlink", HEALTHY)
        self.install(programs, "flwr", f"#!/bin/sh\ncat {programs / 'said'}\n")
        superlink = self.start(programs, processes)
        with pytest.raises(StartError, match=f"Flower refused the app: {words}") as error:
            superlink.submit(Path("/app"), Path("/run.toml"), "")
        assert len(str(error.value).splitlines()) == 1

    def test_a_command_that_hangs_is_no_answer(
        self, programs: Path, processes: ProcessTree, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.install(programs, "flower-superlink", HEALTHY)
        self.install(programs, "flwr", "#!/bin/sh\nexec sleep 300\n")
        superlink = self.start(programs, processes)
        monkeypatch.setattr(superlink_module, "_ANSWER_WITHIN_S", 0.3)
        assert superlink.status("7") is None

    def test_apps_are_told_by_a_signal(self, programs: Path, processes: ProcessTree) -> None:
        """The SuperLink starts a SuperExec, and that starts the app."""
        note = programs.parent / "note"
        app = (
            "#!{python}\nimport pathlib, signal, time\n"
            # A job in the background of a script starts with SIGINT ignored.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"note = pathlib.Path({str(note)!r})\n"
            "try:\n    note.touch()\n    time.sleep(300)\n"
            "except KeyboardInterrupt:\n    note.write_text('told')\n"
        )
        self.install(programs, "app", app)
        self.install(programs, "executor", "#!{python}\nimport subprocess\nsubprocess.run('app')\n")
        start_executor = "import subprocess\nsubprocess.Popen(['executor'])\n"
        healthy = HEALTHY.replace("class Handler", f"{start_executor}\nclass Handler")
        self.install(programs, "flower-superlink", healthy)
        superlink = self.start(programs, processes)
        _wait_until(note.exists)
        assert len(superlink.apps()) == 1
        superlink.interrupt("7")
        _wait_until(lambda: note.read_text() == "told")
        _wait_until(lambda: superlink.apps() == [])


def _wait_until(is_true: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 20
    while not is_true():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


LOG = "printf 'one line\\n\\033[92mINFO\\033[0m : another\\n'"
SHOWN = "one line\n\x1b[92mINFO\x1b[0m : another\n"


class FakeSuperLink:
    """Has a log, which a process writes, and knows the truth."""

    def __init__(self, *states: RunStatus | None, log: str = LOG, dead: str | None = None) -> None:
        self.states = list(states)
        self.log = log
        self.dead = dead
        self.interrupted: list[str] = []
        self.running_apps: list[int] = []
        self.num_asked = 0
        self.process: subprocess.Popen[bytes] | None = None

    def submit(self, app: Path, run_config: Path, federation: str) -> str:
        return "7"

    def follow(self, run_id: str, output: IO[bytes]) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(["bash", "-c", self.log], stdout=output)
        return self.process

    def status(self, run_id: str) -> RunStatus | None:
        self.num_asked += 1
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def death(self) -> str | None:
        return self.dead

    def interrupt(self, run_id: str) -> None:
        self.interrupted.append(run_id)

    def apps(self) -> list[int]:
        return self.running_apps


class TestRun:
    @pytest.fixture(autouse=True)
    def _quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(superlink_module, "_POLL_S", 0.01)
        monkeypatch.setattr(superlink_module, "_STATUS_POLL_S", 0.0)
        monkeypatch.setattr(superlink_module, "_ANSWER_WITHIN_S", 0.3)
        monkeypatch.setattr(superlink_module, "_LAST_WORDS_S", 0.2)

    @pytest.fixture
    def log(self, tmp_path: Path) -> Path:
        return tmp_path / "run.log"

    def carry_out(
        self,
        superlink: FakeSuperLink,
        log: Path,
        stop: Callable[[], bool] = lambda: False,
        patience_s: float = 20.0,
    ) -> RunStatus:
        run = FlowerRun(cast(OwnSuperLink, superlink), log, stop, patience_s)
        try:
            return run.carry_out(Path("/app"), Path("/run.toml"), "")
        finally:
            assert superlink.process is not None
            superlink.process.kill()
            superlink.process.wait(timeout=10)

    def test_the_log_is_shown_as_it_is_and_kept(
        self, log: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        status = RunStatus(FAILED, "peer a is lost")
        assert self.carry_out(FakeSuperLink(status), log) == status
        shown = capfd.readouterr()
        assert shown.out == log.read_text() == SHOWN
        assert shown.err == ""

    def test_it_is_shown_while_the_run_goes_on(
        self, log: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        superlink = FakeSuperLink(RunStatus(COMPLETED), log=f"{LOG}; read < {log.parent / 'go'}")
        os.mkfifo(log.parent / "go")
        shown = ""
        deadline_s = time.monotonic() + 20

        def look() -> bool:
            nonlocal shown
            if shown != SHOWN and superlink.num_asked == 0:
                assert time.monotonic() < deadline_s, shown
                shown += capfd.readouterr().out
                if shown == SHOWN:
                    (log.parent / "go").write_text("\n")  # lets the log end
            return False

        assert self.carry_out(superlink, log, look).state == COMPLETED
        assert shown == SHOWN

    def test_a_log_that_breaks_off_is_not_the_end_of_the_run(
        self, log: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        superlink = FakeSuperLink(RUNNING, None, RUNNING, RunStatus(COMPLETED))
        assert self.carry_out(superlink, log) == RunStatus(COMPLETED)
        shown = capfd.readouterr()
        assert shown.err.count("log broke off") == len(shown.err.splitlines()) == 1
        assert superlink.num_asked == 4

    def test_an_answer_that_comes_late_is_waited_for(
        self, log: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        superlink = FakeSuperLink(None, None, RunStatus(COMPLETED))
        assert self.carry_out(superlink, log) == RunStatus(COMPLETED)
        assert capfd.readouterr().err == ""

    def test_an_answer_that_never_comes_is_not(self, log: Path) -> None:
        status = self.carry_out(FakeSuperLink(None), log)
        assert status.state == FAILED and "no answer within 0.3 s" in status.details

    def test_a_dead_superlink_is_named(self, log: Path) -> None:
        dead = "Flower's SuperLink died of SIGKILL"
        status = self.carry_out(FakeSuperLink(RUNNING, dead=dead), log)
        assert status.state == FAILED and dead in status.details

    @pytest.mark.parametrize(
        ("ended", "told"),
        [(FAILED, STOPPED), (STOPPED, STOPPED), (COMPLETED, COMPLETED)],
    )
    def test_an_app_that_was_told_to_end_has_not_failed_by_ending(
        self, ended: str, told: str, log: Path
    ) -> None:
        superlink = FakeSuperLink(RunStatus(ended), log=f"{LOG}; sleep 0.1")
        superlink.running_apps = [1]
        assert self.carry_out(superlink, log, lambda: True).state == told
        assert superlink.interrupted == ["7"]

    def test_a_stop_has_its_time_and_no_more(self, log: Path) -> None:
        superlink = FakeSuperLink(RUNNING, log="sleep 300")
        superlink.running_apps = [1]
        started_s = time.monotonic()
        status = self.carry_out(superlink, log, lambda: True, patience_s=0.5)
        assert status == RunStatus(STOPPED)
        assert superlink.interrupted == ["7"]
        assert 0.5 <= time.monotonic() - started_s < 10

    def test_an_app_that_is_gone_needs_no_more_time(self, log: Path) -> None:
        superlink = FakeSuperLink(RUNNING, log="sleep 300")
        started_s = time.monotonic()
        assert self.carry_out(superlink, log, lambda: True) == RunStatus(STOPPED)
        assert 0.2 <= time.monotonic() - started_s < 10

    def test_a_stop_ends_the_asking_after_the_log_broke_off(self, log: Path) -> None:
        superlink = FakeSuperLink(RUNNING)
        status = self.carry_out(superlink, log, lambda: superlink.num_asked > 3)
        assert status == RunStatus(STOPPED)
        assert superlink.interrupted == ["7"]
