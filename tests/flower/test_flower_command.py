"""The command `dogo-fed flower`: what it refuses, what Flower is told, how it ends, what it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from configs.compose import compose_run
from configs.overrides import quoted
from dogo_fed.errors import ConfigError, StartError
from server.commands import flower as flower_command
from server.flower.run_config import read_run_config, write_run_config
from server.flower.superlink import COMPLETED, FAILED, STOPPED, RunStatus
from server.process_tree import ProcessTree
from tests.support.command_line import SMALL_RUN, dogo_fed, start
from tests.support.run_watch import digests, is_alive


class TestRequest:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_a_new_run_gets_the_usual_folder_as_an_absolute_path(self, tmp_path: Path) -> None:
        request = flower_command.read_request(["peers=solo", "steps=3"])
        assert request.folder.parent == tmp_path / "runs" and request.folder.is_dir()
        assert request.is_new_folder
        assert request.overrides[:3] == ("peers=solo", "steps=3", "host=flower")
        assert compose_run(request.overrides).run_dir == str(request.folder)

    @pytest.mark.parametrize(
        "name",
        ["plain", "a b=c,d(e)", "it's", "sm\u00f8rrebr\u00f8d", "[x]{y}#", "a\\b (1)", "ends\\"],
    )
    def test_any_folder_arrives_as_it_is(self, name: str, tmp_path: Path) -> None:
        override = quoted("run_dir", str(tmp_path / name))
        request = flower_command.read_request(["steps=3", override])
        arrived = compose_run(read_run_config(tomllib.loads(write_run_config(request.overrides))))
        assert arrived.run_dir == str(tmp_path / name)
        assert arrived.steps == 3

    def test_a_relative_folder_is_made_absolute(self, tmp_path: Path) -> None:
        request = flower_command.read_request(["run_dir=here/it"])
        assert request.folder == tmp_path / "here" / "it"
        assert sum(part.startswith("run_dir=") for part in request.overrides) == 1

    def test_a_folder_in_use_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").touch()
        with pytest.raises(ConfigError, match=r"resume=\S*/run,"):
            flower_command.read_request(["run_dir=run"])

    @pytest.mark.parametrize("flag", ["-m", "--cfg", "--multirun", "-cn"])
    def test_flags_are_refused(self, flag: str) -> None:
        with pytest.raises(ConfigError, match=f"no option {flag}"):
            flower_command.read_request([flag, "seed=3"])

    @pytest.mark.parametrize("flag", [["--epochs", "3"], ["--epochs=3"]])
    def test_a_word_with_dashes_is_answered_with_the_setting(self, flag: list[str]) -> None:
        with pytest.raises(ConfigError, match="settings are written rounds=3"):
            flower_command.read_request(flag)

    @pytest.mark.parametrize("override", ["host=ray", "host=flower", "+host=ray"])
    def test_the_host_is_given(self, override: str) -> None:
        with pytest.raises(ConfigError, match="always flower"):
            flower_command.read_request([override])

    @pytest.mark.parametrize("override", ["colour=red", "batch_size=many", "peers=nobody"])
    def test_what_can_not_be_makes_no_folder(self, override: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError):
            flower_command.read_request([override])
        assert not list(tmp_path.iterdir())

    def test_messages_may_carry_the_steps(self) -> None:
        request = flower_command.read_request(["exchange=flower"])
        assert request.config.exchange.transport.value == "flower"

    def test_a_run_goes_on_with_its_own_settings(self, tmp_path: Path) -> None:
        (tmp_path / "old").mkdir()
        first = flower_command.read_request(["peers=trio", "steps=3", "run_dir=old"])
        _save_config(first)
        request = flower_command.read_request(["resume=old", "steps=9"])
        assert request.folder == tmp_path / "old" and not request.is_new_folder
        assert len(request.config.peers) == 3 and request.config.steps == 9
        assert request.overrides[:2] == ("steps=9", "host=flower")
        assert compose_run(request.overrides).resume == str(tmp_path / "old")
        assert flower_command._overrides_now(request) == request.overrides

    def test_a_run_that_goes_on_stays_the_same_run(self, tmp_path: Path) -> None:
        _save_config(flower_command.read_request(["run_dir=old"]))
        with pytest.raises(
            ConfigError, match="seed is 0 in the run and 9 now, and can't be changed"
        ):
            flower_command.read_request(["resume=old", "seed=9"])
        with pytest.raises(ConfigError, match="nowhere is no run folder"):
            flower_command.read_request(["resume=nowhere"])

    def test_the_second_attempt_goes_on_with_the_folder_of_the_first(self) -> None:
        request = flower_command.read_request(["steps=3", "run_dir=run"])
        _save_config(request)
        arrived = compose_run(flower_command._overrides_now(request))
        assert arrived.resume == str(request.folder) and arrived.run_dir is None


def _save_config(request: flower_command.FlowerRequest) -> None:
    from dogo_fed.storage.run_folder import create

    create(request.config)


class TestAppFolder:
    PROJECT = '[tool.flwr.app]\npublisher = "me"\n'

    def test_a_checkout_is_one(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text(self.PROJECT)
        assert flower_command.app_folder(tmp_path, Path("/")) == tmp_path

    @pytest.mark.parametrize("content", [None, "", "[tool]\nflwr = 3\n", "no toml"])
    def test_an_installed_wheel_is_none(self, content: str | None, tmp_path: Path) -> None:
        if content is not None:
            (tmp_path / "pyproject.toml").write_text(content)
        with pytest.raises(ConfigError, match="checkout"):
            flower_command.app_folder(tmp_path, Path("/"))

    def test_packages_in_the_way_are_named(self, tmp_path: Path) -> None:
        app, here = tmp_path / "app", tmp_path / "here"
        for folder in (app, here):
            (folder / "clients").mkdir(parents=True)
            (folder / "clients" / "__init__.py").touch()
        (app / "pyproject.toml").write_text(self.PROJECT)
        assert flower_command.app_folder(app, app) == app
        with pytest.raises(ConfigError, match=r"'clients'.*another folder"):
            flower_command.app_folder(app, here)
        (here / "clients" / "__init__.py").unlink()  # a folder of that name does no harm
        assert flower_command.app_folder(app, here) == app


class TestWhatFlowerIsTold:
    def settings(self, text: str) -> dict[str, str]:
        return dict(part.split("=") for part in text.split())

    @pytest.mark.parametrize(
        ("peers", "cpus", "expected"),
        [("pair", 2, (2, 1)), ("trio", 2, (3, 1)), ("pair", 64, (64, 32))],
    )
    def test_there_is_one_worker_for_each_peer(
        self, peers: str, cpus: int, expected: tuple[int, int]
    ) -> None:
        config = compose_run([f"peers={peers}", "host=flower"])
        told = self.settings(flower_command.federation_config(config, {}, cpus))
        assert told["num-supernodes"] == str(len(config.peers))
        assert (told["init-args-num-cpus"], told["client-resources-num-cpus"]) == tuple(
            map(str, expected)
        )
        assert int(expected[0]) // int(expected[1]) == len(config.peers)
        assert "init-args-num-gpus" not in told  # Ray finds them

    @pytest.mark.parametrize(
        ("override", "environment"),
        [("ray.address='10.0.0.1:6379'", {}), ("seed=1", {"RAY_ADDRESS": "10.0.0.1:6379"})],
    )
    def test_a_running_cluster_keeps_its_size(
        self, override: str, environment: dict[str, str], tmp_path: Path
    ) -> None:
        config = compose_run([override, "host=flower"])
        assert "init-args" not in flower_command.federation_config(config, environment, 4)
        told = flower_command.child_environment(config, environment, tmp_path)
        assert told["RAY_ADDRESS"] == "10.0.0.1:6379"

    def test_a_ray_of_its_own_has_a_token_of_its_own(self, tmp_path: Path) -> None:
        users = {"PATH": "/p", "RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN_PATH": "/t"}
        tokens = set()
        for around in (users, {**users, "RAY_ADDRESS": ""}, {**users, "RAY_ADDRESS": "local"}):
            told = flower_command.child_environment(compose_run([]), around, tmp_path)
            assert told["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in told
            assert told["RAY_ADDRESS"] == "local"
            tokens.add(told["RAY_AUTH_TOKEN"])
        assert len(tokens) == 3 and {len(token) for token in tokens} == {64}
        joined = {**users, "RAY_ADDRESS": "10.0.0.1:6379"}
        told = flower_command.child_environment(compose_run([]), joined, tmp_path)
        assert users.items() <= {**told, "PATH": "/p"}.items() and "RAY_AUTH_TOKEN" not in told

    def test_nothing_is_installed_nor_sent_anywhere(self, tmp_path: Path) -> None:
        told = flower_command.child_environment(
            compose_run(["threads_per_peer=3"]),
            {
                "HOME": "/h",
                "PATH": "/p",
                "PYTHONPATH": "/own",
                "no_proxy": "intra",
                "FORCE_COLOR": "1",
            },
            tmp_path,
        )
        assert told["HOME"] == "/h" and "FORCE_COLOR" not in told
        assert told["FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"] == "1"
        assert told["FLWR_TELEMETRY_ENABLED"] == told["RAY_USAGE_STATS_ENABLED"] == "0"
        assert told["PATH"].split(os.pathsep) == [str(Path(sys.executable).parent), "/p"]
        assert told["PYTHONPATH"].split(os.pathsep) == [str(tmp_path), "/own"]
        assert told["no_proxy"] == "intra,127.0.0.1,localhost"
        assert told["OMP_NUM_THREADS"] == "3"


SUMMARY: dict[str, object] = {
    "run_id": "here", "seed": 0, "host": "flower", "steps": 4, "steps_done": 4, "wall_s": 1.0,
    "peers": {}, "unfinished": {}, "events": [], "variants": {},
    "exchange": {
        "enabled": True, "bytes_up": 0, "bytes_down": 0, "bytes_up_per_step": 1.0,
        "bytes_down_per_step": 1.0, "wait_fraction": 0.0,
        "exchange_fraction": 0.0,
    },
}  # fmt: skip
STOP_EVENT = {"kind": "stopped", "message": "stopped at step 2", "step": 2}


class TestExitStatus:
    def left(self, folder: Path, events: Sequence[object] = ()) -> Path:
        folder = folder / "here"
        folder.mkdir()
        (folder / "summary.json").write_text(json.dumps({**SUMMARY, "events": list(events)}))
        return folder

    def test_completed(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = self.left(tmp_path)
        assert flower_command.report(RunStatus(COMPLETED), "", folder) == 0
        output = capsys.readouterr()
        assert "run here" in output.out and str(folder) in output.out and not output.err

    def test_a_summary_that_was_shown_is_not_shown_again(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log = "another line\nrun here  flower\n"
        assert flower_command.report(RunStatus(COMPLETED), log, self.left(tmp_path)) == 0
        assert "run here" not in capsys.readouterr().out

    @pytest.mark.parametrize("state", [COMPLETED, STOPPED])
    def test_stopped_by_the_user(
        self, state: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = self.left(tmp_path, [STOP_EVENT])
        (folder / "peers" / "a" / "checkpoints" / "step-000000002.pt").mkdir(parents=True)
        assert flower_command.report(RunStatus(state), "", folder) == 130
        assert f"dogo-fed flower resume={folder}" in capsys.readouterr().err

    def test_stopped_before_it_began(self, tmp_path: Path) -> None:
        assert flower_command.report(RunStatus(STOPPED), "", tmp_path) == 130

    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (RunStatus(FAILED, "peer a is lost"), "peer a is lost"),
            (RunStatus(COMPLETED), "summary.json"),
            (RunStatus(FAILED), "the run ended as finished:failed"),
        ],
    )
    def test_anything_else_is_a_failure(
        self, status: RunStatus, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert flower_command.report(status, "", tmp_path) == 1
        message = capsys.readouterr().err
        assert message.startswith("dogo-fed: ") and words in message
        assert len(message.splitlines()) == 1

    def test_a_failure_says_where_there_is_more(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert flower_command.report(RunStatus(FAILED, "it broke"), "", tmp_path) == 1
        assert capsys.readouterr().err == "dogo-fed: it broke (see the log above)\n"
        (tmp_path / "coordinator.log").touch()
        assert flower_command.report(RunStatus(FAILED, "it broke"), "", tmp_path) == 1
        assert f"the log above and {tmp_path / 'coordinator.log'})" in capsys.readouterr().err


class ToldRun:
    """Ends as the test says, once for each attempt."""

    outcomes: list[tuple[RunStatus, str]]
    attempts: list[str]

    def __init__(self, superlink: object, log: Path, *rest: object) -> None:
        self.log = log

    def carry_out(self, app: Path, run_config: Path, federation: str) -> RunStatus:
        status, log = self.outcomes[len(self.attempts)]
        self.attempts.append(run_config.read_text())
        self.log.write_text(log)
        return status


RAY_IS_LATE = (
    "Traceback:\nException: The current node timed out during startup. This could happen because"
)
GENERIC = "Simulation failed with exception: An error was encountered. Ending simulation."


class TestAttempts:
    @pytest.fixture(autouse=True)
    def _told(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(flower_command, "OwnSuperLink", lambda *_: None)
        monkeypatch.setattr(flower_command, "FlowerRun", ToldRun)
        monkeypatch.setattr(ToldRun, "attempts", [], raising=False)

    def end_as(self, monkeypatch: pytest.MonkeyPatch, *outcomes: tuple[RunStatus, str]) -> None:
        monkeypatch.setattr(ToldRun, "outcomes", list(outcomes), raising=False)

    def test_a_ray_that_did_not_start_is_tried_once_more(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        late = (RunStatus(FAILED, GENERIC), RAY_IS_LATE)
        self.end_as(monkeypatch, late, late, late)
        request = flower_command.read_request(["run_dir=run"])
        assert flower_command.run(request, tmp_path) == 2, "it has not begun"
        assert len(ToldRun.attempts) == 2
        told = capsys.readouterr().err.splitlines()
        assert "once more" in told[0] and GENERIC in told[1] and len(told) == 2

    def test_the_second_attempt_counts(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        late = (RunStatus(FAILED, GENERIC), RAY_IS_LATE)
        self.end_as(monkeypatch, late, (RunStatus(STOPPED), ""))
        assert flower_command.run(flower_command.read_request(["run_dir=run"]), tmp_path) == 130

    @pytest.mark.parametrize(
        "outcome",
        [(RunStatus(FAILED, "peer a is lost"), "a log"), (RunStatus(STOPPED), RAY_IS_LATE)],
    )
    def test_no_other_end_is_tried_again(
        self, outcome: tuple[RunStatus, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        self.end_as(monkeypatch, outcome)
        flower_command.run(flower_command.read_request(["run_dir=run"]), tmp_path)
        assert len(ToldRun.attempts) == 1
        assert not (tmp_path / "run").exists(), "an empty folder is not left behind"


class TestEnd:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    @pytest.mark.parametrize(
        ("error", "status"), [(KeyboardInterrupt(), 130), (StartError("no room"), 2)]
    )
    def test_nothing_is_left_and_an_impatient_user_does_not_wait(
        self,
        error: BaseException,
        status: int,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        """The second Ctrl-C is a KeyboardInterrupt."""
        pids: list[int] = []

        def stubborn(home: Path, environment: Mapping[str, str], processes: ProcessTree) -> None:
            command = ["bash", "-c", "trap '' TERM; echo; sleep 300; :"]
            process = processes.start(command, environment, subprocess.PIPE)
            assert process.stdout is not None and process.stdout.readline()
            process.stdout.close()
            pids.append(process.pid)
            raise error

        monkeypatch.setattr(flower_command, "OwnSuperLink", stubborn)
        monkeypatch.setattr(flower_command, "_END_PATIENCE_S", 3.0)
        started_s = time.monotonic()
        assert flower_command.run(flower_command.read_request(["run_dir=run"]), tmp_path) == status
        took_s = time.monotonic() - started_s
        assert pids and not is_alive(pids[0])
        assert (took_s < 3.0) == (status == 130), took_s


SHORT = [
    *(part for part in SMALL_RUN if not part.startswith("steps")),
    "steps=6", "steps_per_round=4", "device=cpu", "peers=simclr_simsiam",
]  # fmt: skip


@pytest.mark.slow
def test_help_and_refusals_need_no_flower(tmp_path: Path) -> None:
    assert "dogo-fed train --help" in dogo_fed("flower", "--help")
    output = dogo_fed("flower", "-m", "seed=1,2", expect=2)
    assert output.startswith("dogo-fed: ") and len(output.splitlines()) == 1
    run_dir = tmp_path / "run"
    output = dogo_fed("flower", "colour=red", f"run_dir={run_dir}", expect=2)
    assert "colour" in output and len(output.splitlines()) == 1
    assert not run_dir.exists()


MARK = "DOGO_FED_TEST"


def marked(mark: str) -> list[str]:
    """Returns the command lines of all processes whose environment has this mark."""
    return [
        " ".join(process.info["cmdline"] or [])
        for process in psutil.process_iter(["environ", "cmdline"])
        if (process.info["environ"] or {}).get(MARK) == mark
    ]


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Marks what is started in the test; nothing of it may be left."""
    monkeypatch.setenv(MARK, str(tmp_path))
    folders = set(Path(tempfile.gettempdir()).glob("dogo-fed-flower-*"))
    yield
    assert not marked(str(tmp_path))
    assert not set(Path(tempfile.gettempdir()).glob("dogo-fed-flower-*")) - folders


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.timeout(600)
def test_the_same_numbers_as_the_reference_and_nothing_left(
    tmp_path: Path, nothing_left: None
) -> None:
    dogo_fed("train", *SHORT, "host=local", f"run_dir={tmp_path / 'reference'}")
    output = dogo_fed("flower", *SHORT, f"run_dir={tmp_path / 'run'}", timeout_s=400)
    assert str(tmp_path / "run") in output and "mutual KL" in output
    assert output.count("run run  flower, seed ") == 1, "the summary is shown once"
    assert digests(tmp_path / "run") == digests(tmp_path / "reference")


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.timeout(600)
def test_a_run_that_can_not_be_fails_with_one_line(tmp_path: Path, nothing_left: None) -> None:
    output = dogo_fed(
        "flower", *SHORT, "data=image_folder", "data.options.root=nowhere", f"run_dir={tmp_path / 'run'}",
        expect=2, cwd=tmp_path, timeout_s=400,
    )  # fmt: skip
    assert output.splitlines()[-1].startswith("dogo-fed: ") and "nowhere" in output.splitlines()[-1]
    assert not (tmp_path / "run").exists()
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.flower
@pytest.mark.kill
@pytest.mark.timeout(900)
def test_sigterm_ends_it_well_and_it_goes_on(tmp_path: Path, nothing_left: None) -> None:
    run_dir = tmp_path / "run"
    long = [part for part in SHORT if not part.startswith("steps=")]
    process = start("flower", *long, "steps=4000", f"run_dir={run_dir}", cwd=tmp_path)
    try:
        _wait_for_checkpoints(run_dir, process)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert f"dogo-fed flower resume={run_dir}" in output
    step = max(int(path.stem.strip("step-")) for path in run_dir.glob("peers/*/checkpoints/*"))
    dogo_fed("flower", f"resume={run_dir}", f"steps={step + 4}", cwd=tmp_path, timeout_s=400)
    dogo_fed("train", *long, f"steps={step + 4}", "host=local", f"run_dir={tmp_path / 'reference'}")
    assert digests(run_dir) == digests(tmp_path / "reference")


def _wait_for_checkpoints(run_dir: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 300
    while len(list(run_dir.glob("peers/*/checkpoints/*"))) < 4:
        assert process.poll() is None, f"the run ended too early:\n{process.communicate()[0]}"
        assert time.monotonic() < deadline, "no checkpoint within 300 s"
        time.sleep(0.1)
