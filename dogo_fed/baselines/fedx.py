"""FedX: FedAvg, and at each site a contrast and relations with the common network of the round.

Source: Han et al., "FedX: Unsupervised Federated Learning with Cross Knowledge Distillation", ECCV
2022. With z the projections, h a prediction head, and z^g the projections of the network that the
round began with (frozen):

    L = NTXent(z_a, z_b) + NTXent(h(z_a), z^g_b) + R(z_a, z_b; z) + R(h(z_a), h(z_b); z^g)

R compares how two views of an image relate to other images. With p_a and p_b the softmax of the
cosines to them, divided by the temperature, and m the mean of both, it is the mean of KL(m || p_a)
and KL(m || p_b), as in the published code. The temperature of R is 0.1, as published.

What differs from the published code: the two contrasts have the temperature of the peer's own
SimCLR, where the published code has 0.1, for its own baselines too. Every other column of a
comparison contrasts at the peer's, so at 0.1 FedX minus another method would be the difference of
two temperatures as well; `temperature=0.1` is as published. The other images are those of the same
pass, the image itself left out, and not those of a second batch, so that no method of a comparison
sees more images. The projector is that of SimCLR here, whose hidden layer is normalised. The
optimizer is that of the run. Averaging is that of `fedavg`.
"""

# N = images in the step's batch, D = embedding dimension, C, H, W = channels and pixels

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from dogo_fed.baselines.base import cosines_to_others
from dogo_fed.baselines.fedavg import FedAvg
from dogo_fed.config import ComponentConfig
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation import evaluation_mode
from dogo_fed.objectives.base import Embeddings, Objective, with_predictions
from dogo_fed.objectives.checks import check_positive, check_sizes
from dogo_fed.objectives.heads import simclr_projector
from dogo_fed.objectives.simclr import nt_xent


def relation_loss(
    a_ND: torch.Tensor, b_ND: torch.Tensor, others_ND: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Returns R: how unlike two views relate to the other images, in nats, mean over images.

    Args:
        a_ND: embeddings of the first view.
        b_ND: embeddings of the second view.
        others_ND: embeddings of the same images, to which they relate; row i is left out for image i.
        temperature: divisor of the cosines.
    """
    log_p, log_q = (
        cosines_to_others(view_ND, others_ND, temperature).log_softmax(dim=1)
        for view_ND in (a_ND, b_ND)
    )
    mean = (log_p.exp() + log_q.exp()) / 2
    both = (F.kl_div(log_view, mean, reduction="batchmean") for log_view in (log_p, log_q))
    return sum(both, start=torch.zeros((), device=a_ND.device)) / 2


class FedXObjective(Objective):
    """SimCLR with a prediction head and a frozen copy of the network that the round began with."""

    def __init__(
        self,
        backbone: nn.Module,
        feature_dim: int,
        *,
        temperature: float = 0.5,
        relation_temperature: float = 0.1,
        hidden_dim: int = 512,
        output_dim: int = 128,
    ) -> None:
        """Builds the projector, the prediction head and the copy.

        Args:
            backbone: the encoder.
            feature_dim: length of its features.
            temperature: of the two contrasts; 0.5 is SimCLR's here.
            relation_temperature: of the two relations.
            hidden_dim: width of the projector.
            output_dim: length of the projections.

        Raises:
            ValueError: an option is out of range, or the backbone can't be copied.
        """
        check_positive(temperature=temperature, relation_temperature=relation_temperature)
        check_sizes(hidden_dim=hidden_dim, output_dim=output_dim)
        super().__init__(backbone)
        self.temperature, self.relation_temperature = temperature, relation_temperature
        self.projector = simclr_projector(feature_dim, hidden_dim, output_dim)
        self.predictor = nn.Sequential(
            nn.Linear(output_dim, output_dim), nn.ReLU(), nn.Linear(output_dim, output_dim)
        )
        try:
            copied = copy.deepcopy((backbone, self.projector))
        except Exception as error:  # a user's module may fail in any way
            raise ValueError(f"the backbone can't be copied: {error}") from error
        self.common = nn.Sequential(*copied).requires_grad_(False)

    def begin_round(self) -> None:
        """Makes the copy equal to the network, which is the common one at this moment."""
        self.common[0].load_state_dict(self.backbone.state_dict())
        self.common[1].load_state_dict(self.projector.state_dict())

    def embed(self, view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        """Returns projections, predictions, and the projections of the frozen copy."""
        with torch.no_grad(), evaluation_mode(self.common):
            common_a, common_b = self.common(view_a_NCHW), self.common(view_b_NCHW)
        seen = with_predictions(super().embed(view_a_NCHW, view_b_NCHW), self.predictor)
        return {**seen, "common_a": common_a, "common_b": common_b}

    def loss(self, seen: Embeddings, labels_N: torch.Tensor | None = None) -> torch.Tensor:
        """Returns the sum of the four terms."""
        t, r = self.temperature, self.relation_temperature
        a, b = seen["projector_a"], seen["projector_b"]
        h_a, h_b = seen["predictor_a"], seen["predictor_b"]
        contrast = nt_xent(a, b, t) + nt_xent(h_a, seen["common_b"], t)
        return contrast + relation_loss(a, b, a, r) + relation_loss(h_a, h_b, seen["common_a"], r)


class FedX(FedAvg):
    """FedAvg of peers with the objective "fedx"."""

    kept_apart: ClassVar[tuple[str, ...]] = (*FedAvg.kept_apart, "common.")
    has_own_loss: ClassVar[bool] = True

    def __init__(
        self,
        run: LoadedRun,
        peers: Sequence[Peer],
        *,
        every_steps: int | None = None,
        by_size: bool = True,
        temperature: float | None = None,
    ) -> None:
        """Checks the objectives.

        Args:
            run: its settings and data.
            peers: all of them, in name order.
            every_steps: see `FedAvg`.
            by_size: see `FedAvg`.
            temperature: of the contrasts at every peer; None leaves each its own.

        Raises:
            ConfigError: a peer has another objective, or no other one its network, or an option is out
                of range.
        """
        super().__init__(run, peers, every_steps=every_steps, by_size=by_size)
        if temperature is not None and not temperature > 0:
            raise ConfigError(
                f"temperature must be greater than 0, or null for the peers' own, not {temperature}"
            )
        for peer in peers:
            if not isinstance(peer.objective, FedXObjective):
                raise ConfigError(
                    f"baseline=fedx trains peers with objective=fedx, and peer {peer.id!r} has "
                    f"{run.config.peers[peer.id].objective.name}; `dogo-fed compare methods=[fedx]` "
                    "sets both"
                )
            if temperature is not None:
                peer.objective.temperature = temperature

    @classmethod
    def objective_for(cls, settings: ComponentConfig) -> ComponentConfig:
        """Returns the objective "fedx", with the temperature and the heads' sizes of the peer's SimCLR."""
        own = settings.options if settings.name == "simclr" else {}
        kept = {key: own[key] for key in ("temperature", "hidden_dim", "output_dim") if key in own}
        return ComponentConfig(name="fedx", options=kept)

    def begin(self) -> None:
        """Gives all peers of a network one start, and keeps it for the first round."""
        super().begin()
        self._keep_common()

    def end_step(self, step: int) -> None:
        """Averages when it is due, and keeps the common network for the next round."""
        super().end_step(step)
        if self.averages_after(step):
            self._keep_common()

    def _keep_common(self) -> None:
        for peer in self.peers:
            assert isinstance(peer.objective, FedXObjective)
            peer.objective.begin_round()
