"""Everything that is checked and fixed before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from dogo_fed.agreement import make_agreement
from dogo_fed.config import Host, RunConfig
from dogo_fed.contracts import PeerId
from dogo_fed.coordination.coordinator import CoordinatorSettings
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.schedule import Schedule
from dogo_fed.data.source import DataSet
from dogo_fed.engine.build import build_peer, resolve_device
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.plan import Plan, make_plan, make_schedule
from dogo_fed.engine.session import RunFrame
from dogo_fed.errors import ConfigError
from dogo_fed.wire.format import WireFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """A run's settings with its data: what every process of a run derives from them by itself."""

    config: RunConfig
    dataset: DataSet
    schedule: Schedule
    plan: Plan
    agreement: dict[str, str]

    @property
    def peer_ids(self) -> tuple[PeerId, ...]:
        """The peers, in name order."""
        return tuple(PeerId(name) for name in sorted(self.config.peers))

    @property
    def wire_format(self) -> WireFormat:
        """What the run's distributions look like in messages."""
        return WireFormat.of(self.config)

    def frame(self, run_id: str) -> RunFrame:
        """Returns what sessions in this process share."""
        return RunFrame(
            run_id=run_id,
            dataset=self.dataset,
            schedule=self.schedule,
            plan=self.plan,
            checkpoint_every_steps=self.config.checkpoint.every_steps,
            knn_every_rounds=self.config.eval.knn_every_rounds,
        )

    def coordinator_settings(self, run_id: str, first_step: int) -> CoordinatorSettings:
        """Returns what the coordinator needs to know."""
        exchange = self.config.exchange
        return CoordinatorSettings(
            run_id=run_id,
            agreement=self.agreement,
            peers=self.peer_ids,
            first_step=first_step,
            batch_digest=self.schedule.digest,
            next_exchange=self.plan.next_exchange,
            graph=exchange.graph,
            deadline_s=exchange.deadline_s,
            join_deadline_s=exchange.join_deadline_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedRun(LoadedRun):
    """A run of which every peer was seen to be possible.

    Attributes:
        backbones: modules of the user's own, by peer.
    """

    backbones: Mapping[str, nn.Module]

    def build_peer(self, peer_id: PeerId) -> Peer:
        """Returns the peer with its initial weights, on this process's device."""
        return build_peer(
            peer_id,
            self.config.peers[peer_id],
            dataset=self.dataset,
            run_seed=self.config.seed,
            device=resolve_device(self.config.device),
            backbone=self.backbones.get(peer_id),
            is_symmetric=self.config.exchange.symmetric,
        )


def load_run(config: RunConfig, dataset: DataSet | None = None) -> LoadedRun:
    """Loads the data set that `config` names, unless one is given.

    Raises:
        ConfigError: a setting is impossible with this data set.
        DataError: the data set is missing or broken.
    """
    if dataset is None:
        dataset = build_dataset(config.data.name, config.data.options)
    schedule = make_schedule(config, len(dataset.train))
    return LoadedRun(
        config=config,
        dataset=dataset,
        schedule=schedule,
        plan=make_plan(config, schedule),
        agreement=make_agreement(config, dataset),
    )


def prepare(
    config: RunConfig,
    *,
    dataset: DataSet | None = None,
    backbones: Mapping[str, nn.Module] | None = None,
) -> PreparedRun:
    """Loads the data set and checks that every peer can be built.

    Args:
        config: the run.
        dataset: in place of the one that `config.data` names.
        backbones: peer name to a module in place of the one that the peer's settings name.

    Raises:
        ConfigError: a setting is impossible, alone or with this data set.
        DataError: the data set is missing or broken.
    """
    backbones = dict(backbones or {})
    strangers = sorted(set(backbones) - set(config.peers))
    if strangers:
        raise ConfigError(
            f"there is a backbone for {strangers[0]!r}, but no such peer; the peers are "
            f"{', '.join(config.peers)}"
        )
    loaded = load_run(config, dataset)
    dataset = loaded.dataset
    num_labelled = int((dataset.train.labels >= 0).sum())
    if not config.eval.knn_k <= num_labelled:
        raise ConfigError(
            f"eval.knn_k={config.eval.knn_k} neighbours are more than the {num_labelled} labelled "
            f"training images of {config.data.name}"
        )
    prepared = PreparedRun(
        config=config,
        dataset=dataset,
        schedule=loaded.schedule,
        plan=loaded.plan,
        agreement=loaded.agreement,
        backbones=backbones,
    )
    if config.host in (Host.LOCAL, Host.GRPC):  # elsewhere, each peer's own node decides
        resolve_device(config.device)
    for peer_id in prepared.peer_ids:
        build_peer(
            peer_id,
            config.peers[peer_id],
            dataset=dataset,
            run_seed=config.seed,
            device=resolve_device("cpu"),
            backbone=backbones.get(peer_id),
        )
    return prepared
