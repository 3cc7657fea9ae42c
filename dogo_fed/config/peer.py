"""The settings of one peer."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from dogo_fed.config.checks import require, require_positive
from dogo_fed.config.component import ComponentConfig, OptimizerConfig
from dogo_fed.config.data import OTHER_DATA, DataConfig
from dogo_fed.config.scopes import OWN, OWN_TEACHING
from dogo_fed.objectives.mutual import Reduction
from dogo_fed.scope import DecidedBy, Decides, scope

PUBLISHED_DISTILL_WEIGHT = 100 / 256
"""The published code's weight of 100 over N * N elements at N = 256, in batchmean units."""


class Teacher(enum.Enum):
    """Whose similarities a peer publishes.

    LIVE: its own, as they are at the step: the published method.
    EMA: those of an average of its own weights over the steps (Tarvainen and Valpola 2017).
    """

    LIVE = "live"
    EMA = "ema"


class Gate(enum.Enum):
    """What a peer keeps out of what it learns from others.

    NONE: nothing: the published method.
    AGREEMENT: of the distillation's gradient by the embeddings, what works against the own loss, to
        first order and for each image (`objectives.gate`).
    """

    NONE = "none"
    AGREEMENT = "agreement"


class LossOn(enum.Enum):
    """Which images of a pass the peer's own loss sees; what is exchanged is about anchors only.

    BOTH: its private images and the anchors.
    PRIVATE: its private images.
    ANCHORS: the anchors.
    """

    BOTH = "both"
    PRIVATE = "private"
    ANCHORS = "anchors"


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """One learner; every setting is the peer's own.

    Attributes:
        backbone: images to features.
        objective: the self-supervised loss with its heads.
        augmentation: how this peer draws its two views.
        optimizer: one of torch's, by name, with the schedule of its rate.
        distill_weight: factor of the mutual KL, in units of `distill_reduction`; 0 learns alone.
        rare_distill_weight: the same at the exchanges after `exchange.dense_steps`, which may be rare;
            null is `distill_weight`.
        distill_reduction: "batchmean", or the published code's "mean_over_elements".
        distill_warmup_steps: the weight rises linearly from 0 at the run's step 0 to its full value
            at this step; 0 uses the full value from the start.
        kl_temperature: divisor of the cosines in the similarity distribution.
        features_temperature: the same where exchange.rows=features: cosines of features are nearer
            to each other than those of a projector.
        teacher: whose similarities the peer publishes.
        teacher_momentum: of the average, with teacher=ema: the share that it keeps at a step.
        teacher_temperature: divisor of the cosines in what it publishes; null is that with which it
            learns.
        teacher_temperature_end: the same at the run's last step, to which it moves in equal parts; null
            leaves it as it is.
        gate: what it keeps out of what it learns from others.
        data: images that this peer has for itself, in place of those that a partition would give it.
            Nothing about them leaves it. Null: it has none, or those of the run's partition.
        ssl_on: which images of a pass the own loss sees, if the peer has private ones.
        chunk_size: images that pass through the networks at a time. A smaller one needs less memory
            and one more forward pass. The gradient is that of the whole batch, but layers that
            normalise by the batch see a chunk. Null: all images of a pass.
        data_parallel: processes among which each pass is split, each with a GPU of its own. The loss and
            the similarities are those of the whole batch.
        sync_batchnorm: whether layers that normalise by the batch see all parts of a split pass;
            else each sees its own. For GPUs.
        init: weights file for the backbone to start from; null draws the weights.
        frozen_from: run folder in which the peer of this name was trained, or a weights file. The
            peer teaches with the weights of its newest checkpoint there, or of the file, and never
            learns. A file has no head, so it teaches by its features (exchange.rows=features). On a
            cluster both paths must be absolute.
        weights_prefix: what stands in front of the backbone's names in that weights file; null looks
            for it.
    """

    backbone: ComponentConfig = field(metadata=OWN)
    objective: ComponentConfig = field(
        metadata=scope(
            DecidedBy.SITE, Decides.TRAINING, teaching_options=(("publish", "projector"),)
        )
    )
    augmentation: ComponentConfig = field(metadata=OWN)
    optimizer: OptimizerConfig = field(metadata=OWN)
    distill_weight: float = field(default=PUBLISHED_DISTILL_WEIGHT, metadata=OWN_TEACHING)
    rare_distill_weight: float | None = field(default=None, metadata=OWN_TEACHING)
    distill_reduction: Reduction = field(default=Reduction.BATCHMEAN, metadata=OWN_TEACHING)
    distill_warmup_steps: int = field(default=0, metadata=OWN_TEACHING)
    kl_temperature: float = field(default=0.1, metadata=OWN_TEACHING)
    features_temperature: float = field(default=0.05, metadata=OWN_TEACHING)
    teacher: Teacher = field(default=Teacher.LIVE, metadata=OWN_TEACHING)
    teacher_momentum: float = field(default=0.99, metadata=OWN_TEACHING)
    teacher_temperature: float | None = field(default=None, metadata=OWN_TEACHING)
    teacher_temperature_end: float | None = field(default=None, metadata=OWN_TEACHING)
    gate: Gate = field(default=Gate.NONE, metadata=OWN_TEACHING)
    data: DataConfig | None = field(default=None, metadata=OTHER_DATA)
    ssl_on: LossOn = field(default=LossOn.BOTH, metadata=OWN)
    chunk_size: int | None = field(default=None, metadata=OWN)
    data_parallel: int = field(default=1, metadata=OWN)
    sync_batchnorm: bool = field(default=False, metadata=OWN)
    init: str | None = field(default=None, metadata=OWN)
    frozen_from: str | None = field(default=None, metadata=OWN)
    weights_prefix: str | None = field(default=None, metadata=OWN)

    def __post_init__(self) -> None:
        require_positive(
            "",
            kl_temperature=self.kl_temperature,
            features_temperature=self.features_temperature,
            teacher_temperature=self.teacher_temperature,
            teacher_temperature_end=self.teacher_temperature_end,
        )
        require(
            0.0 <= self.teacher_momentum < 1.0,
            f"teacher_momentum must be at least 0 and below 1, not {self.teacher_momentum}",
        )
        if not isinstance(self.optimizer, OptimizerConfig):  # a name and options do as well
            plain: ComponentConfig = self.optimizer
            made = OptimizerConfig(name=plain.name, options=plain.options)
            object.__setattr__(self, "optimizer", made)
        require(
            self.chunk_size is None or self.chunk_size >= 2,
            f"chunk_size must be at least 2 or null, not {self.chunk_size}",
        )
        require(
            self.data_parallel >= 1, f"data_parallel must be 1 or more, not {self.data_parallel}"
        )
        require(
            self.data_parallel > 1 or not self.sync_batchnorm,
            "sync_batchnorm=true is for a peer on several GPUs; set data_parallel too",
        )
        require(
            self.gate is Gate.NONE or self.ssl_on is not LossOn.PRIVATE,
            "gate=agreement compares gradients of the own loss and of the distillation about the "
            "same images, and with ssl_on=private there are none; leave one of them out",
        )
        require(
            self.gate is Gate.NONE or (self.chunk_size is None and self.data_parallel == 1),
            "gate=agreement needs the gradient of the own loss by the embeddings, which a pass in parts "
            "does not give; leave out chunk_size and data_parallel, or the gate",
        )
        require(self.init != "", "init must be a weights file or null, not empty")
        require(
            self.frozen_from != "",
            "frozen_from must be a run folder, a weights file or null, not empty",
        )
        require(
            self.init is None or self.frozen_from is None,
            "init and frozen_from both name weights for one peer; give one of them",
        )
        require(
            self.weights_prefix is None or self.init is not None or self.frozen_from is not None,
            f"weights_prefix={self.weights_prefix} is about the names in a weights file; name the file by "
            "init or frozen_from, or leave it out",
        )
        require(
            math.isfinite(self.distill_weight) and self.distill_weight >= 0,
            f"distill_weight must be 0 or more, not {self.distill_weight}",
        )
        rare = self.rare_distill_weight
        require(
            rare is None or (math.isfinite(rare) and rare >= 0),
            f"rare_distill_weight must be 0 or more, or null, not {rare}",
        )
        require(
            self.distill_warmup_steps >= 0,
            f"distill_warmup_steps must be 0 or more, not {self.distill_warmup_steps}",
        )
