"""A peer that publishes the similarities of an average of its own weights."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.data.roles import StepImages
from dogo_fed.data.synthetic import synthetic
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.engine.step import absorb, propose, show
from tests.support.run_watch import digests
from tests.support.tiny_run import TINY, run_here
from tests.support.toy_peers import TOY_OBJECTIVES, signal_of, toy_images, toy_peer

CPU = torch.device("cpu")
EVERY = pytest.mark.parametrize("kind", sorted(TOY_OBJECTIVES))


def loaded(*settings):
    return load_run(compose_run([*TINY, *settings]), synthetic(size=96, test_size=16))


def averaged(*settings, momentum=0.9):
    return loaded("peers.wide.teacher=ema", f"peers.wide.teacher_momentum={momentum}", *settings)


def steps(run, number):
    """Returns the peers after some steps of DoGo, and what was shown at each."""
    peers = [run.build_peer(name, CPU) for name in run.peer_ids]
    shown = []
    for step in range(number):
        images = run.images_of(peers[0].id, step, with_labels=False)
        proposals = [propose(peer, images, step) for peer in peers]
        shown.append([show(*pair) for pair in zip(peers, proposals, strict=True)])
        for place, (peer, proposal) in enumerate(zip(peers, proposals, strict=True)):
            absorb(peer, proposal, signal_of(shown[-1][1 - place]))
    return peers, shown


@pytest.mark.parametrize("more", [(), ("peers.wide.chunk_size=6",)])
def test_an_average_without_memory_is_the_peer_itself_bit_for_bit(more):
    """In chunks too: of a whole pass at once it would have other statistics."""
    (_, plain), plain_shown = steps(loaded(*more), 4)
    (_, peer), shown = steps(averaged(*more, momentum=0.0), 4)
    for one, other in zip(shown, plain_shown, strict=True):
        assert [x.p_NN.tobytes() for x in one] == [x.p_NN.tobytes() for x in other]
    own = {n: p for n, p in peer.objective.named_parameters() if not n.startswith("average.")}
    assert own.keys() == dict(plain.objective.named_parameters()).keys()
    assert all(torch.equal(own[n], p) for n, p in plain.objective.named_parameters())


def test_the_average_follows_the_weights_by_its_momentum():
    run = averaged(momentum=0.75)
    peer = run.build_peer("wide", CPU)
    expected = {n: p.clone() for n, p in peer.objective.average.named_parameters()}
    for step in range(3):
        images = run.images_of("wide", step, with_labels=False)
        absorb(peer, propose(peer, images, step), None)
        own = dict(peer.objective.named_parameters())
        expected = {n: 0.75 * p + 0.25 * own[n] for n, p in expected.items()}
    for name, value in peer.objective.average.named_parameters():
        assert torch.allclose(value, expected[name], atol=1e-6)
        assert not value.requires_grad and value.grad is None
    assert not all(torch.equal(own[n], p) for n, p in expected.items())


def test_what_is_shown_is_the_averages_and_what_is_learned_with_is_the_peers():
    run = averaged()
    _, shown = steps(run, 3)
    _, plain = steps(loaded(), 3)
    assert shown[0][1].p_NN.tobytes() == plain[0][1].p_NN.tobytes(), "at first it is the peer"
    assert shown[2][1].p_NN.tobytes() != plain[2][1].p_NN.tobytes()


def test_a_proposal_changes_no_weight_of_the_average_and_can_be_taken_back():
    run = averaged()
    peer = run.build_peer("wide", CPU)
    before = {n: p.clone() for n, p in peer.objective.named_parameters()}
    show(peer, propose(peer, run.images_of("wide", 0, with_labels=False), 0))
    assert all(torch.equal(before[n], p) for n, p in peer.objective.named_parameters())


def test_of_a_pass_with_private_images_the_average_sees_anchors_only():
    run = averaged("partition=iid", "partition.anchors=0.5", "partition.least_images=4")
    peer = run.build_peer("wide", CPU)
    images = run.images_of("wide", 0, with_labels=False)
    proposal = propose(peer, images, 0)
    shown = show(peer, proposal)
    assert shown.p_NN.shape == (8, 8)
    others = images.images_NCHW.clone()
    others[:8] = 255 - others[:8]
    twin = run.build_peer("wide", CPU)
    changed = dataclasses.replace(images, images_NCHW=others)
    assert show(twin, propose(twin, changed, 0)).p_NN.tobytes() == shown.p_NN.tobytes()


def test_no_more_images_pass_through_the_average_at_a_time_than_a_chunk_has():
    run = averaged("peers.wide.chunk_size=6")
    peer, seen = run.build_peer("wide", CPU), []
    peer.objective.average.backbone.register_forward_hook(
        lambda module, given, features: seen.append(len(given[0]))
    )
    show(peer, propose(peer, run.images_of("wide", 0, with_labels=False), 0))
    assert sorted(seen) == [5, 5, 5, 5, 6, 6], "16 images in two views"


def test_the_teachers_temperature_changes_what_is_shown_alone():
    run = loaded("peers.wide.teacher_temperature=0.5")
    sharp, soft = (one.build_peer("wide", CPU) for one in (loaded(), run))
    images = run.images_of("wide", 0, with_labels=False)
    proposals = [propose(peer, images, 0) for peer in (sharp, soft)]
    shown = [show(*pair) for pair in zip((sharp, soft), proposals, strict=True)]
    assert shown[1].negative_entropy < shown[0].negative_entropy
    log_p_NN = soft.log_distribution(proposals[1].output.learn_with)
    assert torch.equal(log_p_NN, sharp.log_distribution(proposals[0].output.learn_with))


def test_the_teachers_temperature_moves_to_its_end_in_equal_parts():
    settings = ["peers.wide.teacher_temperature=0.4", "peers.wide.teacher_temperature_end=0.1"]
    peer = loaded(*settings, "steps=4").build_peer("wide", CPU)
    assert [peer.teacher_temperature_at(step) for step in range(5)] == pytest.approx(
        [0.4, 0.3, 0.2, 0.1, 0.1]
    )
    untold = loaded(settings[1], "peers.wide.kl_temperature=0.3", "steps=2").build_peer("wide", CPU)
    assert [untold.teacher_temperature_at(step) for step in (0, 1)] == pytest.approx([0.3, 0.1])


def test_what_is_shown_at_a_step_has_the_temperature_of_that_step():
    run = loaded("peers.wide.teacher_temperature_end=1.0", "steps=3")
    peer, plain = (one.build_peer("wide", CPU) for one in (run, loaded("steps=3")))
    for step in range(3):
        images = run.images_of("wide", step, with_labels=False)
        moved, same = (show(one, propose(one, images, step)) for one in (peer, plain))
        assert (moved.p_NN.tobytes() == same.p_NN.tobytes()) == (step == 0)
        assert moved.negative_entropy <= same.negative_entropy, "the later, the flatter"


def test_a_run_goes_on_from_its_checkpoint_with_the_average(tmp_path):
    from configs.resume import resumed

    settings = ["peers.wide.teacher=ema", "peers.resnet.teacher=ema"]
    run_here(compose_run([*TINY, "steps=5", *settings, f"run_dir={tmp_path}/whole"]))
    run_here(compose_run([*TINY, *settings, f"run_dir={tmp_path}/parts"]))
    again = [f"resume={tmp_path}/parts", "steps=5"]
    run_here(resumed(compose_run(again), again))
    assert digests(tmp_path / "parts") == digests(tmp_path / "whole")


@EVERY
def test_every_objective_can_be_averaged(kind):
    peer = toy_peer(kind)
    peer.objective.keep_average()
    peer = dataclasses.replace(peer, teacher_momentum=0.5)
    images = StepImages(toy_images(8))
    proposal = propose(peer, images, 0)
    shown = show(peer, proposal)
    absorb(peer, proposal, signal_of(shown))
    assert shown.p_NN.shape == (8, 8)
