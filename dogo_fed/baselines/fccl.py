"""FCCL+'s exchange: similarities of common images, averaged before the softmax.

Source: Huang et al., "Generalizable Heterogeneous Federated Cross-Correlation and Instance
Similarity Learning", 2023 (arXiv 2309.16286), instance similarity learning. With S_k the cosines of
the features of a batch of common images at site k, divided by the temperature, without the diagonal:

    L_k = w KL(softmax(mean_j S_j) || softmax(S_k)),

mean over rows. The mean includes the site itself. Its gradient does not reach the target.

What differs from the published code: there are no labels, so its term about class scores, and the
one about the site's own earlier model, have no place here. The published code makes a pass over the
common images once per round, with an optimizer of its own. Here the term is added to the own loss
at every `every_steps`-th step, about the anchors of the pass, so that all methods of a comparison
make the same updates from the same images.
"""

# N = anchors in the step's batch

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from dogo_fed.baselines.base import FLOAT_BYTES, Baseline, check_anchors, cosines_to_others
from dogo_fed.contracts import PeerId
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import Proposal
from dogo_fed.errors import ConfigError
from dogo_fed.exchange.base import Traffic


class FCCL(Baseline):
    """Every peer is drawn to the mean of all peers' similarities of the anchors."""

    def __init__(
        self,
        run: LoadedRun,
        peers: Sequence[Peer],
        *,
        every_steps: int = 1,
        temperature: float = 0.02,
        weight: float = 3.0,
    ) -> None:
        """Lets the peers give the features of the anchors.

        Args:
            run: its settings and data.
            peers: all of them, in name order.
            every_steps: which steps exchange.
            temperature: divisor of the cosines.
            weight: w.

        Raises:
            ConfigError: an option is out of range, or some passes hold no anchors.
        """
        super().__init__(run, peers)
        check_anchors(run, "fccl")
        if every_steps < 1 or not temperature > 0 or not weight >= 0:
            raise ConfigError(
                "fccl: every_steps must be 1 or more, temperature above 0, weight 0 or more; not "
                f"{every_steps}, {temperature}, {weight}"
            )
        self._every_steps, self._temperature, self._weight = every_steps, temperature, weight
        for peer in peers:
            peer.objective.learn_with = "features"

    def losses(
        self, step: int, proposals: Mapping[PeerId, Proposal]
    ) -> Mapping[PeerId, tuple[torch.Tensor, Traffic]]:
        """Returns the own losses, with the term at the steps that exchange."""
        if step % self._every_steps:
            return super().losses(step, proposals)
        features = {peer: proposal.output.learn_with.a_ND for peer, proposal in proposals.items()}
        mine = {
            peer: cosines_to_others(features_NF, features_NF, self._temperature)
            for peer, features_NF in features.items()
        }
        target = (
            torch.stack([cosines.detach() for cosines in mine.values()]).mean(dim=0).softmax(dim=1)
        )
        num_bytes = FLOAT_BYTES * target.numel()
        return {
            peer: (
                proposal.output.ssl_loss
                + self._weight
                * F.kl_div(mine[peer].log_softmax(dim=1), target, reduction="batchmean"),
                Traffic(num_bytes, num_bytes),
            )
            for peer, proposal in proposals.items()
        }
