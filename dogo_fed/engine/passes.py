"""Which images a pass of one peer holds: its private ones, then the anchors of the step."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dogo_fed.config import USUAL_ANCHOR_SHARE, AnchorsAt, LossOn, RunConfig
from dogo_fed.contracts import PeerId
from dogo_fed.data.adapt import resized
from dogo_fed.data.roles import DataRoles, StepImages
from dogo_fed.data.schedule import Schedule
from dogo_fed.engine.fit import FEWEST_IMAGES, share_holding
from dogo_fed.errors import ConfigError
from dogo_fed.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Passes:
    """The passes of one peer: images by step, a pure function of the settings and the step.

    Attributes:
        data: the peer's data sets.
        anchors: which shared images a step uses; the same at every peer.
        private: which of its private images a step uses; None if it has none, or does not learn.
        plan: tells which steps exchange.
        anchors_per_step: the anchors of a pass that holds any; 0 if none does.
        images_per_pass: of a pass with private images.
        anchors_at: the steps whose passes hold anchors.
        ssl_on: which images the peer's own loss sees.
    """

    data: DataRoles
    anchors: Schedule
    private: Schedule | None
    plan: Plan
    anchors_per_step: int
    images_per_pass: int
    anchors_at: AnchorsAt
    ssl_on: LossOn

    @classmethod
    def of(
        cls, config: RunConfig, peer_id: PeerId, data: DataRoles, anchors: Schedule, plan: Plan
    ) -> Passes:
        """Returns the passes of a peer.

        Args:
            config: the run's settings, fitted to the images.
            peer_id: which peer.
            data: its data sets.
            anchors: which shared images a step uses.
            plan: the run's.
        """
        assert config.batch_size is not None, "fitted to the images"
        settings, private = config.peers[peer_id], None
        if data.own is not data.shared and settings.frozen_from is None:
            number = len(data.own.train)
            most = min(_room_for_private(config), number)
            if most > 0:
                private = Schedule(
                    seed=config.seed,
                    num_samples=number,
                    batch_size=most,
                    stream=("private schedule", peer_id),
                )
        return cls(
            data=data,
            anchors=anchors,
            private=private,
            plan=plan,
            anchors_per_step=config.anchors_per_step,
            images_per_pass=config.batch_size,
            anchors_at=config.anchors_at,
            ssl_on=settings.ssl_on,
        )

    def images(self, step: int, *, with_labels: bool) -> StepImages:
        """Returns the images of a step's pass.

        Args:
            step: the run's step.
            with_labels: whether the peer's own loss needs the classes of what it sees.
        """
        shared = self.data.shared.train
        if self.private is None:
            ids = self.anchors.sample_ids(step)
            return StepImages(shared.images(ids), shared.labels[ids] if with_labels else None)
        own = self.data.own.train
        anchor_ids = self.anchors.sample_ids(step)[: self._num_anchors(step)]
        num_private = self.images_per_pass - len(anchor_ids)
        private_ids = self.private.sample_ids(step)[:num_private]
        private, anchors = slice(0, len(private_ids)), slice(len(private_ids), None)
        seen = {LossOn.BOTH: None, LossOn.PRIVATE: private, LossOn.ANCHORS: anchors}[self.ssl_on]
        labels = None
        if with_labels:
            labels = torch.cat([own.labels[private_ids], shared.labels[anchor_ids]])
            labels = labels if seen is None else labels[seen]
        return StepImages(
            self._together(own.images(private_ids), shared.images(anchor_ids)),
            labels,
            own=seen,
            shared=anchors,  # of an all-private pass: none, so that none could be published
        )

    def _together(self, *parts_NCHW: torch.Tensor) -> torch.Tensor:
        """Returns the images of both kinds in one batch, at one size if they are stored at several."""
        if len({part_NCHW.shape[1:] for part_NCHW in parts_NCHW}) > 1:
            size = self.data.own.image_size
            return torch.cat([resized(part_NCHW, size) for part_NCHW in parts_NCHW])
        return torch.cat(parts_NCHW)

    def _num_anchors(self, step: int) -> int:
        """Returns how many anchors the pass of a step holds."""
        is_with = self.anchors_at is AnchorsAt.EVERY_STEP or self.plan.exchanges_at(step)
        return self.anchors_per_step if is_with else 0


@dataclass(frozen=True, slots=True)
class PassKind:
    """The passes of a run that hold as many images of each kind.

    Attributes:
        number: how many such passes the run has.
        private: private images of one.
        anchors: anchors of one.
    """

    number: int
    private: int
    anchors: int


def kinds_of_passes(config: RunConfig, plan: Plan, num_private: int | None) -> list[PassKind]:
    """Returns how many images the passes of a peer hold.

    Args:
        config: the run's settings, fitted to the images.
        plan: the run's.
        num_private: how many private images the peer has, 0 if it has none; None if it has some and
            their number is not known, which is taken for enough.
    """
    batch_size, anchors = config.batch_size, config.anchors_per_step
    assert batch_size is not None, "fitted to the images"
    if num_private == 0:  # the part of a pass that is shared is all that it sees
        return [PassKind(plan.total_steps, 0, anchors)]
    most = batch_size if num_private is None else min(batch_size, num_private)
    with_anchors = min(most, batch_size - anchors)
    if config.anchors_at is AnchorsAt.EVERY_STEP:
        return [PassKind(plan.total_steps, with_anchors, anchors)]
    others = plan.total_steps - plan.num_exchanges
    both = [PassKind(plan.num_exchanges, with_anchors, anchors), PassKind(others, most, 0)]
    return [kind for kind in both if kind.number > 0]


def images_seen(config: RunConfig, plan: Plan, num_private: int | None) -> int:
    """Returns how many images the passes of a whole run hold, with repetition.

    The arguments are those of `kinds_of_passes`.
    """
    kinds = kinds_of_passes(config, plan, num_private)
    return sum(kind.number * (kind.private + kind.anchors) for kind in kinds)


def check_passes(config: RunConfig, plan: Plan, peer: str, num_private: int | None) -> None:
    """Checks that a peer's passes hold private images, and enough of what its own loss sees.

    Args:
        config: the run's settings, fitted to the images.
        plan: the run's.
        peer: one that learns, and has private images.
        num_private: how many; None if that is not known here.

    Raises:
        ConfigError: no pass holds any; or some pass holds too few for the loss.
    """
    kinds, ssl_on = kinds_of_passes(config, plan, num_private), config.peers[peer].ssl_on
    told = (
        f"batch_size={config.batch_size} anchor_share={config.share_of_anchors:g} anchors_at="
        f"{config.anchors_at.value}"
    )
    if not any(kind.private for kind in kinds):
        raise ConfigError(
            f"with {told} every pass has {config.anchors_per_step} anchors and no room beside them, so "
            f"peer {peer} would never see its private images; type {_room_for(1, config)}, or "
            "anchors_at=exchanges with exchange.every_steps=2 or more"
        )
    of_kind = {
        LossOn.BOTH: [kind.private + kind.anchors for kind in kinds],
        LossOn.PRIVATE: [kind.private for kind in kinds],
        LossOn.ANCHORS: [kind.anchors for kind in kinds],
    }
    fewest = min(of_kind[ssl_on])
    if fewest >= FEWEST_IMAGES:
        return
    has_few = num_private is not None and num_private < FEWEST_IMAGES
    raise ConfigError(
        f"the own loss of peer {peer} compares at least {FEWEST_IMAGES} images with each other, and "
        f"with {told} and peers.{peer}.ssl_on={ssl_on.value} some pass holds {fewest} that it sees; "
        + (
            f"the peer has {num_private} private image, give it more"
            if has_few
            else f"type {_room_for(FEWEST_IMAGES, config)}, or peers.{peer}.ssl_on=both"
        )
    )


def _room_for(wanted: int, config: RunConfig) -> str:
    """Returns what to type so that a pass with anchors has room for so many private images."""
    assert config.batch_size is not None, "fitted to the images"
    most = config.batch_size - wanted
    if most < FEWEST_IMAGES:
        return (
            f"batch_size={FEWEST_IMAGES + wanted} or more, with anchor_share={USUAL_ANCHOR_SHARE}"
        )
    return f"anchor_share={share_holding(most, config.batch_size):g} or less"


def _room_for_private(config: RunConfig) -> int:
    """Returns how many private images a pass may hold at most."""
    assert config.batch_size is not None, "fitted to the images"
    all_private = config.share_of_anchors == 0 or config.anchors_at is AnchorsAt.EXCHANGES
    return config.batch_size - (0 if all_private else config.anchors_per_step)
