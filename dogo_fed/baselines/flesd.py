"""FLESD: in each round the sites' similarities of common images become one, and all distil it.

Source: Shi et al., "Towards Communication-Efficient and Privacy-Preserving Federated Representation
Learning" (arXiv 2109.14611; first called "Federated Self-Supervised Contrastive Learning via
Ensemble Similarity Distillation"). With S_k the cosines of the projections of the common images at
site k:

    E = mean_k exp(S_k / tau),    row i of the target: E_i / sum_j E_ij
    L = - mean_i sum_j target_ij log softmax_j(q_i . k_j / tau)

q is a view's projection, at unit length. k_j are keys: projections by a slowly following copy of the
network (He et al. 2020, momentum 0.999), in a queue of common images into which those of the step go
first. So the target of an image is largest at its own key. Default tau is 0.1, for both.

What differs from the published code: there, a server distils a network of its own, which replaces
that of every site. Here every site distils into its own, so that sites may have different networks.
The last steps of every `every_rounds`-th round (`share` of its steps) distil, and do nothing else,
so that all methods make the same number of updates. They use the anchors of their passes alone;
private images in them enter no loss. An image has one key in the queue, which begins with the
projections of `keys` common images, as they are and in evaluation mode. The optimizer is that of
the run.

What a site would send is counted as the fewer numbers: its similarities (half of a symmetric
matrix), or its projections, as the published code has it. What it would get is the ensemble, or the
projections of all others.
"""

# N = anchors in the step's batch, A = common images, K = those that have a key, D = dimension,
# S = sites

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from dogo_fed import seeding
from dogo_fed.baselines.base import FLOAT_BYTES, Baseline, check_anchors
from dogo_fed.contracts import PeerId
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import Proposal
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.subject import Encoder, Inputs
from dogo_fed.exchange.base import Traffic
from dogo_fed.objectives.momentum import MomentumEncoder
from dogo_fed.objectives.similarity import products, unit_rows


def ensemble(similarities_NK: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
    """Returns the target, N x K: E from every site's cosines, each row divided by its sum."""
    all_SNK = torch.stack(list(similarities_NK))
    most_1N1 = all_SNK.amax(dim=(0, 2), keepdim=True)  # cancels out, and nothing overflows
    mean_NK = ((all_SNK - most_1N1) / temperature).exp().mean(dim=0)
    return mean_NK / mean_NK.sum(dim=1, keepdim=True)


def distillation(
    query_ND: torch.Tensor, keys_KD: torch.Tensor, target_NK: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Returns L, in nats.

    Args:
        query_ND: projections of the images, at unit length.
        keys_KD: the keys, at unit length.
        target_NK: what each image's similarities to them should be; rows sum to 1.
        temperature: tau.
    """
    log_p_NK = (products(query_ND, keys_KD) / temperature).log_softmax(dim=1)
    return -(target_NK * log_p_NK).sum(dim=1).mean()


class FLESD(Baseline):
    """The last steps of every round distil the ensemble of all sites' similarities."""

    def __init__(
        self,
        run: LoadedRun,
        peers: Sequence[Peer],
        *,
        every_rounds: int = 1,
        share: float = 0.25,
        temperature: float = 0.1,
        keys: int = 1024,
        momentum: float = 0.999,
    ) -> None:
        """Lets the peers give the projections of the anchors.

        Args:
            run: its settings and data.
            peers: all of them, in name order.
            every_rounds: which rounds end in steps that distil; the last one does in any case.
            share: of such a round's steps that distil.
            temperature: tau.
            keys: most common images that have a key.
            momentum: of the network that makes the keys.

        Raises:
            ConfigError: an option is out of range, or some passes hold no anchors.
        """
        super().__init__(run, peers)
        check_anchors(run, "flesd")
        if (
            every_rounds < 1
            or not 0 < share < 1
            or not temperature > 0
            or keys < run.config.anchors_per_step
            or not 0 <= momentum < 1
        ):
            raise ConfigError(
                "flesd: every_rounds must be 1 or more, share between 0 and 1, temperature above 0, keys "
                f"at least {run.config.anchors_per_step} (the anchors of a pass), momentum at least 0 and "
                f"below 1; not {every_rounds}, {share}, {temperature}, {keys}, {momentum}"
            )
        self._every_rounds, self._share = every_rounds, share
        self._temperature, self._momentum = temperature, momentum
        self._num_keys = min(keys, len(run.data.shared.train))
        self._projections_AD: list[torch.Tensor] = []
        self._key_ids_K = torch.empty(0, dtype=torch.int64)
        self._encoders: dict[PeerId, MomentumEncoder] = {}
        self._keys_KD: dict[PeerId, torch.Tensor] = {}
        for peer in peers:
            peer.objective.learn_with = "projector"

    def first_distillation(self, step: int) -> int | None:
        """Returns the step of this step's round from which on it distils; None if it does not."""
        plan = self.run.plan
        number = plan.round_of(step)
        first, end = (number - 1) * plan.steps_per_round, plan.end_of(number)
        if number % self._every_rounds and end < plan.total_steps:
            return None
        return end - math.ceil(self._share * (end - first))

    def begin_step(self, step: int) -> None:
        """Makes the ensemble at the first step that distils; moves the networks of the keys later."""
        first = self.first_distillation(step)
        if step == first:
            self._begin(step)
        elif first is not None and step > first:
            for peer in self.peers:
                objective = peer.objective
                self._encoders[peer.id].follow(objective.backbone, objective.projector)

    def losses(
        self, step: int, proposals: Mapping[PeerId, Proposal]
    ) -> Mapping[PeerId, tuple[torch.Tensor, Traffic]]:
        """Returns the own losses, or those of the distillation."""
        first = self.first_distillation(step)
        if first is None or step < first:
            return super().losses(step, proposals)
        ids_N = self.run.schedule.sample_ids(step)
        ids_N = ids_N[: len(next(iter(proposals.values())).output.learn_with.a_ND)]
        old_K = (~torch.isin(self._key_ids_K, ids_N)).nonzero().flatten()
        old_K = old_K[max(0, len(old_K) + len(ids_N) - self._num_keys) :]  # without the oldest
        self._key_ids_K = torch.cat([self._key_ids_K[old_K], ids_N])
        for peer, proposal in proposals.items():
            new_ND = self._new_keys(peer, proposal)
            self._keys_KD[peer] = torch.cat([self._keys_KD[peer][old_K], new_ND])
        target_NK = ensemble(
            [products(z_AD[ids_N], z_AD[self._key_ids_K]) for z_AD in self._projections_AD],
            self._temperature,
        )
        traffic = self._traffic() if step == first else Traffic()
        return {
            peer: (
                distillation(
                    unit_rows(proposal.output.learn_with.a_ND),
                    self._keys_KD[peer],
                    target_NK,
                    self._temperature,
                ),
                traffic,
            )
            for peer, proposal in proposals.items()
        }

    def _begin(self, step: int) -> None:
        """Takes every site's projections, and begins the queues with some of them."""
        run, shared = self.run, self.run.data.shared.train
        order = torch.randperm(
            len(shared), generator=seeding.generator(run.config.seed, "flesd keys", step)
        )
        self._key_ids_K = order[: self._num_keys]
        self._projections_AD = []
        for peer in self.peers:
            objective = peer.objective
            network = nn.Sequential(objective.backbone, objective.projector)
            seen = Encoder(
                name=peer.id,
                backbone=network,
                inputs=Inputs.of(run.data_of(peer.id).own),
                device=peer.device,
            )
            z_AD = unit_rows(seen.features(shared).features_NF.to(peer.device))
            self._projections_AD.append(z_AD)
            self._keys_KD[peer.id] = z_AD[self._key_ids_K]
            encoder = MomentumEncoder(objective.backbone, objective.projector, self._momentum, None)
            self._encoders[peer.id] = encoder.to(peer.device).train()

    @torch.no_grad()
    def _new_keys(self, peer_id: PeerId, proposal: Proposal) -> torch.Tensor:
        """Returns the keys of a step's anchors, by the second view, N x D."""
        rows = slice(None) if proposal.images.shared is None else proposal.images.shared
        # Of the whole pass, so that keys and queries are normalised by the same images.
        return unit_rows(self._encoders[peer_id](proposal.views[1])[rows])

    def _traffic(self) -> Traffic:
        num_images = len(self._projections_AD[0])
        similarities = num_images * (num_images - 1) // 2
        sizes = [z_AD.numel() for z_AD in self._projections_AD]
        largest = max(sizes)
        return Traffic(
            FLOAT_BYTES * min(similarities, largest),
            FLOAT_BYTES * min(similarities, sum(sizes) - largest),
        )
