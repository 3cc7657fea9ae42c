"""How many cells a Ray cluster has room for."""

from __future__ import annotations

import pytest

from configs.compose import compose_run
from server.comparison import ray_cells
from server.comparison.ray_cells import RayCells


@pytest.mark.parametrize(
    ("share", "gpus", "room"),
    [
        (0.0, [0.0, 0.0], 8),
        (1.0, [2.0, 1.0], 3),
        (0.5, [1.0, 1.0], 4),
        (2.0, [3.0, 3.0], 2),
        (1 / 93, [1.0, 0.0], 93),
    ],
)
def test_a_share_of_a_gpu_is_rounded_as_for_peers(share, gpus, room, monkeypatch) -> None:
    """1 / (1 / 93) is a little less than 93."""
    cpus = 4.0 if share == 0 else 1000.0
    nodes = [{"Resources": {"CPU": cpus, "GPU": one}} for one in gpus]
    monkeypatch.setattr(ray_cells, "gpus_per_peer", lambda settings, num_peers: share)
    monkeypatch.setattr(ray_cells, "live_nodes", lambda: nodes)
    config = compose_run(["data=synthetic", "ray.cpus_per_peer=1", "threads_per_peer=1"])
    assert RayCells(config).room == room
