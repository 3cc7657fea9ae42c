"""What every baseline gives the driver: preparations before a step, and a loss for each peer.

What a baseline keeps beside the peers, it makes anew in every round. So a run that goes on from the
end of a round has the numbers of one that was never interrupted, and such a run stops and is saved
there only.
"""

# N = images, D = embedding dimension

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from dogo_fed.config import AnchorsAt, ComponentConfig
from dogo_fed.contracts import PeerId
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import Proposal
from dogo_fed.errors import ConfigError
from dogo_fed.exchange.base import Traffic
from dogo_fed.objectives.similarity import cosine_similarity

FLOAT_BYTES = 4


def cosines_to_others(
    one_ND: torch.Tensor, others_ND: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Returns the cosines of every image to all other images, N x (N - 1), divided by the temperature.

    Args:
        one_ND: embeddings of the images.
        others_ND: embeddings of the same images; row i is left out for image i.
        temperature: divisor of the cosines.
    """
    size = len(one_ND)
    is_other = ~torch.eye(size, dtype=torch.bool, device=one_ND.device)
    all_NN = cosine_similarity(one_ND, others_ND) / temperature
    return all_NN[is_other].view(size, size - 1)


def check_anchors(run: LoadedRun, name: str) -> None:
    """Checks that every pass holds anchors, for a method that teaches about them.

    Args:
        run: its settings and data.
        name: of the method.

    Raises:
        ConfigError: some pass holds none.
    """
    config = run.config
    has_private = any(map(config.has_private, config.peers))
    if has_private and (
        config.share_of_anchors == 0 or config.anchors_at is not AnchorsAt.EVERY_STEP
    ):
        raise ConfigError(
            f"{name} teaches about the anchors of every pass, and with anchor_share="
            f"{config.share_of_anchors:g} and anchors_at={config.anchors_at.value} some passes hold "
            f"none; type anchors_at=every_step and an anchor_share above 0, or leave {name} out"
        )


class Baseline:
    """One method. By itself it lets each peer learn alone.

    Attributes:
        has_own_loss: whether the peers learn by a loss of the method in place of their own objective.
    """

    has_own_loss: ClassVar[bool] = False

    def __init__(self, run: LoadedRun, peers: Sequence[Peer]) -> None:
        """Takes the peers as they were built; they get the weights of a checkpoint later.

        Args:
            run: its settings and data.
            peers: all of them, in name order.

        Raises:
            ConfigError: the method can't be had with these peers.
        """
        self.run = run
        self.peers = tuple(peers)

    @classmethod
    def objective_for(cls, settings: ComponentConfig) -> ComponentConfig:
        """Returns the objective of a peer that learns by this method.

        Args:
            settings: the peer's objective without it.
        """
        return settings

    def begins_round(self, step: int) -> bool:
        """Whether this step is the first of a round."""
        return self.run.plan.next_round(step) == step

    def begin(self) -> None:
        """Prepares the untrained peers of a run, before they are evaluated."""

    def begin_step(self, step: int) -> None:
        """Prepares the peers for a step that all of them are about to do."""

    def losses(
        self, step: int, proposals: Mapping[PeerId, Proposal]
    ) -> Mapping[PeerId, tuple[torch.Tensor, Traffic]]:
        """Returns what each peer minimises at the step, and what a site would send and get for it.

        Args:
            step: the run's step.
            proposals: what each peer has computed by itself: its own loss and its embeddings.
        """
        return {peer: (proposal.output.ssl_loss, Traffic()) for peer, proposal in proposals.items()}

    def end_step(self, step: int) -> None:
        """Changes the peers after a step that all of them have done, before they are evaluated."""
