"""FedAvg: all sites train alone for a round, and go on from the average of their weights.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, algorithm 1: all sites start from the same weights, and after each round
w <- sum_k (n_k / n) w_k, with n_k the images of site k. Self-supervised: what is averaged is the
encoder and, unless `heads=false`, what the objective has beside it, the slowly following networks
of BYOL and MoCo included. A queue of embeddings stays at its site.

What differs from the paper: every site takes part in every round and makes the same number of
updates, since all methods of a comparison do. A round is one of the run, or `every_steps` steps. An
optimizer keeps its state over rounds. Running statistics of the normalisation are averaged with the
weights, as is usual. Sites with another network can't be averaged: each network has an average of
its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from dogo_fed.baselines.base import FLOAT_BYTES, Baseline
from dogo_fed.contracts import PeerId
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import Proposal
from dogo_fed.errors import ConfigError
from dogo_fed.exchange.base import Traffic


class FedAvg(Baseline):
    """Weights are averaged between rounds, and after the last one.

    Attributes:
        kept_apart: what the names of numbers begin with that never leave a site.
    """

    kept_apart: ClassVar[tuple[str, ...]] = ("average.",)

    def __init__(
        self,
        run: LoadedRun,
        peers: Sequence[Peer],
        *,
        every_steps: int | None = None,
        heads: bool = True,
        by_size: bool = True,
    ) -> None:
        """Finds the peers that have the same network.

        Args:
            run: its settings and data.
            peers: all of them, in name order.
            every_steps: from one average to the next; None is a round of the run.
            heads: whether projectors and predictors are averaged too.
            by_size: whether a site counts by the number of its images; else all count alike.

        Raises:
            ConfigError: a peer's network is like no other's, or an option is out of range.
        """
        super().__init__(run, peers)
        if every_steps is not None and every_steps < 1:
            raise ConfigError(
                f"every_steps must be 1 or more, or null for a round, not {every_steps}"
            )
        self._every_steps, self._heads = every_steps, heads
        groups: dict[object, list[Peer]] = {}
        for peer in peers:
            shapes = tuple((name, tensor.shape) for name, tensor in self._averaged(peer).items())
            groups.setdefault(shapes, []).append(peer)
        self._groups = list(groups.values())
        alone = [str(group[0].id) for group in self._groups if len(group) == 1]
        if alone:
            raise ConfigError(
                f"fedavg and fedx average weights, and no other peer has the network of "
                f"{' or of '.join(alone)}. Choose peers of which each has its like, with the same "
                "objective unless only backbones are averaged (baselines.fedavg.heads=false), or "
                "leave fedavg and fedx out"
            )
        self._sizes = {
            peer.id: len(run.data_of(peer.id).own.train) if by_size else 1 for peer in peers
        }

    def begin(self) -> None:
        """Gives all peers of a network one start."""
        self.start_alike()

    def losses(
        self, step: int, proposals: Mapping[PeerId, Proposal]
    ) -> Mapping[PeerId, tuple[torch.Tensor, Traffic]]:
        """Returns the own losses. The weights travel after the steps that end in an average."""
        bytes_by_peer = self._bytes() if self.averages_after(step) else {}
        return {
            peer: (
                proposal.output.ssl_loss,
                Traffic(bytes_by_peer.get(peer, 0), bytes_by_peer.get(peer, 0)),
            )
            for peer, proposal in proposals.items()
        }

    def averages_after(self, step: int) -> bool:
        """Whether the peers go on from the average of their weights after this step."""
        plan = self.run.plan
        if self._every_steps is None:
            return plan.ends_round(step)
        return (step + 1) % self._every_steps == 0 or step + 1 == plan.total_steps

    def end_step(self, step: int) -> None:
        """Averages when it is due, so that what is evaluated then is the common network."""
        if self.averages_after(step):
            self.average()

    @torch.no_grad()
    def start_alike(self) -> None:
        """Gives all peers of a network the weights of the first of them."""
        for first, *others in self._groups:
            start = self._averaged(first)
            for peer in others:
                for name, value in self._averaged(peer).items():
                    value.copy_(start[name])

    @torch.no_grad()
    def average(self) -> None:
        """Gives all peers of a network the average of their weights."""
        for group in self._groups:
            total = sum(self._sizes[peer.id] for peer in group)
            shares = [self._sizes[peer.id] / total for peer in group]
            parts = [self._averaged(peer) for peer in group]
            for name, first in parts[0].items():
                mean = sum(
                    (share * part[name] for share, part in zip(shares, parts, strict=True)),
                    start=torch.zeros_like(first),
                )
                for part in parts:
                    part[name].copy_(mean)

    def _averaged(self, peer: Peer) -> dict[str, torch.Tensor]:
        """Returns the numbers of a peer that are averaged, by name."""
        objective = peer.objective
        named = {**dict(objective.named_parameters()), **dict(objective.named_buffers())}
        return {
            name: tensor.detach()
            for name, tensor in named.items()
            if tensor.is_floating_point()
            and name not in objective.moved_by_update
            and not name.startswith(self.kept_apart)
            and (self._heads or name.startswith("backbone."))
        }

    def _bytes(self) -> dict[PeerId, int]:
        return {
            peer.id: FLOAT_BYTES * sum(tensor.numel() for tensor in self._averaged(peer).values())
            for group in self._groups
            for peer in group
        }
