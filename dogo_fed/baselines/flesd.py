"""FLESD: in each round the sites' similarities of common images become one, and all distil it.

Source: Shi et al., "Towards Communication-Efficient and Privacy-Preserving Federated Representation
Learning" (arXiv 2109.14611; first called "Federated Self-Supervised Contrastive Learning via
Ensemble Similarity Distillation"). With S_k the cosines of the projections of the common images at
site k:

    E = mean_k exp(S_k / tau),    row i of the target: E_i / sum_j E_ij
    L = - mean_i sum_j target_ij log softmax_j(q_i . k_j / tau)

q is a view's projection, at unit length. k_j are keys: projections by a slowly following copy of the
network (He et al. 2020, momentum 0.999). Default tau is 0.1, for both.

What differs from the published code: there, a server distils a network of its own, which replaces
that of every site. Here every site distils into its own, so that sites may have different networks.
A round's last steps (`share` of them) distil, and do nothing else, so that all methods make the
same number of updates. They use the anchors of their passes alone. The queue of keys is a table
with a key for each of at most `keys` common images, filled at its beginning. The optimizer is that
of the run.
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
from dogo_fed.objectives.similarity import cosine_similarity, products, unit_rows


def ensemble(similarities_AK: Sequence[torch.Tensor], temperature: float) -> torch.Tensor:
    """Returns E, A x K, from every site's cosines; each row times a number that cancels out."""
    all_SAK = torch.stack(list(similarities_AK))
    return ((all_SAK - all_SAK.amax(dim=(0, 2), keepdim=True)) / temperature).exp().mean(dim=0)


class FLESD(Baseline):
    """The last steps of every round distil the ensemble of all sites' similarities."""

    def __init__(
        self,
        run: LoadedRun,
        peers: Sequence[Peer],
        *,
        share: float = 0.25,
        temperature: float = 0.1,
        keys: int = 1024,
        momentum: float = 0.999,
    ) -> None:
        """Lets the peers give the projections of the anchors.

        Args:
            run: its settings and data.
            peers: all of them, in name order.
            share: of a round's steps that distil.
            temperature: tau.
            keys: most common images that have a key.
            momentum: of the network that makes the keys.

        Raises:
            ConfigError: an option is out of range, or some passes hold no anchors.
        """
        super().__init__(run, peers)
        check_anchors(run, "flesd")
        if not 0 < share < 1 or not temperature > 0 or keys < 2 or not 0 <= momentum < 1:
            raise ConfigError(
                "flesd: share must be between 0 and 1, temperature above 0, keys 2 or more, momentum "
                f"at least 0 and below 1; not {share}, {temperature}, {keys}, {momentum}"
            )
        self._share, self._temperature, self._momentum = share, temperature, momentum
        self._num_keys = min(keys, len(run.data.shared.train))
        self._target_AK = torch.empty(0)
        self._key_ids_K = torch.empty(0, dtype=torch.int64)
        self._encoders: dict[PeerId, MomentumEncoder] = {}
        self._keys_KD: dict[PeerId, torch.Tensor] = {}
        for peer in peers:
            peer.objective.learn_with = "projector"

    def first_distillation(self, step: int) -> int:
        """Returns the step of this step's round from which on it distils."""
        plan = self.run.plan
        number = plan.round_of(step)
        first, end = (number - 1) * plan.steps_per_round, plan.end_of(number)
        return end - math.ceil(self._share * (end - first))

    def begin_step(self, step: int) -> None:
        """Makes the ensemble at the first step that distils; moves the networks of the keys later."""
        first = self.first_distillation(step)
        if step == first:
            self._begin(step)
        elif step > first:
            for peer in self.peers:
                objective = peer.objective
                self._encoders[peer.id].follow(objective.backbone, objective.projector)

    def losses(
        self, step: int, proposals: Mapping[PeerId, Proposal]
    ) -> Mapping[PeerId, tuple[torch.Tensor, Traffic]]:
        """Returns the own losses, or those of the distillation."""
        first = self.first_distillation(step)
        if step < first:
            return super().losses(step, proposals)
        num_bytes = FLOAT_BYTES * self._target_AK.numel() if step == first else 0
        traffic = Traffic(num_bytes, num_bytes)
        return {peer: (self._loss(peer, proposal), traffic) for peer, proposal in proposals.items()}

    def _begin(self, step: int) -> None:
        """Makes the ensemble, and a key for each chosen image, from the networks as they are now."""
        run, shared = self.run, self.run.data.shared.train
        order = torch.randperm(
            len(shared), generator=seeding.generator(run.config.seed, "flesd keys", step)
        )
        self._key_ids_K = order[: self._num_keys].sort().values
        similarities = []
        for peer in self.peers:
            objective = peer.objective
            network = nn.Sequential(objective.backbone, objective.projector)
            seen = Encoder(
                name=peer.id,
                backbone=network,
                inputs=Inputs.of(run.data_of(peer.id).own),
                device=peer.device,
            )
            z_AD = seen.features(shared).features_NF.to(peer.device)
            keys_KD = z_AD[self._key_ids_K]
            similarities.append(cosine_similarity(z_AD, keys_KD))
            encoder = MomentumEncoder(objective.backbone, objective.projector, self._momentum, None)
            self._encoders[peer.id] = encoder.to(peer.device).train()
            self._keys_KD[peer.id] = unit_rows(keys_KD)
        self._target_AK = ensemble(similarities, self._temperature)

    def _loss(self, peer_id: PeerId, proposal: Proposal) -> torch.Tensor:
        """Returns L for the anchors of a pass, and renews their keys."""
        query_ND = unit_rows(proposal.output.learn_with.a_ND)
        ids_N = self.run.schedule.sample_ids(proposal.step)[: len(query_ND)]
        keys_KD = self._keys_KD[peer_id]
        target_NK = self._target_AK[ids_N]
        target_NK = target_NK / target_NK.sum(dim=1, keepdim=True)
        log_p_NK = (products(query_ND, keys_KD) / self._temperature).log_softmax(dim=1)
        loss = -(target_NK * log_p_NK).sum(dim=1).mean()

        rows = slice(None) if proposal.images.shared is None else proposal.images.shared
        with torch.no_grad():
            renewed_ND = unit_rows(self._encoders[peer_id](proposal.views[1][rows]))
        places_N = torch.searchsorted(self._key_ids_K, ids_N).clamp(max=self._num_keys - 1)
        has_key_N = self._key_ids_K[places_N] == ids_N
        kept_KD = keys_KD.clone()
        kept_KD[places_N[has_key_N]] = renewed_ND[has_key_N]
        self._keys_KD[peer_id] = kept_KD
        return loss
