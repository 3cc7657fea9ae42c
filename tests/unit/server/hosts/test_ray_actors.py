"""What Ray is asked to reserve for the peers of a run; Ray itself is not there."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError

from configs.compose import compose_run
from dogo_fed.contracts import Ending, Outcome, PeerId
from dogo_fed.errors import StartError
from server.hosts import ray_actors
from server.hosts.ray_actors import RayHandle, RayLauncher, bundles_of

PEERS = (PeerId("resnet"), PeerId("wide"))


@pytest.fixture
def cluster(monkeypatch) -> list[list[dict[str, float]]]:
    """What was asked of a cluster that has room for everything, but not in time."""
    asked: list[list[dict[str, float]]] = []

    def group(bundles: list[dict[str, float]], strategy: str) -> Any:
        asked.append(bundles)
        return SimpleNamespace(wait=lambda timeout_seconds: False)

    monkeypatch.setattr(ray_actors, "placement_group", group)
    monkeypatch.setattr(ray_actors, "remove_placement_group", lambda group: None)
    monkeypatch.setattr(ray_actors, "room", lambda: "Ray has none")
    return asked


@pytest.mark.parametrize(
    ("gpus", "told"),
    [
        ({"resnet": 1.0, "wide": 4.0}, r"peers of \{.*'GPU': 1.0\}, \{.*'GPU': 4.0\}, placement"),
        ({"resnet": 0.5, "wide": 0.5}, r"2 peers of \{'CPU': 1.0, 'GPU': 0.5\} each, placement"),
    ],
)
def test_each_peer_has_a_bundle_of_its_own_size(gpus, told, cluster, monkeypatch) -> None:
    monkeypatch.setattr(ray_actors, "num_gpus_of_peers", lambda config: gpus)
    config = compose_run(["data=synthetic", "peers=pair", "ray.cpus_per_peer=1.0"])
    with pytest.raises(StartError, match=told):
        RayLauncher(config, PEERS, "first")
    assert cluster == [[{"CPU": 1.0, "GPU": gpus[peer]} for peer in PEERS]]


def test_a_bundle_is_never_empty() -> None:
    assert bundles_of(0.0, [0.0, 2.0]) == [{"CPU": 0.001}, {"GPU": 2.0}]
    assert bundles_of(2.0, [0.0]) == [{"CPU": 2.0}]


NODE_GONE = "The actor died.\nThe actor is dead because its node has died. Node Id: 9c"
BROKEN = """ray::PeerActor.__init__() (pid=7)
  File "/home/ada/mine.py", line 3, in embed
AttributeError: no attribute 'projector'
"""


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        ((0, "all is well"), Ending(Outcome.FINISHED, "all is well")),
        (
            RayActorError("0a1b", NODE_GONE),
            "died (its actor's process 7 is gone). Ray says: The actor is dead because its node has "
            "died. Node Id: 9c",
        ),
        (RayActorError("0a1b", "The actor died."), "died (its actor's process 7 is gone)"),
        (RayActorError("0a1b", BROKEN), "failed: AttributeError: no attribute 'projector'"),
        (
            RayTaskError("run", BROKEN, AttributeError("x"), "ray::PeerActor.run", 7, "127.0.0.1"),
            "failed: AttributeError: x",
        ),
    ],
)
def test_how_a_peer_ended_is_told_with_what_ray_knows_of_it(outcome, told, monkeypatch) -> None:
    def get(future: object, timeout: float) -> object:
        if future == "where":
            return {"pid": 7, "node_id": "ab", "cuda_visible_devices": ""}
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def remote(future: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *given: future)

    is_ready = [False, True]
    monkeypatch.setattr(ray_actors.ray, "get", get)
    monkeypatch.setattr(
        ray_actors.ray,
        "wait",
        lambda futures, timeout: (futures, []) if is_ready.pop(0) else ([], futures),
    )
    actor = SimpleNamespace(where=remote("where"), run=remote("run"))
    assignment: Any = SimpleNamespace(to_json=lambda: "{}")
    handle = RayHandle(PEERS[0], actor, assignment)
    assert handle.ending() is None and handle.ending() == told
