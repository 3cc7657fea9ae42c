"""Seeded steps of two toy peers, and their numbers.

A difference means that runs give other numbers than before. If that is meant, say so in the changelog
and write the file anew: pytest tests/golden --rewrite-golden
"""

from __future__ import annotations

import json
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest
import torch

from dogo_fed.config import Rows
from dogo_fed.data.roles import StepImages
from dogo_fed.data.schedule import Schedule
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.objectives.mutual import Reduction
from tests.support.toy_peers import RUN_SEED, TOY_OBJECTIVES, signal_of, toy_peer

FOLDER = Path(__file__).parent
TOLERANCE = 1e-4
"""Relative: other processors and other builds of torch round and sum in another order."""
DATA_SEED = 3
"""These images bring no ReLU so near to 0 that rounding decides: weights that are off by 2e-7 of
themselves move the numbers by less than a twentieth of the tolerance."""


def sgd(objective):
    return torch.optim.SGD(objective.parameters(), lr=0.02, momentum=0.9)


def adam(objective):
    """Adam with a large epsilon: with the default one, tiny gradients turn rounding into steps."""
    return torch.optim.Adam(objective.parameters(), lr=3e-3, eps=1e-3)


def run_steps(
    num_steps: int, batch_size: int, weight: float, reduction: Reduction
) -> dict[str, dict[str, list[float]]]:
    """Returns the numbers of a SimCLR and a SimSiam peer, see `numbers_of`."""
    peers = [
        toy_peer("simclr", weight=weight, reduction=reduction, optimizer=sgd),
        toy_peer("simsiam", weight=weight, reduction=reduction, optimizer=adam),
    ]
    return numbers_of(peers, num_steps, batch_size)


def numbers_of(
    peers: list[Peer], num_steps: int, batch_size: int
) -> dict[str, dict[str, list[float]]]:
    """Returns losses per peer and step of two peers, and the size of each one's weights after the last."""
    dataset = synthetic(size=256, test_size=4, image_size=8, seed=DATA_SEED)
    schedule = Schedule(seed=RUN_SEED, num_samples=256, batch_size=batch_size)
    numbers: dict[str, dict[str, list[float]]] = {
        peer.id: {"ssl_loss": [], "mutual_kl": [], "weight_norm": []} for peer in peers
    }
    for step in range(num_steps):
        images = dataset.train.images(schedule.sample_ids(step))
        proposals = [propose(peer, StepImages(images), step) for peer in peers]
        shown = [show(*pair) for pair in zip(peers, proposals, strict=True)]
        for peer, proposal, other in zip(peers, proposals, reversed(shown), strict=True):
            losses = absorb(peer, proposal, signal_of(other))
            numbers[peer.id]["ssl_loss"].append(losses.ssl_loss)
            numbers[peer.id]["mutual_kl"].append(losses.mutual_kl)
    for peer in peers:
        weights = torch.cat([one.detach().flatten() for one in peer.objective.parameters()])
        numbers[peer.id]["weight_norm"].append(weights.norm().item())
    return numbers


def compare(numbers: dict[str, dict[str, list[float]]], name: str, rewrite: bool) -> None:
    path = FOLDER / f"{name}.json"
    if rewrite:
        path.write_text(json.dumps(numbers, indent=2) + "\n")
    check(numbers, json.loads(path.read_text()), path.name)


def check(numbers: dict[str, Any], golden: dict[str, Any], where: str) -> None:
    assert numbers.keys() == golden.keys()
    for peer, series in golden.items():
        assert numbers[peer].keys() == series.keys()
        for quantity, values in series.items():
            assert numbers[peer][quantity] == pytest.approx(values, rel=TOLERANCE, abs=1e-5), (
                f"{quantity} of {peer} in {where}"
            )


@pytest.fixture
def rewrite(request) -> bool:
    return bool(request.config.getoption("--rewrite-golden"))


def test_ten_steps_of_two_peers(rewrite):
    compare(run_steps(10, 16, 0.4, Reduction.BATCHMEAN), "two_peers", rewrite)


def test_the_published_convention(rewrite):
    """Weight 100 over all N * N elements at N = 256, as the published code has it."""
    numbers = run_steps(4, 256, 100.0, Reduction.MEAN_OVER_ELEMENTS)
    compare(numbers, "published_convention", rewrite)
    assert numbers == run_steps(4, 256, 100 / 256, Reduction.BATCHMEAN)


def test_the_golden_numbers_depend_on_the_exchange():
    """They pin the mutual learning too: without it they would be others, by far."""
    golden = json.loads((FOLDER / "two_peers.json").read_text())
    alone = run_steps(10, 16, 0.0, Reduction.BATCHMEAN)
    for peer, series in golden.items():
        assert min(series["mutual_kl"]) > 0.01
        last = series["ssl_loss"][-1]
        assert abs(alone[peer]["ssl_loss"][-1] - last) > 10 * TOLERANCE * abs(last)


# ---------------------------------------------------------------------------------------------------
# Every pair of objectives

PAIRS = [f"{a}+{b}" for a, b in combinations_with_replacement(sorted(TOY_OBJECTIVES), 2)]
PAIRS_PATH = FOLDER / "objective_pairs.json"


def run_pair(
    pair: str, weight: float = 0.4, rows: Rows | None = None
) -> dict[str, dict[str, list[float]]]:
    """Ten steps of two peers; in float64, so that rounding decides nothing on the way."""
    kinds = pair.split("+")
    peers = [
        toy_peer(
            kind,
            name=f"{kind}-{seed}",
            dtype=torch.float64,
            weight=weight,
            rows=rows,
            optimizer=sgd,
            seed=seed,
        )
        for seed, kind in enumerate(kinds)
    ]
    return numbers_of(peers, 10, 16)


def write_pairs(path: Path, content: dict[str, Any]) -> None:
    """Writes one line for each series, six digits a number."""
    pairs = []
    for pair in sorted(content):
        peers = [
            f'"{peer}": {{{", ".join(line(*item) for item in series.items())}}}'
            for peer, series in content[pair].items()
        ]
        pairs.append(f'"{pair}": {{\n  {f",{chr(10)}  ".join(peers)}\n}}')
    path.write_text("{\n" + ",\n".join(pairs) + "\n}\n")


def line(quantity: str, values: list[float]) -> str:
    return f'"{quantity}": [{", ".join(f"{value:.6g}" for value in values)}]'


def compare_pair(numbers: dict[str, Any], pair: str, path: Path, rewrite: bool) -> None:
    """Compares with what the file has of this pair; writes that anew if asked to."""
    if rewrite:
        golden = json.loads(path.read_text()) if path.exists() else {}
        write_pairs(path, {**{key: golden[key] for key in golden if key in PAIRS}, pair: numbers})
    check(numbers, json.loads(path.read_text())[pair], f"{pair} of {path.name}")


@pytest.mark.parametrize("pair", PAIRS)
def test_ten_steps_of_every_pair_of_objectives(pair, rewrite):
    compare_pair(run_pair(pair), pair, PAIRS_PATH, rewrite)


def test_the_file_has_every_pair_and_no_other():
    assert sorted(json.loads(PAIRS_PATH.read_text())) == sorted(PAIRS)
    assert len(PAIRS) == len(TOY_OBJECTIVES) * (len(TOY_OBJECTIVES) + 1) // 2


@pytest.mark.parametrize("kind", sorted(TOY_OBJECTIVES))
def test_the_pairs_numbers_depend_on_the_exchange(kind):
    golden = json.loads(PAIRS_PATH.read_text())[f"{kind}+{kind}"]
    alone = run_pair(f"{kind}+{kind}", weight=0.0)
    for peer, series in golden.items():
        assert min(series["mutual_kl"]) > 1e-3
        (norm,), (norm_alone,) = series["weight_norm"], alone[peer]["weight_norm"]
        assert abs(norm - norm_alone) > 2 * TOLERANCE * norm


# ---------------------------------------------------------------------------------------------------
# Rows of the features: every objective with SimCLR

FEATURES_PATH = FOLDER / "feature_rows.json"
WITH_SIMCLR = [pair for pair in PAIRS if "simclr" in pair.split("+")]


@pytest.mark.parametrize("pair", WITH_SIMCLR)
def test_ten_steps_of_every_objective_with_rows_of_the_features(pair, rewrite):
    numbers = run_pair(pair, rows=Rows.FEATURES)
    compare_pair(numbers, pair, FEATURES_PATH, rewrite)
    projector = json.loads(PAIRS_PATH.read_text())[pair]
    for peer, series in numbers.items():
        # The first step's own loss is from before any teaching.
        first, first_there = series["ssl_loss"][0], projector[peer]["ssl_loss"][0]
        assert first == pytest.approx(first_there, rel=TOLERANCE)
        assert min(series["mutual_kl"]) > 0.1
        kl, kl_there = series["mutual_kl"][-1], projector[peer]["mutual_kl"][-1]
        assert abs(kl - kl_there) > 0.1 * kl


def test_the_file_of_the_features_has_every_objective():
    assert sorted(json.loads(FEATURES_PATH.read_text())) == sorted(WITH_SIMCLR)
    assert len(WITH_SIMCLR) == len(TOY_OBJECTIVES)
