"""Where the parts of a checkpoint lie once it is loaded."""

from __future__ import annotations

import torch

from dogo_fed.data.roles import StepImages
from dogo_fed.engine.step import absorb, propose
from dogo_fed.storage.checkpoint import CheckpointStore, Progress
from tests.support.toy_peers import same_bits, state_of, toy_images, toy_peer


def test_the_optimizers_count_of_steps_stays_on_the_cpu(tmp_path, monkeypatch):
    """A peer on a GPU asks for it at every step, parameter by parameter, and would wait each time."""
    store = CheckpointStore(tmp_path, keep=1)
    peer, resumed = toy_peer("simclr"), toy_peer("simclr", seed=1)
    absorb(peer, propose(peer, StepImages(toy_images()), 0), None)
    store.save(peer.objective, peer.optimizer, Progress(step=1))
    load, places = torch.load, []

    def noting(*given, map_location, **options):
        places.append(torch.device(map_location).type)
        return load(*given, map_location=map_location, **options)

    monkeypatch.setattr(torch, "load", noting)
    store.load(1, resumed.objective, resumed.optimizer)
    assert same_bits(state_of(peer), state_of(resumed))
    assert places == ["cpu"]
