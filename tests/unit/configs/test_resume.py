"""What may change when a run goes on: all that decides no trained number, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.compose import compose_run
from configs.overrides import path_of
from configs.resume import resumable_settings, resumed
from dogo_fed.config import Host, RunConfig, Transport
from dogo_fed.config_text import load_run_config
from dogo_fed.errors import ConfigError
from dogo_fed.scope import changed, paths_of
from dogo_fed.storage.run_folder import create, reopen

SETTINGS = (
    "data=synthetic",
    "peers=pair",
    "steps=6",
    "exchange.symmetric=true",
    "ray.cpus_per_peer=3",
    "eval.knn_k=9",
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(create(compose_run([*SETTINGS, f"run_dir={tmp_path}/run"])).path)


def gone_on(folder: str, *overrides: str) -> RunConfig:
    given = [*overrides, f"resume={folder}"]
    return resumed(compose_run(given), given)


@pytest.mark.parametrize(
    "override",
    [
        "exchange.deadline_s=7",
        "exchange.join_deadline_s=7",
        "exchange.reconnect_s=7",
        "eval.knn_k=7",
        "eval.linear=false",
        "checkpoint.keep=7",
        "checkpoint.every_steps=7",
        "recovery.silence_s=7",
        "coordinator.port=7",
        "ray.address=auto",
        "steps=7",
    ],
)
def test_what_decides_no_trained_number_may_change_alone(folder: str, override: str) -> None:
    before, after = gone_on(folder), gone_on(folder, override)
    path = override.partition("=")[0].split(".")
    old: object = before
    new: object = after
    for name in path:
        old, new = getattr(old, name), getattr(new, name)
    assert new != old
    undone = compose_run([*SETTINGS, override, f"run_dir={before.run_dir}", f"resume={folder}"])
    assert after == undone, "nothing else has changed"


def test_a_choice_of_a_group_changes_what_the_choice_is_about_and_nothing_else(folder: str) -> None:
    config = gone_on(folder, "exchange=flower", "host=flower")
    assert config.exchange.transport is Transport.FLOWER and config.exchange.symmetric
    assert config.host is Host.FLOWER
    assert gone_on(folder, "exchange=grpc").exchange.transport is Transport.GRPC


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("eval.batch_size=256", {"eval.batch_size"}),
        ("eval={batch_size:256}", {"eval.batch_size"}),
        ("eval={batch_size:256,linear:false}", {"eval.batch_size", "eval.linear"}),
        ("coordinator.port=7", {"coordinator.port"}),
        ("coordinator={port:7}", {"coordinator.port"}),
        ("ray={address:auto}", {"ray.address"}),
        ("exchange.deadline_s=7", {"exchange.deadline_s"}),
        ("exchange={deadline_s:7}", {"exchange.deadline_s"}),
        ("~eval.linear_epochs", {"eval.linear_epochs"}),
    ],
)
def test_only_the_settings_that_are_named_change(tmp_path: Path, override, named) -> None:
    everything_else = (
        "eval.knn_k=20", "eval.knn_every_rounds=3", "eval.linear_epochs=7", "ray.cpus_per_peer=3",
        "ray.placement=SPREAD", "coordinator.certificate=chain.pem", "coordinator.private_key=k.pem",
        "coordinator.address=127.0.0.1", "exchange.join_deadline_s=5", "exchange.symmetric=true",
    )  # fmt: skip
    run = create(compose_run(["data=synthetic", f"run_dir={tmp_path}/run", *everything_else]))
    after = gone_on(str(run.path), override)
    assert set(changed(load_run_config(run.path), after)) == {*named, "resume"}


def test_the_views_that_followed_from_the_images_stay(tmp_path: Path) -> None:
    photographs = ["data=image_folder", "data.options.root=/photos", f"run_dir={tmp_path}/run"]
    path = str(create(compose_run(photographs)).path)
    for after in (gone_on(path), gone_on(path, "eval.knn_k=7"), gone_on(path, *photographs[:2])):
        assert {peer.augmentation.name for peer in after.peers.values()} == {"simclr"}


def test_how_one_start_goes_on_is_not_kept(folder: str) -> None:
    config = gone_on(folder, "afresh=true")
    assert config.afresh and config.resume == folder
    reopen(Path(folder), config, 6, lambda step: step)
    kept = load_run_config(folder)
    assert kept.resume is None and not kept.afresh
    assert not gone_on(folder).afresh
    with pytest.raises(ConfigError, match="name its folder by resume="):
        compose_run(["afresh=true"])


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "batch_size=7",
        "steps_per_round=3",
        "threads_per_peer=2",
        "exchange.symmetric=false",
        "exchange.enabled=false",
        "peers=trio",
        "peers.wide.distill_weight=7",
        "backbone@peers.wide.backbone=small_cnn",
        "data=digits_m",
        "+data.options.size=96",
        "+data.options.root=/elsewhere",
        "run_dir=elsewhere",
    ],
)
def test_what_decides_a_trained_number_may_not(folder: str, override: str) -> None:
    key = path_of(override)
    with pytest.raises(ConfigError, match=rf"^{key}.* can't be changed when a run goes on; only "):
        gone_on(folder, override)


def test_the_refusal_lists_what_may_change() -> None:
    listed = resumable_settings()
    assert {"host", "rounds", "steps", "device", "ray.*", "recovery.*"} <= set(listed)
    assert "eval.* (but not eval.test_share)" in listed
    assert "exchange.deadline_s" in listed and "exchange.symmetric" not in listed
    scopes = dict(paths_of(RunConfig))
    assert all(scopes[path].is_resumable for path in listed if "*" not in path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resume=.* is no run folder: it has no config\.yaml"):
        gone_on(str(tmp_path))
