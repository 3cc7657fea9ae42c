"""A step on trial, for a peer of which a part is the user's own code.

A network that can't be trained fails here, before the run begins, with its own traceback.
"""

from __future__ import annotations

import copy
import dataclasses
import logging

import torch

from dogo_fed import components
from dogo_fed.contracts import TeacherSignal
from dogo_fed.data.augment import RECIPES
from dogo_fed.data.roles import StepImages
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import absorb, propose, show
from dogo_fed.errors import ConfigError, OwnCodeError, TrainingError
from dogo_fed.models.catalog import BACKBONES
from dogo_fed.objectives.catalog import KNOWN

logger = logging.getLogger(__name__)

_MOST_IMAGES = 8


def try_own_code(run: LoadedRun, peer: Peer) -> None:
    """Does the run's first step with a few images and a copy of the peer, which is then dropped.

    A peer that is made of our own parts is not tried; a frozen one neither, for it does not learn.

    Raises:
        OwnCodeError: the step can't be done; the cause is what the user's code raised.
        ConfigError: the step moves nothing of the backbone.
    """
    if peer.is_frozen or not has_own_code(run, peer):
        return
    if peer.objective.uses_labels and peer.id not in run.here:
        return  # the classes are where the images are
    try:
        objective = copy.deepcopy(peer.objective)
    except Exception as error:  # a module of the user's own may hold what can't be copied
        words = components.error_in_words(error)
        logger.info("peer=%s is not tried: it can't be copied: %s", peer.id, words)
        return
    still = torch.optim.SGD(objective.parameters(), lr=0.0)
    copied = dataclasses.replace(peer, objective=objective, optimizer=still, learning_rate=None)
    step = 0
    images = run.images_of(peer.id, step, with_labels=objective.uses_labels)
    try:
        do_with_itself(copied, _few(images), step)
    except TrainingError:
        return  # numbers that are not finite: training says that itself, and of its own images
    except Exception as error:
        raise OwnCodeError(
            f"peer {peer.id!r} can't do a step of training: {components.error_in_words(error)}"
        ) from error

    learning = [
        parameter for parameter in objective.backbone.parameters() if parameter.requires_grad
    ]
    if learning and all(parameter.grad is None for parameter in learning):
        raise ConfigError(
            f"no gradient reaches the backbone of peer {peer.id!r}, so it would not learn: its "
            "forward pass must not detach its result, nor run under torch.no_grad"
        )


def has_own_code(run: LoadedRun, peer: Peer) -> bool:
    """Whether backbone, objective or augmentation of a peer are not ours."""
    settings = run.config.peers[peer.id]
    return peer.id in run.backbones or not (
        components.is_known(settings.backbone.name, BACKBONES)
        and components.is_known(settings.objective.name, KNOWN)
        and settings.augmentation.name in RECIPES
    )


def do_with_itself(peer: Peer, images: StepImages, step: int) -> None:
    """Does a step in which the peer is its own teacher.

    Raises:
        TrainingError: its numbers are not finite.
    """
    proposal = propose(peer, images, step)
    shown = show(peer, proposal)
    signal = TeacherSignal(shown.p_NN, shown.negative_entropy, (peer.id,), step + 1)
    absorb(peer, proposal, signal)
    peer.check_updates()


def _few(images: StepImages) -> StepImages:
    labels = None if images.labels_P is None else images.labels_P[:_MOST_IMAGES]
    return StepImages(images.images_NCHW[:_MOST_IMAGES], labels)
