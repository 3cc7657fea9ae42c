"""From Flower's run configuration to the run's settings."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import shlex
import signal
import traceback
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from flwr.app import ConfigRecord, Message, RecordDict

from configs.compose import compose_run
from dogo_fed.assignment import Assignment
from dogo_fed.config import Host, Transport
from dogo_fed.contracts import Outcome
from dogo_fed.errors import ConfigError, DogoError, ExchangeError, Stopped
from dogo_fed.exit_status import EXIT_STOPPED, status_of
from dogo_fed.reporting.summary import was_stopped
from dogo_fed.storage.run_folder import create
from dogo_fed.wire import dogo_pb2 as pb
from server.commands.flower import report
from server.flower import app as server_app
from server.flower.app import configuration, run
from server.flower.superlink import COMPLETED, RunStatus
from tests.support.fake_flower import AtOnce, FakeGrid, answered, request_of
from tests.support.tiny_run import TINY

DEFAULTS = {
    "peers": "",
    "data": "",
    "exchange": "",
    "rounds": 0,
    "steps": 0,
    "steps-per-round": 0,
    "seed": 0,
    "run-dir": "",
    "hydra-overrides": "",
}
"""What pyproject.toml has."""


def configured(**changes):
    return configuration({**DEFAULTS, **{key.replace("_", "-"): changes[key] for key in changes}})


def test_the_defaults_are_those_of_every_run_under_flower():
    assert configured() == compose_run(["host=flower"]) == configuration({})
    assert configured().host is Host.FLOWER


def test_plain_keys_are_settings():
    config = configured(
        peers="trio",
        data="synthetic",
        exchange="flower",
        rounds=3,
        steps_per_round=7,
        seed=5,
        run_dir="/somewhere/run",
    )
    assert sorted(config.peers) == ["cnn", "resnet", "wide"]
    assert config.data.name == "synthetic"
    assert config.exchange.transport is Transport.FLOWER
    assert (config.rounds, config.steps_per_round, config.seed) == (3, 7, 5)
    assert config.run_dir == "/somewhere/run"
    assert configured(steps=9).steps == 9


@pytest.fixture
def flowers_log():
    """What Flower's logger writes, tracebacks included."""
    written, log = io.StringIO(), logging.getLogger("flwr")
    handler, before = logging.StreamHandler(written), list(log.filters)
    log.addHandler(handler)
    yield written
    log.removeHandler(handler)
    log.filters[:] = before


def end_the_app(run_config):
    """Ends the app as Flower does, which logs what was raised."""
    context = SimpleNamespace(run_config={**DEFAULTS, **run_config})
    with pytest.raises(DogoError) as raised:
        server_app.main(None, context)
    log = logging.getLogger("flwr")
    log.error("%s raised an exception", "ServerApp", exc_info=raised.value)
    log.error("".join(traceback.format_exception(raised.value)))


def test_a_users_mistake_is_a_sentence_and_no_traceback(flowers_log, capsys, tmp_path):
    nowhere = tmp_path / "nowhere"
    end_the_app({"data": "image_folder", "hydra-overrides": f"data.options.root={nowhere}"})
    assert flowers_log.getvalue() == "ServerApp raised an exception\n"
    assert f"dogo-fed: there is no folder {nowhere}" in capsys.readouterr().out


def test_a_users_own_code_that_fails_keeps_its_traceback(flowers_log, monkeypatch, tmp_path):
    (tmp_path / "images_that_fail_under_flower.py").write_text(
        "def load():\n    raise RuntimeError('my mistake')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    end_the_app({"data": "own", "hydra-overrides": "data.name=images_that_fail_under_flower:load"})
    assert (
        "images_that_fail_under_flower.py" in flowers_log.getvalue()
        and "my mistake" in flowers_log.getvalue()
    )


@pytest.mark.parametrize("nothing", [0, "", None])
def test_nothing_leaves_every_setting_at_its_default(nothing):
    keys = set(DEFAULTS) - {"hydra-overrides"}
    assert configuration({**DEFAULTS, **dict.fromkeys(keys, nothing)}) == compose_run(
        ["host=flower"]
    )


def test_flowers_own_keys_of_the_run_are_not_settings():
    assert configured(publisher="dogo", num_clients=3) == configured()


@pytest.mark.parametrize(
    "path",
    ["/data/my runs/a,b", "/data/a=b", "/data/(1)/{x}/it's", "/1", "/a\\b (1)", "/ends\\"],
)
def test_any_absolute_path_can_be_the_run_folder(path):
    assert configured(run_dir=path).run_dir == path


@pytest.mark.parametrize("path", ["runs/x", "x"])
def test_a_relative_run_folder_is_refused(path):
    with pytest.raises(ConfigError, match="must be an absolute path"):
        configured(run_dir=path)
    with pytest.raises(ConfigError, match="must be an absolute path"):
        configured(hydra_overrides=f"run_dir={path}")


def test_overrides_are_split_as_a_shell_does_it():
    config = configured(
        hydra_overrides="batch_size=32  exchange.deadline_s=60.5 'run_dir=/my data/x y' "
        '"peers.resnet.distill_weight=0.25"'
    )
    assert config.batch_size == 32 and config.exchange.deadline_s == 60.5
    assert config.run_dir == "/my data/x y"
    assert config.peers["resnet"].distill_weight == 0.25


def test_overrides_come_after_the_plain_keys():
    assert configured(seed=3, hydra_overrides="seed=4").seed == 4


def test_short_forms_are_those_of_every_command():
    config = configured(peers="[resnet18,mobilenet_v2]", data="/photos (1)/a,b")
    assert sorted(config.peers) == ["mobilenet_v2", "resnet18"]
    assert (config.data.name, config.data.options["root"]) == ("image_folder", "/photos (1)/a,b")
    assert {peer.augmentation.name for peer in config.peers.values()} == {"simclr"}
    overrides = "peers.wide.backbone=resnet34 peers.wide.data=/private"
    wide = configured(hydra_overrides=overrides).peers["wide"]
    assert wide.backbone.name == "resnet34"
    assert wide.data is not None and wide.data.options["root"] == "/private"
    with pytest.raises(ConfigError, match="type rounds=3"):
        configured(hydra_overrides="epochs=3")


@pytest.mark.parametrize("overrides", ["data=./photos", "root=photos", "peers.wide.data=../photos"])
def test_a_relative_folder_of_images_is_refused(overrides):
    with pytest.raises(ConfigError, match="must be an absolute path"):
        configured(hydra_overrides=overrides)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("'batch_size=32", "can't be split into settings"),
        ("batch_sise=32", "batch_sise"),
        ("batch_size=x", "batch_size must be a whole number"),
        ("batch_size", "batch_size"),
        ("exchange=smoke_signals", "smoke_signals"),
    ],
)
def test_overrides_that_are_none_are_refused_with_their_name(overrides, message):
    with pytest.raises(ConfigError, match=message):
        configured(hydra_overrides=overrides)


@pytest.mark.parametrize("key", ["rounds", "seed"])
def test_a_plain_key_of_the_wrong_type_is_refused(key):
    with pytest.raises(ConfigError, match=f"{key} must be"):
        configuration({**DEFAULTS, key: "many"})


# ---- a stop while the nodes are searched ----


@pytest.mark.usefixtures("flower_identity")
def test_a_stop_before_the_nodes_are_there_ends_the_run_as_stopped(tmp_path):
    """Not as one that failed or could not be started: the user wanted it."""
    grid, calls = FakeGrid({}, AtOnce()), []

    def interrupt(call):
        calls.append(call)
        if len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    grid.trouble = interrupt
    folder = tmp_path / "run"
    overrides = shlex.join([*TINY[:-1], f"run_dir={folder}"])
    summary = run(grid, {**DEFAULTS, "hydra-overrides": overrides})
    _, event = summary["events"]
    assert event["message"] == "stopped by the user before every peer had a Flower node"
    assert was_stopped(summary) and summary["peers"] == {}
    assert report(RunStatus(COMPLETED), "", folder) == EXIT_STOPPED


@pytest.mark.usefixtures("flower_identity")
def test_a_stop_before_a_run_goes_on_is_told_as_one(tmp_path, monkeypatch):
    folder = create(compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/run"])).path
    before = sorted(folder.iterdir())
    monkeypatch.setattr(server_app, "_stop_before_exit", lambda: nullcontext(lambda: True))
    with pytest.raises(Stopped, match=r"stopped by the user .*; the run is as it was") as caught:
        run(FakeGrid({}, AtOnce()), {**DEFAULTS, "hydra-overrides": f"resume={folder}"})
    assert status_of(caught.value) == EXIT_STOPPED
    assert sorted(folder.iterdir()) == before


# ---- going on with a run ----


@pytest.fixture
def saved(tmp_path):
    run = compose_run(
        ["data=synthetic", "peers=trio", "batch_size=16", "steps=6", "seed=3", "host=processes"]
    )
    folder = create(dataclasses.replace(run, run_dir=str(tmp_path / "earlier")))
    return str(folder.path)


def test_a_run_that_goes_on_keeps_its_settings(saved):
    config = configured(hydra_overrides=f"resume={saved}")
    assert (config.batch_size, config.seed, config.steps) == (16, 3, 6)
    assert sorted(config.peers) == ["cnn", "resnet", "wide"] and config.data.name == "synthetic"
    assert config.host is Host.FLOWER and config.resume == saved


def test_a_run_that_goes_on_may_become_longer(saved):
    config = configured(hydra_overrides=f"resume={saved} steps=12 recovery.max_restarts=7")
    assert config.steps == 12 and config.recovery.max_restarts == 7
    assert configured(rounds=9, hydra_overrides=f"resume={saved}").steps is None


@pytest.mark.parametrize("changes", [{"seed": 4}, {"data": "digits_m"}, {"peers": "pair"}])
def test_a_run_that_goes_on_can_not_become_another(saved, changes):
    with pytest.raises(ConfigError, match="can't be changed when a run goes on"):
        configured(**changes, hydra_overrides=f"resume={saved}")


def test_a_run_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no run folder"):
        configured(hydra_overrides=f"resume={tmp_path}")


def test_a_relative_folder_to_go_on_with_is_refused_as_such(saved, tmp_path, monkeypatch):
    """Flower's server process works in another folder, where there may be another run of this name."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="absolute"):
        configured(hydra_overrides="resume=earlier")


@pytest.mark.usefixtures("flower_identity")
def test_the_summary_names_no_settings_that_sites_decide(tmp_path):
    """What the coordinator has in their place was not used by anybody."""

    def site(peer):
        def reply(message):
            if message.metadata.message_type == "query.hello":
                about = {"peer": peer, "is-site": True, "partition-id": -1, "num-partitions": 0}
                return Message(RecordDict({"about": ConfigRecord(about)}), reply_to=message)
            unfit = Outcome.UNFIT.value
            answer = pb.HostReply(state=pb.ENDED, outcome=unfit, message="enough")
            return answered(message, answer.SerializeToString())

        return reply

    folder = tmp_path / "run"
    teaching = ["exchange=flower", "exchange.symmetric=true", "peers.wide.distill_weight=2"]
    overrides = shlex.join([*TINY[:-1], "peers=pair", *teaching, f"run_dir={folder}"])
    with pytest.raises(ExchangeError, match="enough"):
        run(FakeGrid({7: site("resnet"), 8: site("wide")}, AtOnce()),
            {**DEFAULTS, "hydra-overrides": overrides})  # fmt: skip
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["variants"] == {"exchange.symmetric": True}


@pytest.mark.usefixtures("flower_identity")
def test_a_deployment_goes_on_from_the_newest_checkpoints_that_its_sites_share(tmp_path):
    folder = create(compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/run"])).path
    told = {}

    def site(peer, steps):
        def reply(message):
            if message.metadata.message_type == "query.hello":
                about = {"peer": peer, "is-site": True, "partition-id": -1, "num-partitions": 0}
                return Message(RecordDict({"about": ConfigRecord(about)}), reply_to=message)
            request = request_of(message)
            answer = pb.HostReply(state=pb.UNKNOWN, checkpoints=steps)
            if request.assignment:
                told[peer] = Assignment.from_json(request.assignment).checkpoint_step
            if not request.asks_checkpoints:
                unfit = Outcome.UNFIT.value
                answer = pb.HostReply(state=pb.ENDED, outcome=unfit, message="enough")
            return answered(message, answer.SerializeToString())

        return reply

    grid = FakeGrid({7: site("resnet", "1 2"), 8: site("wide", "2 3")}, AtOnce())
    with pytest.raises(ExchangeError, match="enough"):
        run(grid, {**DEFAULTS, "hydra-overrides": f"resume={folder} exchange=flower"})
    assert told == {"resnet": 2, "wide": 2}
    assert "goes on at step 2" in (folder / "metrics.jsonl").read_text()
