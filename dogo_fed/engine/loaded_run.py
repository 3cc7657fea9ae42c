"""A run's settings with its data, and what every process of the run derives from them by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from dogo_fed.agreement import make_agreement
from dogo_fed.config import LossOn, MemoryFormat, Precision, RunConfig
from dogo_fed.contracts import PeerId
from dogo_fed.coordination.coordinator import CoordinatorSettings
from dogo_fed.data.held_out import dataset_with_test_part, with_test_part
from dogo_fed.data.labels import num_labelled
from dogo_fed.data.manifest import Manifest
from dogo_fed.data.nearly_black import nearly_black
from dogo_fed.data.partition import Cut, cut
from dogo_fed.data.private import other_anchors, private_images, set_of_anchors
from dogo_fed.data.roles import DataRoles, StepImages
from dogo_fed.data.schedule import Schedule
from dogo_fed.data.source import DataSet, Subset
from dogo_fed.engine.build import build_peer
from dogo_fed.engine.fit import check_enough_images, fitted, make_plan, make_schedule
from dogo_fed.engine.learning_rate import LearningRate
from dogo_fed.engine.numerics import compile_backbone, resolve_device
from dogo_fed.engine.passes import Passes, check_passes, kinds_of_passes
from dogo_fed.engine.peer import Peer
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.knn import fitting_k
from dogo_fed.models.weights import is_weights_file
from dogo_fed.plan import Plan
from dogo_fed.provenance import Provenance
from dogo_fed.text import one_line, some_of
from dogo_fed.wire.format import WireFormat

_HALF = {
    Precision.AUTO: None,
    Precision.FP32: None,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
}
_MEMORY_FORMATS = {
    MemoryFormat.CONTIGUOUS: torch.contiguous_format,
    MemoryFormat.CHANNELS_LAST: torch.channels_last,
}
_ANY_CLASSES = 2
"""Of a peer that is only tried, where the images are elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """A run as each of its processes knows it.

    Attributes:
        config: its settings, fitted to the images.
        data: the data sets by their roles, of a peer without private images.
        private: the data sets of the peers whose private images this process has loaded.
        cut: how the partition has cut the data set; None if there is none.
        here: the peers whose images this process can judge: it has them, and no site decides on others.
        schedule: which shared images a step uses.
        passes: which images each peer's passes hold.
        plan: how many steps there are, and which of them exchange.
        agreement: the values that all processes of the run must share.
        backbones: the user's own modules, by peer, in place of those that the settings name.
        notes: what was decided on the way, a sentence each.
        weights_notes: what a user should know about the weights that peers start from, once they
            were tried; a sentence each.
    """

    config: RunConfig
    data: DataRoles
    schedule: Schedule
    plan: Plan
    agreement: dict[str, str]
    passes: Mapping[PeerId, Passes]
    here: frozenset[PeerId]
    private: Mapping[str, DataRoles] = field(default_factory=lambda: MappingProxyType({}))
    cut: Cut | None = None
    backbones: Mapping[str, nn.Module] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()
    weights_notes: tuple[str, ...] = ()

    @property
    def peer_ids(self) -> tuple[PeerId, ...]:
        """The peers, in name order."""
        return tuple(PeerId(name) for name in sorted(self.config.peers))

    @property
    def wire_format(self) -> WireFormat:
        """The form of the run's distributions in messages."""
        return WireFormat.of(self.config)

    def knn_k(self, peer_id: PeerId) -> int:
        """Returns the neighbours of a peer's weighted kNN.

        At a site they may be fewer than the run asks for. Else an error would tell how many labelled
        images a site has.
        """
        labels_N = self.data_of(peer_id).evaluated.train.labels
        return fitting_k(self.config.eval.knn_k, num_labelled(labels_N))

    def nearly_black(self, peer_id: PeerId) -> Iterator[str]:
        """Yields a note about images of a peer's own that use a small part of their range."""
        settings, own = self.config.peers[peer_id].data, self.own_images(peer_id)
        if settings is not None and own is not None:
            yield from nearly_black(own, settings.options, f"peers.{peer_id}.data")

    def provenance(self, peer_id: PeerId | None = None) -> Provenance:
        """Returns where the numbers of this process come from; of one peer, or of the run."""
        # A partition is made of one data set, which the encoders are evaluated on, too.
        data = self.data.evaluated if self.cut is not None else self.data.shared
        if peer_id is not None and (own := self.own_images(peer_id)) is not None:
            data = own
        return Provenance.of(
            data,
            resolve_device(self.config.device),
            self.agreement["source_digest"],
            anchors=None if self.cut is None else self.cut.anchors_from,
        )

    def seen_by(self, peer_id: PeerId) -> str | None:
        """Returns which images a peer of a cut is trained on; None if it has no part, or is frozen."""
        is_frozen = self.config.peers[peer_id].frozen_from is not None
        if self.cut is None or is_frozen or peer_id not in self.cut.private:
            return None
        kind, others = self.config.partition.kind.value, self.cut.anchors_from
        private = f"{len(self.cut.private[peer_id].train)} private ones of these (partition={kind})"
        if self.config.share_of_anchors == 0.0:
            return private
        of = "" if others is None else f" of {one_line(others.title, 80)}"
        return f"{private} and {len(self.cut.anchors.train)} anchors{of}"

    def _built_for(self, peer_id: PeerId) -> DataSet:
        """Returns the images that a peer is built for.

        Where they are elsewhere, it is only tried here. Then there is no image whose class could be
        judged, and the number of classes is not known.
        """
        own = self.data_of(peer_id).own
        if peer_id in self.here:
            return own
        none = Subset(own.train, torch.empty(0, dtype=torch.int64))
        return dataclasses.replace(own, train=none, num_classes=_ANY_CLASSES)

    def _check_classes(self, peer_id: PeerId) -> None:
        """Checks that the own loss of a peer that learns classes sees those of one data set.

        Raises:
            ConfigError: the classes of its private images and of the anchors are not the same, or an
                anchor has none.
        """
        roles, settings = self.data_of(peer_id), self.config.peers[peer_id]
        own, shared = roles.own, roles.shared
        if own is shared or settings.ssl_on is LossOn.PRIVATE or self.config.anchors_per_step == 0:
            return
        is_one_cut = settings.data is None and self.config.partition.anchors_from is None
        are_alike = is_one_cut or (bool(own.class_names) and own.class_names == shared.class_names)
        if are_alike and not bool((shared.train.labels < 0).any()):
            return
        why = (
            "some anchors have no class"
            if are_alike
            else f"its private images have the classes {_named(own)}, and the anchors {_named(shared)}"
        )
        raise ConfigError(
            f"objective {settings.objective.name!r} of peer {peer_id!r} learns classes, but {why}; type "
            f"peers.{peer_id}.ssl_on=private, or choose a self-supervised objective"
        )

    def _check_parts(self, peer_id: PeerId) -> None:
        """Checks that each part of each pass of a peer has enough images to be normalised by.

        Raises:
            ConfigError: a part would have a single image, or none.
        """
        parts = self.config.peers[peer_id].data_parallel
        if parts == 1:
            return
        kinds = kinds_of_passes(self.config, self.plan, self._num_private(peer_id))
        fewest = min(kind.private + kind.anchors for kind in kinds)
        if fewest >= 2 * parts:
            return
        setting = f"peers.{peer_id}.data_parallel"
        if fewest == self.config.batch_size:
            instead = f"batch_size={2 * parts} or more"
        else:
            instead = f"{setting}={fewest // 2} or less" if fewest >= 4 else f"{setting}=1"
        raise ConfigError(
            f"{setting}={parts} splits a pass into parts of at least 2 images, and some pass of this peer "
            f"holds {fewest} (batch_size={self.config.batch_size}, anchor_share="
            f"{self.config.share_of_anchors:g}); type {instead}"
        )

    def _num_private(self, peer_id: PeerId) -> int | None:
        """Returns how many private images a peer learns from; None if that is not known here."""
        if self.config.peers[peer_id].frozen_from is not None:
            return 0
        if peer_id in self.private:
            return len(self.private[peer_id].own.train)
        if peer_id in self.here:
            return 0
        is_elsewhere = self.config.leaves_images_to_sites or self.config.has_private(peer_id)
        return None if is_elsewhere else 0

    def data_of(self, peer_id: PeerId) -> DataRoles:
        """Returns the data sets of one peer.

        Where its private images are not loaded, they are those of a peer without any: another
        process, at another place, has them.
        """
        return self.private.get(peer_id, self.data)

    def own_images(self, peer_id: PeerId) -> DataSet | None:
        """Returns the images that a peer's own settings name; None if there are none, or not here.

        Those that a partition gives it are no such images.
        """
        has_own = self.config.peers[peer_id].data is not None
        return self.private[peer_id].own if has_own and peer_id in self.private else None

    def build_peer(
        self, peer_id: PeerId, device: torch.device | None = None, *, goes_on: bool = False
    ) -> Peer:
        """Returns the peer with its initial weights.

        Args:
            peer_id: which peer.
            device: where it computes; None takes the device that the settings name. A peer that is
                only tried may compute elsewhere.
            goes_on: whether a checkpoint is loaded into it. Then the file that its weights came from
                may be gone.

        Raises:
            ConfigError: see `build.build_peer` and `check_device`.
        """
        settings = self.config.peers[peer_id]
        source = Path(settings.init or settings.frozen_from or "")
        is_gone = goes_on and not source.exists() and is_weights_file(source)
        peer = build_peer(
            peer_id,
            settings,
            dataset=self._built_for(peer_id),
            run_seed=self.config.seed,
            device=resolve_device(self.config.device) if device is None else device,
            backbone=self.backbones.get(peer_id),
            exchange=self.config.exchange,
            reads_weights=not is_gone,
        )
        if peer.objective.uses_labels:
            self._check_classes(peer_id)
        looks_ahead = self.config.exchanges and self.config.exchange.lookahead > 0
        if looks_ahead and not peer.objective.can_look_ahead:
            raise ConfigError(
                f"peer {peer_id!r}: {settings.objective.name} can't be trained with "
                "exchange.lookahead=1, which does a pass before the update of the pass before (see "
                "`can_look_ahead` of dogo_fed.objectives.base.Objective)"
            )
        self._check_parts(peer_id)
        memory_format = _MEMORY_FORMATS[self.config.memory_format]
        peer.objective.to(memory_format=memory_format)
        if device is None:
            self.check_device(peer.device)
        uses_cuda_graphs = self.config.cuda_graphs and peer.device.type == "cuda"
        if self.config.compile:
            compile_backbone(peer.objective.backbone, uses_cuda_graphs=uses_cuda_graphs)
        return dataclasses.replace(
            peer,
            learning_rate=LearningRate(settings.optimizer, self.plan.total_steps),
            total_steps=self.plan.total_steps,
            dense_steps=self.config.exchange.dense_steps,
            half=_HALF[self.config.precision],
            scaler=(
                torch.amp.GradScaler(peer.device.type)
                if self.config.precision is Precision.FP16
                else None
            ),
            memory_format=memory_format,
            uses_cuda_graphs=uses_cuda_graphs,
            reads_late=peer.device.type == "cuda",
            looks_ahead=looks_ahead,
        )

    def check_device(self, device: torch.device) -> None:
        """Checks that a device has what the settings ask of it.

        Raises:
            ConfigError: they ask for recordings of passes, which only a GPU makes.
        """
        if self.config.cuda_graphs and device.type != "cuda":
            raise ConfigError(
                f"cuda_graphs=true is for a GPU, and the peers here compute on {device.type} "
                f"(device={self.config.device}); leave it out"
            )

    def images_of(self, peer_id: PeerId, step: int, *, with_labels: bool) -> StepImages:
        """Returns the images of a peer's pass at this step."""
        return self.passes[peer_id].images(step, with_labels=with_labels)

    def coordinator_settings(self, run_id: str, first_step: int) -> CoordinatorSettings:
        """Returns the coordinator's settings for a run that starts, or goes on, at `first_step`."""
        exchange = self.config.exchange
        return CoordinatorSettings(
            run_id=run_id,
            agreement=self.agreement,
            peers=self.peer_ids,
            first_step=first_step,
            batch_digest=self.schedule.digest,
            plan=self.plan,
            graph=exchange.graph,
            weighting=exchange.weighting,
            deadline_s=exchange.deadline_s,
            join_deadline_s=exchange.join_deadline_s,
            evaluation_deadline_s=exchange.evaluation_deadline_s,
        )


def load_run(
    config: RunConfig,
    dataset: DataSet | None = None,
    backbones: Mapping[str, nn.Module] = MappingProxyType({}),
    *,
    peers: Collection[str] | None = None,
    is_to_start: bool = False,
) -> LoadedRun:
    """Returns the run with its data, its schedule and its plan.

    Args:
        config: the run.
        dataset: in place of the one that `config.data` names.
        backbones: the user's own modules, by peer.
        peers: those whose private images this process needs; None is all. A partition's are there
            anyway.
        is_to_start: whether this process starts the run and coordinates it. Then `config.anchors`, if
            it is set, stands for the shared images. And of the images that are here, as many must have
            a class as kNN has neighbours.

    Raises:
        ConfigError: a setting is impossible with this data set.
        DataError: the data set is missing or broken.
    """
    if is_to_start and config.anchors is not None:
        whole = Manifest.read(Path(config.anchors)).dataset()
    elif dataset is not None:
        whole = with_test_part(dataset, config.eval.test_share)
    else:
        whole = dataset_with_test_part(config.data, config.eval.test_share)
    parts: dict[str, DataRoles] = {}
    others = other_anchors(config, whole)
    if config.partition.is_private:
        made = cut(whole, _with_images(config), config.partition, config.seed, others)
        data = DataRoles(shared=made.anchors, own=made.anchors, evaluated=whole)
        parts = {
            name: dataclasses.replace(data, own=private) for name, private in made.private.items()
        }
    else:
        made, data = None, DataRoles.all_of(whole)
    wanted = {
        name: peer.data
        for name, peer in config.peers.items()
        if peer.data is not None and (peers is None or name in peers)
    }
    drawn_from = whole if others is None else others
    found = private_images(wanted, drawn_from, config.eval.test_share, set_of_anchors(config))
    for name, own in found.items():
        parts[name] = DataRoles(shared=data.shared, own=own, evaluated=own)
    config = fitted(config, len(data.shared.train))
    here = [name for name, peer in config.peers.items() if peer.data is None or name in parts]
    if is_to_start and (config.anchors is not None or config.leaves_images_to_sites):
        here = []
    evaluated = [parts.get(name, data).evaluated for name in here if is_to_start]
    check_enough_images(config, data.shared, evaluated)
    schedule = make_schedule(config, len(data.shared.train))
    plan = make_plan(config, schedule)
    for name, number in _private_numbers(config, parts).items():
        check_passes(config, plan, name, number)
    return LoadedRun(
        config=config,
        data=data,
        schedule=schedule,
        plan=plan,
        agreement=make_agreement(config, data.shared, None if others is None else whole),
        passes={
            PeerId(name): Passes.of(config, PeerId(name), parts.get(name, data), schedule, plan)
            for name in config.peers
        },
        here=frozenset(map(PeerId, here)),
        private=parts,
        cut=made,
        backbones=backbones,
    )


def _named(dataset: DataSet) -> str:
    """Returns the classes of a data set, for people."""
    if dataset.class_names:
        return some_of([one_line(name, 40) for name in dataset.class_names], 6)
    return f"0 to {dataset.num_classes - 1}" if dataset.num_classes else "no classes"


def _private_numbers(config: RunConfig, parts: Mapping[str, DataRoles]) -> dict[str, int | None]:
    """Returns the peers that learn from private images, with their number; None if it's not known here."""
    numbers: dict[str, int | None] = {}
    for name, peer in config.peers.items():
        if peer.frozen_from is None and name in parts:
            numbers[name] = len(parts[name].own.train)
        elif peer.frozen_from is None and (peer.data is not None or config.leaves_images_to_sites):
            numbers[name] = None
    return numbers


def _with_images(config: RunConfig) -> list[str]:
    """Returns the peers among which a partition is cut.

    A teacher from a weights file is no site, and the same run without it must have the same cut. A peer
    with images of its own gets none of these.

    Raises:
        ConfigError: there are none.
    """
    names = [
        name
        for name, peer in config.peers.items()
        if peer.data is None
        and (peer.frozen_from is None or not is_weights_file(Path(peer.frozen_from)))
    ]
    if not names:
        raise ConfigError(
            f"partition={config.partition.kind.value} gives peers private images, and all of these have "
            "images of their own (peers.<name>.data); leave one of them out"
        )
    return names
