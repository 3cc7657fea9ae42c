"""Cells and summaries of a comparison, made up."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from dogo_fed.atomic import write_atomic, write_json_atomic
from dogo_fed.compare.experiment import Cell, Experiment, Method, plan_cells
from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping, to_mapping, to_yaml

PEER = {
    "backbone": {"name": "small_cnn", "options": {"width": 4}},
    "objective": {"name": "simclr", "options": {}},
    "augmentation": {"name": "none", "options": {}},
    "optimizer": {"name": "adam", "options": {"lr": 0.001}},
}


def shared_config(seed: int, names: Sequence[str] = ("big", "small"), **others: Any) -> RunConfig:
    """Returns what the cells of all methods share."""
    content = {"steps": 10, "batch_size": 256, "host": "local", **others}
    return from_mapping(
        {
            "peers": dict.fromkeys(names, PEER),
            "data": {"name": "synthetic"},
            "seed": seed,
            **content,
        }
    )


def made_experiment(**changes: Any) -> Experiment:
    fields: dict[str, Any] = {
        "name": "made",
        "methods": [Method.SOLO, Method.OFFLINE, Method.DOGO],
        "seeds": [0, 1, 2],
        "peers": ["pair"],
        "data": ["synthetic"],
        "overrides": ("rounds=2",),
    }
    return Experiment(**{**fields, **changes})


def made_cells(
    experiment: Experiment, out: Path, names: Sequence[str] = ("big", "small"), **others: Any
) -> list[Cell]:
    configs = {
        (peers, data, seed): shared_config(seed, names, **others)
        for peers in experiment.peers
        for data in experiment.data
        for seed in experiment.seeds
    }
    variants = {
        (variant, *case): varied(config, settings)
        for variant, settings in experiment.variants.items()
        for case, config in configs.items()
    }
    return plan_cells(experiment, out, configs, variants)


def varied(config: RunConfig, settings: Sequence[str]) -> RunConfig:
    """Returns the run with "path=value" settings changed, each at a place that is there already."""
    content = to_mapping(config)
    for setting in settings:
        path, _, value = setting.partition("=")
        *way, last = path.split(".")
        reduce(lambda place, part: place[part], way, content)[last] = yaml.safe_load(value)
    return from_mapping(content)


def write_summary(
    cell: Cell,
    scores: Mapping[str, tuple[float | None, float | None]],
    *,
    wall_s: float = 60.0,
    steps_trained: int = 10,
    events: Sequence[Mapping[str, object]] = (),
    provenance: Sequence[Mapping[str, object]] | None = None,
    health: Mapping[str, float | None] | None = None,
    bytes_per_step: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Writes config.yaml and summary.json; `scores` are linear probe and kNN of every peer."""
    cell.folder.mkdir(parents=True, exist_ok=True)
    write_atomic(cell.folder / "config.yaml", to_yaml(cell.config))
    peers = {
        name: {
            "backbone": f"{name}net",
            "objective": cell.config.peers[name].objective.name,
            "parameters": 1000,
            "knn_top1": knn,
            "linear_top1": linear,
            "knn_top1_untrained": 0.1,
            "ssl_loss": 1.0,
            "mutual_kl": 0.1,
            "state_digest": "ab" * 32,
            "steps_trained": steps_trained,
            **(health or {}),
        }
        for name, (linear, knn) in scores.items()
    }
    write_json_atomic(
        cell.folder / "summary.json",
        {
            "run_id": cell.folder.name,
            "seed": cell.seed,
            "host": "local",
            "steps": 10,
            "wall_s": wall_s,
            "peers": peers,
            "exchange": {
                "enabled": cell.config.exchanges,
                "bytes_up_per_step": bytes_per_step[0],
                "bytes_down_per_step": bytes_per_step[1],
            },
            "events": list(events),
            **({} if provenance is None else {"provenance": list(provenance)}),
        },
    )


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
