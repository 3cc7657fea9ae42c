"""FedAvg: all sites train alone for a round, and go on from the average of their weights.

Source: McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
AISTATS 2017, algorithm 1: all sites start from the same weights, and after each round
w <- sum_k (n_k / n) w_k, with n_k the images of site k. Self-supervised: what is averaged is the
encoder and, unless `heads=false`, what the objective has beside it. A queue of embeddings stays at
its site.

What differs from the paper: every site takes part in every round and makes the same number of
updates, since all methods of a comparison do. An optimizer keeps its state over rounds. Running
statistics of the normalisation are averaged with the weights, as is usual. Sites with another
network can't be averaged: each network has an average of its own.
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
        self, run: LoadedRun, peers: Sequence[Peer], *, heads: bool = True, by_size: bool = True
    ) -> None:
        """Finds the peers that have the same network.

        Args:
            run: its settings and data.
            peers: all of them, in name order.
            heads: whether projectors and predictors are averaged too.
            by_size: whether a site counts by the number of its images; else all count alike.

        Raises:
            ConfigError: no two peers have the same network.
        """
        super().__init__(run, peers)
        self._heads = heads
        groups: dict[object, list[Peer]] = {}
        for peer in peers:
            shapes = tuple((name, tensor.shape) for name, tensor in self._averaged(peer).items())
            groups.setdefault(shapes, []).append(peer)
        self._groups = [group for group in groups.values() if len(group) > 1]
        if not self._groups:
            raise ConfigError(
                "fedavg averages weights, and no two of these peers have the same network; choose "
                "peers of one architecture, or leave fedavg and fedx out"
            )
        self._sizes = {
            peer.id: len(run.data_of(peer.id).own.train) if by_size else 1 for peer in peers
        }

    def begin_step(self, step: int) -> None:
        """Gives all peers of a network one start, and averages at the beginning of later rounds."""
        if step == 0:
            self.start_alike()
        elif self.begins_round(step):
            self.average()

    def losses(
        self, step: int, proposals: Mapping[PeerId, Proposal]
    ) -> Mapping[PeerId, tuple[torch.Tensor, Traffic]]:
        """Returns the own losses. The weights travel after the last step of a round."""
        is_last = self.run.plan.ends_round(step)
        bytes_by_peer = self._bytes() if is_last else {}
        return {
            peer: (
                proposal.output.ssl_loss,
                Traffic(bytes_by_peer.get(peer, 0), bytes_by_peer.get(peer, 0)),
            )
            for peer, proposal in proposals.items()
        }

    def end(self) -> None:
        """Averages, so that what is evaluated is the common network."""
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
                if all(torch.equal(first, part[name]) for part in parts):
                    continue  # also where a run goes on that has ended: no bit changes
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
