"""Alone, a peer sees the very images and views that it sees when it is taught: only the teaching differs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.engine.peer import Peer
from tests.support.tiny_run import TINY, run_here

Seen = dict[tuple[str, int], tuple[str, str, str]]


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def seen_in(run_dir: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str):
    """Returns digests of images and of both views, by peer and step; and the final states."""
    seen: Seen = {}
    original = Peer.views

    def views(self: Peer, images_NCHW: torch.Tensor, step: int):
        pair = original(self, images_NCHW, step)
        seen[self.id, step] = (digest(images_NCHW), digest(pair[0]), digest(pair[1]))
        return pair

    with monkeypatch.context() as patch:
        patch.setattr(Peer, "views", views)
        summary = run_here(compose_run([*TINY, f"run_dir={run_dir}", "seed=4", *overrides]))
    return seen, {name: peer["state_digest"] for name, peer in summary["peers"].items()}


def test_views_are_equal_at_every_step_and_only_the_weights_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ("peers=simclr_simsiam",)
    taught, taught_states = seen_in(tmp_path / "dogo", monkeypatch, *both)
    solo, solo_states = seen_in(tmp_path / "solo", monkeypatch, *both, "exchange.enabled=false")
    only, only_states = seen_in(tmp_path / "one", monkeypatch, *both, "~peers.simsiam")
    assert set(taught) == {(peer, step) for peer in ("simclr", "simsiam") for step in range(3)}
    assert solo == taught
    assert only == {key: value for key, value in taught.items() if key[0] == "simclr"}
    assert len(set(taught.values())) == 6, "peers and steps have views of their own"
    assert all(solo_states[peer] != taught_states[peer] for peer in taught_states)
    assert only_states["simclr"] == solo_states["simclr"], (
        "a peer alone is the solo peer, bit for bit"
    )
