"""Loss and published pair from different images of one pass, for every objective."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch

from dogo_fed.data.roles import StepImages
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.objectives.base import Objective
from tests.support.toy_peers import (
    TOY_OBJECTIVES,
    WITH_TARGET,
    same_bits,
    signal_of,
    state_of,
    toy_images,
    toy_objective,
    toy_peer,
)

OWN, SHARED = slice(0, 6), slice(6, 10)
EVERY = pytest.mark.parametrize("kind", sorted(TOY_OBJECTIVES))
PUBLISHED = [
    *((kind, "projector") for kind in sorted(TOY_OBJECTIVES)),
    *((kind, "target") for kind in WITH_TARGET),
]


def views(number: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    images = toy_images(2 * number).float() / 255
    return images[:number], images[number:]


@EVERY
def test_all_rows_are_the_same_as_none_named_bit_for_bit(kind: str) -> None:
    everything = slice(0, 10)
    plain, named = toy_objective(kind), toy_objective(kind)
    expected, got = plain(*views()), named(*views(), own=everything, shared=everything)
    assert torch.equal(expected.ssl_loss, got.ssl_loss)
    for pair in ("learn_with", "publish"):
        for view in ("a_ND", "b_ND"):
            assert torch.equal(
                getattr(getattr(expected, pair), view), getattr(getattr(got, pair), view)
            )


@pytest.mark.parametrize(("kind", "publish"), PUBLISHED)
def test_one_pass_gives_the_loss_of_some_images_and_the_pair_of_others(kind, publish) -> None:
    """Against embeddings of the same pass, cut by hand."""
    objective = toy_objective(kind, publish=publish)
    twin = copy.deepcopy(objective)
    output = objective(*views(), own=OWN, shared=SHARED)
    seen = twin.embed(*views())
    loss = twin.loss({name: z_ND[:6] for name, z_ND in seen.items()})
    assert torch.equal(output.ssl_loss, loss)
    assert torch.equal(output.publish.a_ND, seen[f"{publish}_a"][6:])
    assert torch.equal(output.publish.b_ND, seen[f"{publish}_b"][6:])
    assert len(output.learn_with.a_ND) == 4


@EVERY
def test_the_loss_does_not_see_images_that_are_only_shared(kind: str) -> None:
    objective = toy_objective(
        kind
    ).eval()  # in train mode, normalisation mixes the images of a pass
    a, b = views()
    changed_a, changed_b = a.clone(), b.clone()
    changed_a[SHARED], changed_b[SHARED] = 0.7, 0.1
    loss = objective(a, b, own=OWN, shared=SHARED).ssl_loss
    again = objective(changed_a, changed_b, own=OWN, shared=SHARED)
    assert torch.allclose(loss, again.ssl_loss, atol=1e-6)
    assert not torch.allclose(
        objective(a, b, own=OWN, shared=SHARED).publish.a_ND, again.publish.a_ND
    )


def test_a_queue_takes_the_keys_of_the_images_that_the_loss_sees() -> None:
    objective = toy_objective("moco_v2")
    objective(*views(), own=OWN, shared=SHARED)
    objective.after_update()
    assert int(objective.queue_position) == 6


@EVERY
def test_a_step_shows_the_shared_images_only_and_learns_from_both(kind: str) -> None:
    images = StepImages(toy_images(10), own=OWN, shared=SHARED)
    teacher = toy_peer("simsiam", name="teacher")
    shown = show(teacher, propose(teacher, images, 0))
    assert shown.p_NN.shape == (4, 4)
    taught, alone = toy_peer(kind), toy_peer(kind)
    losses = absorb(taught, propose(taught, images, 0), signal_of(shown))
    absorb(alone, propose(alone, images, 0), None)
    assert losses.mutual_kl > 0
    assert not same_bits(state_of(taught), state_of(alone))


def test_labels_are_those_of_the_images_that_the_loss_sees() -> None:
    seen: list[torch.Tensor | None] = []

    class Watching(Objective):
        uses_labels = True
        learn_with = publish = "features"

        def embed(self, view_a_NCHW, view_b_NCHW):
            return {
                "features_a": self.backbone(view_a_NCHW),
                "features_b": self.backbone(view_b_NCHW),
            }

        def loss(self, seen_by_it, labels_N=None):
            seen.append(labels_N)
            assert len(seen_by_it["features_a"]) == len(labels_N)
            return seen_by_it["features_a"].square().mean()

    peer = toy_peer("simclr")
    objective = Watching(peer.objective.backbone)
    labels_P = torch.arange(6)
    images = StepImages(toy_images(10), labels_P, OWN, SHARED)
    watching = dataclasses.replace(peer, objective=objective)
    proposal = propose(watching, images, 0)
    assert np.array_equal(seen[0], labels_P)
    assert len(proposal.output.publish.a_ND) == 4
