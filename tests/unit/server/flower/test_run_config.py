"""Settings in Flower's run configuration: what is written is what is read."""

from __future__ import annotations

import tomllib

import pytest

from dogo_fed.errors import ConfigError
from server.flower.run_config import OVERRIDES_KEY, read_run_config, write_run_config


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=3", "~peers.wide"],
        ["run_dir='/a b/it\\'s'", 'x="y"', "root=/a\\b\\"],
        ["data=/ünï 写真"],
    ],
)
def test_what_is_written_is_read(overrides: list[str]) -> None:
    assert read_run_config(tomllib.loads(write_run_config(overrides))) == overrides


def test_plain_keys_come_first_and_stay_as_they_were_typed() -> None:
    content = {OVERRIDES_KEY: "seed=4", "peers": "[a,b]", "steps-per-round": 7, "rounds": 0}
    assert read_run_config(content) == ["peers=[a,b]", "steps_per_round=7", "seed=4"]
    assert read_run_config({"run-dir": "/it's"}) == ["run_dir='/it\\'s'"]


def test_what_can_not_be_split_is_refused() -> None:
    with pytest.raises(ConfigError, match="hydra-overrides can't be split into settings"):
        read_run_config({OVERRIDES_KEY: "'batch_size=32"})
