"""One training core, the same numbers in every host: equal digests, bit for bit."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dogo_fed.wire.encodings.log8 import Log8
from tests.support.command_line import SMALL_RUN, dogo_fed

PEERS = {
    "simclr_simsiam": ["simclr", "simsiam"],
    "trio": ["cnn", "resnet", "wide"],
}


Reference = Callable[[str], dict[str, str]]
WITH_TRIO = pytest.mark.parametrize(
    "peers", ["simclr_simsiam", pytest.param("trio", marks=pytest.mark.slow)]
)

VARIANTS = (
    "peers=trio",
    "exchange.symmetric=true",
    "exchange.every_steps=3",
    "exchange.rows=features",
    "exchange.weighting=certain",
    "exchange.graph={cnn: {resnet: 0.3, wide: 1.7}, wide: {cnn: 1}}",
    "peers.wide.distill_warmup_steps=20",
    "peers.wide.distill_weight=1.5",
    "peers.cnn.distill_weight=0.5",
    "peers.resnet.distill_weight=0.5",
    "peers.cnn.features_temperature=0.3",
    "peers.cnn.gate=agreement",
    "peers.resnet.teacher=ema",
    "peers.wide.teacher_temperature_end=0.02",
    "exchange.encoding=log8",
)


def digests(run_dir: Path) -> dict[str, str]:
    summary = json.loads((run_dir / "summary.json").read_text())
    return {name: peer["state_digest"] for name, peer in summary["peers"].items()}


OTHER_SETS = (
    "partition.anchors_from=synthetic",
    "partition.anchors_from.options.seed=9",
    "peers.d_wide.data=synthetic",
    "peers.d_wide.data.options.seed=5",
    "peers.d_wide.data.options.size=90",
)
"""Anchors of another data set, and a site with images of its own instead of a part of the cut."""

HOSTS = {
    "local": ("train", "host=local"),
    "processes": ("train", "host=processes"),
    "ray": ("train", "host=ray"),
    "flower": ("flower",),
    "flower messages": ("flower", "exchange=flower"),
}
"""Every way to run, with the command that does."""


RUN_WITHIN_S = 400.0


def within(num_runs: int) -> pytest.MarkDecorator:
    """Returns the time limit of a test that does so many runs, one after the other."""
    return pytest.mark.timeout(num_runs * RUN_WITHIN_S + 60)


def by_host(folder: Path, hosts: Iterable[str], *settings: str) -> dict[str, dict[str, str]]:
    """Runs the same settings in several hosts; returns the digests of each."""
    found = {}
    for name in hosts:
        run_dir = folder / name.replace(" ", "_")
        dogo_fed(
            HOSTS[name][0], *SMALL_RUN, *HOSTS[name][1:], *settings, f"run_dir={run_dir}",
            timeout_s=RUN_WITHIN_S,
        )  # fmt: skip
        found[name] = digests(run_dir)
    return found


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Returns a function that gives the digests of peers in one process, carried out once."""

    @functools.cache
    def carried_out(peers: str) -> dict[str, str]:
        run_dir = tmp_path_factory.mktemp("reference") / "run"
        dogo_fed("train", *SMALL_RUN, "host=local", f"peers={peers}", f"run_dir={run_dir}")
        return digests(run_dir)

    return carried_out


@WITH_TRIO
def test_all_peers_are_trained_and_differ(peers: str, reference: Reference) -> None:
    assert sorted(reference(peers)) == PEERS[peers]
    assert len(set(reference(peers).values())) == len(PEERS[peers])


@pytest.mark.grpc
@WITH_TRIO
def test_processes_equal_one_process(peers: str, reference: Reference, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    dogo_fed("train", *SMALL_RUN, "host=processes", f"peers={peers}", f"run_dir={run_dir}")
    assert digests(run_dir) == reference(peers)


@pytest.mark.slow
@pytest.mark.grpc
def test_with_all_variants_on_processes_equal_one_process(
    reference: Reference, tmp_path: Path
) -> None:
    found = {}
    for host in ("local", "processes"):
        run_dir = tmp_path / host
        output = dogo_fed("train", *SMALL_RUN, *VARIANTS, f"host={host}", f"run_dir={run_dir}")
        found[host] = digests(run_dir)
        summary = json.loads((run_dir / "summary.json").read_text())
        assert sorted(summary["variants"]) == sorted(
            part.partition("=")[0] for part in VARIANTS if "." in part.partition("=")[0]
        )
        assert "variant: exchange.every_steps=3" in output
    assert found["local"] == found["processes"]
    # The ResNet has no teachers, and is another one than where it has some.
    assert all(found["local"][peer] != reference("trio")[peer] for peer in PEERS["trio"])
    # An exchange at 17 of 50 steps: two matrices of 32 x 32 up, two down for those who learn.
    exchange, matrix = summary["exchange"], Log8().num_bytes(32)
    assert matrix < 4096 / 3
    assert 17 / 50 * 2 * matrix < exchange["bytes_up_per_step"] < 17 / 50 * (2 * matrix + 500)
    down = 17 / 50 * 2 / 3 * 2 * matrix
    assert down < exchange["bytes_down_per_step"] < down + 17 / 50 * 500


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.flower
@within(num_runs=5)
def test_with_private_images_and_all_variants_every_host_equals_one_process(
    tmp_path: Path,
) -> None:
    found = by_host(tmp_path, HOSTS, *VARIANTS, "partition=dirichlet", "partition.alpha=0.1")
    assert len(set(found["local"].values())) == len(found["local"])
    assert {name: one for name, one in found.items() if one != found["local"]} == {}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.flower
@within(num_runs=5)
@pytest.mark.parametrize(
    ("peers", "number", "more"), [("pair", 2, ()), ("sites", 4, ()), ("sites", 4, OTHER_SETS)]
)
def test_sites_with_private_images_equal_one_process_in_every_host(
    peers: str, number: int, more: tuple[str, ...], tmp_path: Path
) -> None:
    sites = (
        f"peers={peers}",
        "partition=dirichlet",
        "partition.alpha=0.1",
        "exchange.rows=features",
    )
    found = by_host(tmp_path, HOSTS, *sites, *more)
    assert len(set(found["local"].values())) == number
    assert {name: one for name, one in found.items() if one != found["local"]} == {}


@pytest.mark.slow
@pytest.mark.ray
@within(num_runs=3)
def test_looking_ahead_every_host_that_can_equals_one_process(tmp_path: Path) -> None:
    ahead = ("peers=trio", "exchange.lookahead=1", "exchange.symmetric=true")
    found = by_host(tmp_path, ("local", "processes", "ray"), *ahead)
    assert {name: one for name, one in found.items() if one != found["local"]} == {}


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.flower
@within(num_runs=6)
def test_a_teacher_from_a_weights_file_is_the_same_in_other_processes(tmp_path: Path) -> None:
    source = tmp_path / "source"
    dogo_fed("train", *SMALL_RUN, "host=local", "peers=trio", f"run_dir={source}")
    encoder = source / "peers" / "resnet" / "encoder.safetensors"
    taught = ("peers=trio", "exchange.rows=features", f"peers.resnet.frozen_from={encoder}")
    found = by_host(tmp_path, HOSTS, *taught)
    for host in HOSTS:
        peers = json.loads((tmp_path / host.replace(" ", "_") / "summary.json").read_text())[
            "peers"
        ]
        assert peers["resnet"]["steps_trained"] == 0 and peers["wide"]["mutual_kl"] > 0
    assert {name: one for name, one in found.items() if one != found["local"]} == {}


@pytest.mark.ray
@WITH_TRIO
def test_ray_actors_equal_one_process(peers: str, reference: Reference, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    dogo_fed("train", *SMALL_RUN, "host=ray", f"peers={peers}", f"run_dir={run_dir}")
    assert digests(run_dir) == reference(peers)


@pytest.mark.slow
def test_another_seed_and_no_exchange_give_other_numbers(
    reference: Reference, tmp_path: Path
) -> None:
    seen = [reference("simclr_simsiam")]
    for name, change in {"seed": "seed=1", "alone": "exchange.enabled=false"}.items():
        run_dir = tmp_path / name
        dogo_fed(
            "train", *SMALL_RUN, "host=local", "peers=simclr_simsiam", change, f"run_dir={run_dir}"
        )
        seen.append(digests(run_dir))
    for peer in PEERS["simclr_simsiam"]:
        assert len({one[peer] for one in seen}) == 3


# ---------------------------------------------------------------------------------------------------
# Objectives with a state of their own, and the others

SHORT = [part for part in SMALL_RUN if not part.startswith("steps")] + [
    "peers=pair",
    "steps_per_round=4",
    "eval.linear=false",
]
MIXED = [("moco_v3", "barlow_twins"), ("vicreg", "byol"), ("simsiam", "moco_v2")]


def of_objectives(resnet: str, wide: str) -> list[str]:
    return [
        f"objective@peers.resnet.objective={resnet}_small",
        f"objective@peers.wide.objective={wide}_small",
    ]


@pytest.mark.slow
@pytest.mark.grpc
@pytest.mark.parametrize(("resnet", "wide"), MIXED)
def test_any_mix_of_objectives_is_the_same_in_processes(
    resnet: str, wide: str, tmp_path: Path
) -> None:
    found = {}
    for host in ("local", "processes"):
        run_dir = tmp_path / host
        chosen = of_objectives(resnet, wide)
        dogo_fed("train", *SHORT, "steps=8", *chosen, f"host={host}", f"run_dir={run_dir}")
        found[host] = digests(run_dir)
    assert found["processes"] == found["local"]
    assert sorted(found["local"]) == ["resnet", "wide"]


@pytest.mark.slow
def test_a_resumed_run_with_a_queue_and_a_target_is_the_uninterrupted_one(tmp_path: Path) -> None:
    chosen = of_objectives("moco_v2", "byol")
    found = {}
    for name, steps in (("whole", 8), ("resumed", 4)):
        run_dir = tmp_path / name
        dogo_fed("train", *SHORT, *chosen, f"steps={steps}", "host=local", f"run_dir={run_dir}")
        if name == "resumed":
            dogo_fed("train", f"resume={run_dir}", "steps=8", "host=local")
        found[name] = digests(run_dir)
    assert found["resumed"] == found["whole"]
