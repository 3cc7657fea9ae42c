"""Which GPUs a peer's process sees, on a machine whose GPUs are only counted here."""

from __future__ import annotations

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.errors import ConfigError
from server.hosts import gpus
from server.hosts.gpus import gpus_of_peers, shared_out, visible_gpus


@pytest.fixture
def machine(monkeypatch):
    """Returns a function that makes a machine with so many GPUs for this process."""

    def make(number, visible=None):
        monkeypatch.setattr(torch.cuda, "device_count", lambda: number)
        monkeypatch.setattr(gpus, "resolve_device", lambda name: torch.device("cuda"))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


def config(**parts):
    settings = [f"peers.{name}.data_parallel={number}" for name, number in parts.items()]
    return compose_run(["data=synthetic", "peers=pair", "host=processes", *settings])


@pytest.mark.parametrize(
    ("number", "visible", "seen"),
    [
        (3, None, ["0", "1", "2"]),
        (2, "5,7", ["5", "7"]),
        (2, " GPU-a1 , GPU-b2 ", ["GPU-a1", "GPU-b2"]),
        (1, "2,-1,3", ["2"]),
        (0, "", []),
    ],
)
def test_what_this_process_sees_is_what_is_shared_out(number, visible, seen, machine) -> None:
    machine(number, visible)
    assert visible_gpus() == seen


@pytest.mark.parametrize(
    ("number", "parts", "found"),
    [
        (2, {"a": 1, "b": 1}, {"a": "0", "b": "1"}),
        (4, {"a": 1, "b": 1}, {"a": "0", "b": "1"}),
        (1, {"a": 1, "b": 1, "c": 1}, {"a": "0", "b": "0", "c": "0"}),
        (2, {"a": 1, "b": 1, "c": 1}, {"a": "0", "b": "1", "c": "0"}),
        (4, {"a": 2, "b": 2}, {"a": "01", "b": "23"}),
        (5, {"a": 1, "b": 2, "c": 1}, {"a": "0", "b": "12", "c": "3"}),
        (3, {"a": 1, "b": 2, "c": 1, "d": 1}, {"a": "2", "b": "01", "c": "2", "d": "2"}),
        (2, {"a": 2, "b": 1}, {"a": "01", "b": "0"}),
    ],
)
def test_each_peer_has_its_own_while_there_are_enough(number, parts, found) -> None:
    there = [str(index) for index in range(number)]
    assert {name: "".join(its) for name, its in shared_out(there, parts).items()} == found


def test_peers_that_need_several_do_not_share_them() -> None:
    said = (
        r"peers\.a\.data_parallel=2, peers\.c\.data_parallel=2 needs 4 GPUs, and .* sees 3; lower"
    )
    with pytest.raises(ConfigError, match=said):
        shared_out(["0", "1", "2"], {"a": 2, "b": 1, "c": 2})


def test_a_peer_s_number_among_the_names_decides(machine) -> None:
    machine(3, "4,5,6")
    assert gpus_of_peers(config(wide=2)) == {"resnet": "4", "wide": "5,6"}


def test_where_peers_compute_on_the_cpu_nothing_is_set(machine, monkeypatch) -> None:
    machine(4)
    monkeypatch.setattr(gpus, "resolve_device", lambda name: torch.device("cpu"))
    assert gpus_of_peers(config(wide=2)) == {}
