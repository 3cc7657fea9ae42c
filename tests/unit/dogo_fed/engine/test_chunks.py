"""A pass in chunks: the gradient of the whole batch, with the graph of one chunk at a time."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from configs.compose import compose_run
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation import state_digest
from dogo_fed.objectives import base
from dogo_fed.objectives.catalog import OBJECTIVES
from tests.support.distributions import distribution
from tests.support.networks import NoBatchStatistics, wide_peer
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here
from tests.support.toy_peers import signal_of

CPU = torch.device("cpu")
CHUNKS = "peers.wide.chunk_size=6"
"""Three chunks of a batch of 16: 6, 5 and 5."""


def trained(*settings, backbone=None, steps=2):
    """Returns a peer after some steps with a teacher, with the gradient of the last."""
    run, peer = wide_peer(*settings, backbone=backbone)
    teacher = distribution(seed=5, size=16)
    for step in range(steps):
        proposal = propose(peer, run.images_of("wide", step, with_labels=False), step)
        show(peer, proposal)
        absorb(peer, proposal, signal_of(teacher))
    return peer


def gradients(peer):
    return [one.grad for one in peer.objective.parameters() if one.requires_grad]


def test_the_gradient_is_that_of_the_whole_batch():
    torch.manual_seed(0)
    backbone = NoBatchStatistics()
    whole, chunked = (
        trained(*settings, backbone=backbone, steps=1) for settings in ((), (CHUNKS,))
    )
    for one, two in zip(gradients(whole), gradients(chunked), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - {"supervised"}))
def test_what_is_computed_again_changes_nothing(objective, monkeypatch):
    """As if the graphs of all chunks were kept: weights, running statistics, momentum encoders."""
    settings = [CHUNKS, f"objective@peers.wide.objective={objective}"]
    if objective != "simclr":
        settings[1] += "_small"
    again = trained(*settings)
    monkeypatch.setattr(
        base, "checkpoint", lambda function, *arguments, use_reentrant: function(*arguments)
    )
    kept = trained(*settings)
    assert state_digest(again.objective) == state_digest(kept.objective)
    monkeypatch.undo()
    assert state_digest(trained(settings[1]).objective) != state_digest(kept.objective)


def test_random_layers_draw_the_same_again():
    backbone = nn.Sequential(NoBatchStatistics(), nn.Dropout(0.5))
    first, second = (trained(CHUNKS, backbone=backbone, steps=1) for _ in "ab")
    assert state_digest(first.objective) == state_digest(second.objective)
    torch.manual_seed(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            base, "checkpoint", lambda function, *arguments, use_reentrant: function(*arguments)
        )
        kept = trained(CHUNKS, backbone=backbone, steps=1)
    assert state_digest(first.objective) == state_digest(kept.objective)


def kept_for_the_backward_pass(*settings):
    """Returns how many numbers the graph of a pass keeps."""
    run = load_run(compose_run([*TINY, *settings]), synthetic(size=96, test_size=16))
    peer = run.build_peer("wide", CPU)
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda one: sizes.append(one.numel()) or one, lambda one: one
    ):
        propose(peer, run.images_of("wide", 0, with_labels=False), 0)
    return sum(sizes)


def test_the_graph_keeps_no_more_than_the_embeddings():
    assert kept_for_the_backward_pass(CHUNKS) < 0.1 * kept_for_the_backward_pass()


def test_a_run_in_chunks_goes_on_bit_for_bit(tmp_path):
    from configs.resume import resumed

    short = [one for one in TINY if one != "steps=3"]
    run_here(compose_run([*short, CHUNKS, "steps=4", f"run_dir={tmp_path}/one"]))
    run_here(compose_run([*short, CHUNKS, "steps=2", f"run_dir={tmp_path}/two"]))
    again = [f"resume={tmp_path}/two", "steps=4"]
    run_here(resumed(compose_run(again), again))
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


@pytest.mark.parametrize("chunk_size", range(2, 9))
def test_no_chunk_has_a_single_image(chunk_size):
    """BatchNorm has no statistics of it; 5 images in chunks of 2 are 3 and 2."""
    for number in range(2, 40):
        chunks = torch.zeros(number).tensor_split(base.num_chunks(number, chunk_size))
        sizes = [len(one) for one in chunks]
        assert min(sizes) >= 2
        assert max(sizes) <= (chunk_size if chunk_size > 2 else 3 if number % 2 else 2)
    assert base.num_chunks(1, chunk_size) == base.num_chunks(0, chunk_size) == 1


def test_an_odd_pass_in_chunks_of_two_is_trained(tmp_path):
    run_here(compose_run([*TINY, "batch_size=7", "peers.wide.chunk_size=2", f"run_dir={tmp_path}"]))


def test_a_chunk_of_one_image_is_refused():
    with pytest.raises(ConfigError, match="chunk_size must be at least 2 or null, not 1"):
        compose_run([*TINY, "peers.wide.chunk_size=1"])
