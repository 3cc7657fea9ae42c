"""What may change when a run goes on: all that decides no trained number, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.compose import compose_run
from configs.resume import resumable_settings, resumed
from dogo_fed.config import Host, RunConfig, Transport
from dogo_fed.errors import ConfigError
from dogo_fed.scope import paths_of
from dogo_fed.storage.run_folder import create

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


def test_a_group_of_settings_may_change_where_its_fixed_ones_are_as_they_were(folder: str) -> None:
    config = gone_on(folder, "exchange=flower", "exchange.symmetric=true", "host=flower")
    assert config.exchange.transport is Transport.FLOWER and config.exchange.symmetric
    assert config.host is Host.FLOWER
    with pytest.raises(ConfigError, match="exchange can't be changed when a run goes on"):
        gone_on(folder, "exchange=flower", "host=flower")


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
        "run_dir=elsewhere",
    ],
)
def test_what_decides_a_trained_number_may_not(folder: str, override: str) -> None:
    key = override.lstrip("+").partition("=")[0].rpartition("@")[2]
    with pytest.raises(ConfigError, match=rf"^{key}.* can't be changed when a run goes on; only "):
        gone_on(folder, override)


def test_the_refusal_lists_what_may_change() -> None:
    listed = resumable_settings()
    assert {"host", "rounds", "steps", "device", "eval.*", "ray.*", "recovery.*"} <= set(listed)
    assert "exchange.deadline_s" in listed and "exchange.symmetric" not in listed
    scopes = dict(paths_of(RunConfig))
    assert all(scopes[path].is_resumable for path in listed if "*" not in path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resume=.* is no run folder: it has no config\.yaml"):
        gone_on(str(tmp_path))
