"""The files that a run leaves in its folder, by name; docs/using.md says what is in each."""

from __future__ import annotations

from pathlib import Path

CONFIG = "config.yaml"
SITE_CONFIG = "site.yaml"
"""In place of config.yaml at a site of a Flower deployment, with the site's own peer alone."""

METRICS = "metrics.jsonl"
SUMMARY = "summary.json"
PROVENANCE = "provenance.json"
PARTITION = "partition.csv"
"""How many images each part has, where a data set was cut."""

CURVES = "curves.png"
TENSORBOARD = "tensorboard"
EVALUATION = "evaluation"
COORDINATOR_LOG = "coordinator.log"
LOCK = "run.lock"

PEERS = "peers"
"""Has a folder for each peer."""

CHECKPOINTS = "checkpoints"
"""Of a peer, in its folder."""

PEER_LOG = "peer.log"
"""Of a peer, in its folder."""

TRACE = "trace.json"
"""Of a peer in its folder, of all peers in the run's."""


def peer_folder(run_dir: Path, peer: str) -> Path:
    """Returns the folder of a peer in that of its run."""
    return run_dir / PEERS / peer
