"""One step of DoGo (Bhat et al., "Distill on the Go", CVPR Workshops 2021), top to bottom.

Every peer draws its own two views of the same images, minimises its own self-supervised loss, and
is pulled towards what the other peers see as similar: L = L_ssl + weight * mean KL(theirs || mine).
The others' distributions are of the same step, from before the update and in train mode. No
gradient flows to the other peers.

Every session runs these three functions in this order; `show` only at steps that exchange. They
know no network. Between `show` and `absorb` lies the only moment when a tensor leaves a peer.
"""

# N = images whose similarities are exchanged

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from dogo_fed.contracts import FloatMatrix, SimilarityDistribution, TeacherSignal
from dogo_fed.data.roles import StepImages
from dogo_fed.data.to_device import shared_with, to_device
from dogo_fed.engine.peer import Peer, Views, Weights
from dogo_fed.engine.step_losses import StepLosses
from dogo_fed.objectives.base import ObjectiveOutput, ViewPair
from dogo_fed.objectives.mutual import distillation_loss, mutual_kl


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a peer has computed by itself at a step: its own loss and its embeddings, with graph.

    `has_gradient`: the graph is done with already, see `Peer.go_back_ahead`.
    """

    step: int
    output: ObjectiveOutput
    views: Views
    images: StepImages
    weights: Weights | None
    has_gradient: bool = False


def propose(peer: Peer, images: StepImages, step: int) -> Proposal:
    """Does the forward pass; changes nothing but the running statistics of the normalisation."""
    views = peer.views(images.images_NCHW, step)
    weights = peer.weights_apart()
    return Proposal(step, peer.encode(views, images, step, weights), views, images, weights)


def show(peer: Peer, proposal: Proposal) -> SimilarityDistribution:
    """Returns the one tensor that leaves the peer.

    Raises:
        TrainingError: it is not finite, so nothing leaves.
    """
    taught = peer.teaching_pair(proposal.output, proposal.views, proposal.images, proposal.step)
    shown = peer.distribution(taught, proposal.step)
    if not math.isfinite(shown.negative_entropy):
        raise peer.diverged("the similarity distribution", shown.negative_entropy, proposal.step)
    return shown


def absorb(peer: Peer, proposal: Proposal, signal: TeacherSignal | None) -> StepLosses:
    """Updates the weights with the peer's own loss and, if there was a teacher, the mutual KL.

    Raises:
        TrainingError: see `Peer.update`.
    """
    ssl_loss = loss = proposal.output.ssl_loss
    kl = ssl_loss.new_zeros(())
    if signal is not None and signal.mean_NN is not None:
        learn_with, weight = proposal.output.learn_with, peer.distill_weight_at(proposal.step)
        kl = divergence(peer, learn_with, signal.mean_NN, signal.negative_entropy)
        if signal.reverse is not None:  # both view directions: the mean of the two
            back = signal.reverse
            kl = (kl + divergence(peer, learn_with.swapped(), back.p_NN, back.negative_entropy)) / 2
        loss = loss + distillation_loss(kl, weight, peer.reduction, len(signal.mean_NN))
    peer.update(loss, proposal.step, proposal.weights, has_gradient=proposal.has_gradient)
    return StepLosses(ssl_loss, kl)


def divergence(
    peer: Peer, pair: ViewPair, mean_NN: FloatMatrix, negative_entropy: float
) -> torch.Tensor:
    """Returns the mean KL(theirs || mine) over the teachers, mean over rows, in nats."""
    mean_q_NN = to_device(shared_with(mean_NN), peer.device)
    return mutual_kl(peer.log_distribution(pair), mean_q_NN, negative_entropy)
