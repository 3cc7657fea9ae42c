"""How GPUs are shared out among peers; Ray only says what there is."""

from __future__ import annotations

import pytest

from clients.ray import room
from configs.compose import compose_run
from dogo_fed.config import RayConfig
from dogo_fed.errors import StartError


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """GPUs of each node; tests fill it."""
    gpus: list[float] = []
    monkeypatch.setattr(
        room, "live_nodes", lambda: [{"Resources": {"GPU": one} if one else {}} for one in gpus]
    )
    return gpus


def shared(num_peers: int, gpus_per_peer: float | None = None) -> float:
    return room.gpus_per_peer(RayConfig(gpus_per_peer=gpus_per_peer), num_peers)


@pytest.mark.parametrize(
    ("nodes", "num_peers", "asked", "share"),
    [
        ([0.0, 0.0], 5, None, 0.0),
        ([2.0], 2, None, 1.0),
        ([1.0, 1.0], 2, None, 1.0),
        ([1.0], 2, None, 0.5),
        ([2.0], 3, None, 0.5),
        ([1.0, 0.0, 1.0], 7, None, 0.25),
        ([2.0], 5, 0.0, 0.0),
        ([2.0], 3, 0.5, 0.5),
        ([1.0, 1.0], 6, 0.33, 0.33),
        ([1.0], 10, 0.1, 0.1),
        ([4.0, 3.0], 3, 2.0, 2.0),
    ],
)
def test_what_fits(
    nodes: list[float], num_peers: int, asked: float | None, share: float, cluster: list[float]
) -> None:
    cluster.extend(nodes)
    assert shared(num_peers, asked) == share


@pytest.mark.parametrize(
    ("nodes", "num_peers", "asked", "advice"),
    [
        ([2.0], 3, 1.0, "ray.gpus_per_peer=0.5"),
        ([2.0], 3, 0.66, "ray.gpus_per_peer=0.5"),
        ([1.0, 1.0], 7, 0.5, "ray.gpus_per_peer=0.25"),
        ([0.0], 2, 1.0, "ray.gpus_per_peer=0,"),
        ([3.0, 3.0], 3, 2.0, "ray.gpus_per_peer=1,"),
        ([1.0, 1.0], 1, 2.0, "no node of the cluster has more than 1"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(
    nodes: list[float], num_peers: int, asked: float | None, advice: str, cluster: list[float]
) -> None:
    cluster.extend(nodes)
    with pytest.raises(StartError, match="GPU") as told:
        shared(num_peers, asked)
    assert advice in str(told.value)


def test_the_advice_always_fits_and_is_taken_where_nothing_is_said(
    cluster: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    cluster.extend([1.0, 2.0])
    for num_peers in range(4, 60):
        with pytest.raises(StartError) as told:
            shared(num_peers, 1.0)
        advised = float(str(told.value).split("ray.gpus_per_peer=")[1].split(",")[0])
        assert advised > 0 and shared(num_peers, advised) == advised
        caplog.clear()
        assert shared(num_peers) == advised
        assert f"{num_peers} peers share the 3 GPUs" in caplog.text
        assert f"ray.gpus_per_peer={advised:g}" in caplog.text


def of_peers(*settings: str) -> dict[str, float]:
    return room.num_gpus_of_peers(compose_run(["data=synthetic", "peers=pair", *settings]))


@pytest.mark.parametrize(
    ("nodes", "settings", "found"),
    [
        ([0.0], ["peers.wide.data_parallel=4"], {"resnet": 0.0, "wide": 0.0}),
        ([2.0], [], {"resnet": 1.0, "wide": 1.0}),
        ([5.0], ["peers.wide.data_parallel=4"], {"resnet": 1.0, "wide": 4.0}),
        ([4.0, 1.0], ["peers.wide.data_parallel=4"], {"resnet": 1.0, "wide": 4.0}),
        (
            [8.0],
            ["peers.wide.data_parallel=4", "ray.gpus_per_peer=2"],
            {"resnet": 2.0, "wide": 2.0},
        ),
    ],
)
def test_a_peer_has_as_many_gpus_as_it_splits_its_passes_among(
    nodes: list[float], settings: list[str], found: dict[str, float], cluster: list[float]
) -> None:
    cluster.extend(nodes)
    assert of_peers(*settings) == found


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([4.0], r"the peers need 5 GPUs \(resnet 1, wide 4; .*the cluster has 4; lower"),
        ([3.0, 3.0], r"wide\.data_parallel=4 needs 4 GPUs on one node, but .* more than 3"),
    ],
)
def test_split_passes_without_enough_gpus_are_told(
    nodes: list[float], said: str, cluster: list[float]
) -> None:
    cluster.extend(nodes)
    with pytest.raises(StartError, match=said):
        of_peers("peers.wide.data_parallel=4")
