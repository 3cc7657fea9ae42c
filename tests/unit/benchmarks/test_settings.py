"""Runs made without Hydra: the same peers and data as with it, and overrides that name what is wrong."""

from __future__ import annotations

import pytest

from benchmarks.settings import PEERS, peers_named, run_of_processes
from configs.compose import compose_run
from dogo_fed.config import Encoding
from dogo_fed.errors import ConfigError


def test_the_default_pair_is_that_of_the_configuration_tree() -> None:
    ours, composed = run_of_processes("pair", 30), compose_run(["peers=pair"])
    assert ours.peers == composed.peers
    assert ours.data == composed.data


def test_each_set_of_peers_can_be_built() -> None:
    assert all(len(peers_named(name)) == 2 for name in PEERS)


def test_overrides_set_settings_by_their_paths() -> None:
    config = run_of_processes(
        "pair",
        30,
        (
            "exchange.encoding=float16",
            "exchange.enabled=false",
            "peers.wide.distill_weight=0",
            "data=synthetic",
            "data.options.size=64",
        ),
    )
    assert config.exchange.encoding is Encoding.FLOAT16
    assert not config.exchanges
    assert config.peers["wide"].distill_weight == 0
    assert (config.data.name, dict(config.data.options)) == ("synthetic", {"size": 64})


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("exchange.encodings=float16", "no setting exchange.encodings; did you mean 'encoding'"),
        ("exchang.encoding=float16", "no setting exchang.encoding; did you mean 'exchange'"),
        ("seed.of.all=1", "seed has no settings"),
        ("float16", "no override"),
    ],
)
def test_an_override_that_can_not_be_says_why(override: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run_of_processes("pair", 30, [override])


def test_a_set_of_peers_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no peers 'pear' .*did you mean 'pair'"):
        peers_named("pear")
