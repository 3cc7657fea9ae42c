"""Everything a run can be told, as frozen dataclasses that check themselves.

YAML and command line compose these (see `configs`). A library user builds them directly. Each
dataclass checks its values when it is made, and raises a `ConfigError` that names the setting. Each
setting declares its scope as the metadata of its field: who decides it and what it decides (see
`scope`).
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dogo_fed.errors import ConfigError
from dogo_fed.objectives.mutual import Reduction
from dogo_fed.plain import to_plain
from dogo_fed.scope import DecidedBy, Decides, scope, settings_of

PUBLISHED_DISTILL_WEIGHT = 100 / 256
"""The published code's weight of 100 over N * N elements at N = 256, in batchmean units."""

_OWN = scope(DecidedBy.SITE, Decides.TRAINING)
_OWN_TEACHING = scope(DecidedBy.SITE, Decides.TRAINING, teaching=True)
_AGREED = scope(DecidedBy.RUN, Decides.TRAINING, agreed=True)
_AGREED_TEACHING = scope(DecidedBy.RUN, Decides.TRAINING, agreed=True, teaching=True)
_CONVERSATION = scope(DecidedBy.RUN, Decides.NOTHING, teaching=True)
_AGREED_CONVERSATION = scope(DecidedBy.RUN, Decides.NOTHING, agreed=True, teaching=True)
_LENGTH = scope(DecidedBy.RUN, Decides.LENGTH, agreed=True)
_SCORES = scope(DecidedBy.RUN, Decides.SCORES)
_SAFETY = scope(DecidedBy.RUN, Decides.NOTHING)
_PLACE = scope(DecidedBy.PLACE, Decides.NOTHING)

_PEER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HOST_PORT = re.compile(r"\S+:[0-9]{1,5}")


class Host(enum.Enum):
    """Where the peers of a run live.

    LOCAL: in this process, one after the other in lock-step: the reference.
    PROCESSES: one process per peer on this machine.
    RAY: one Ray actor per peer, on this machine or a cluster.
    FLOWER: where Flower's nodes are: an actor per peer in simulation, a process of the site's own
        in deployment.
    """

    LOCAL = "local"
    PROCESSES = "processes"
    RAY = "ray"
    FLOWER = "flower"


class Transport(enum.Enum):
    """What carries the steps' distributions between processes.

    GRPC: the coordinator's own service, a call per step.
    FLOWER: Flower's messages, one per step; needs no port of its own, and is slow.
    """

    GRPC = "grpc"
    FLOWER = "flower"


class Encoding(enum.Enum):
    """How the numbers of a distribution travel; `wire.encodings` has a file for each.

    FLOAT32: exact, 4 bytes a number.
    """

    FLOAT32 = "float32"


class Rows(enum.Enum):
    """Whose similarities the peers show each other and learn from: the rows of the distributions.

    PROJECTOR: the projector's output.
    PREDICTOR: the predictor's output, where the objective has one.
    FEATURES: the backbone's pooled features, which are what is used after training.
    """

    PROJECTOR = "projector"
    PREDICTOR = "predictor"
    FEATURES = "features"


class Placement(enum.Enum):
    """How Ray spreads the peers over nodes (Ray's placement group strategies)."""

    PACK = "PACK"
    SPREAD = "SPREAD"
    STRICT_PACK = "STRICT_PACK"
    STRICT_SPREAD = "STRICT_SPREAD"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _require_positive(owner: str, **values: float | None) -> None:
    for key, value in values.items():
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{owner}{key} must be greater than 0, not {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentConfig:
    """Something built by name, with its options.

    Attributes:
        name: a short name, or an import path "package.module:name".
        options: keyword arguments for what the name stands for.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        _require(bool(self.name.strip()), "the name of a component must not be empty")

    def __str__(self) -> str:
        """Returns the name with its options, e.g. "resnet18(width=16)"."""
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.name}({options})" if options else self.name


class RateSchedule(enum.Enum):
    """How the learning rate goes on after its warm-up.

    CONSTANT: as published; the published code's schedule does nothing.
    COSINE: to zero at the run's end, along half a cosine (Loshchilov and Hutter 2017, without
        restarts).
    STEP: a tenth of it after 60 % of the run, and a tenth of that after 80 %.
    """

    CONSTANT = "constant"
    COSINE = "cosine"
    STEP = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig(ComponentConfig):
    """How a peer's weights are updated.

    Attributes:
        schedule: of the learning rate.
        warmup_steps: the rate rises linearly to its full value over the run's first steps.
        clip_norm: a longer gradient is cut to this length; null cuts none.
        decay_all: whether weight decay is for all parameters, as published, or only for those of more
            than one dimension, without biases and normalisations.
    """

    schedule: RateSchedule = field(default=RateSchedule.CONSTANT, metadata=_OWN)
    warmup_steps: int = field(default=0, metadata=_OWN)
    clip_norm: float | None = field(default=None, metadata=_OWN)
    decay_all: bool = field(default=True, metadata=_OWN)

    def __post_init__(self) -> None:
        ComponentConfig.__post_init__(self)
        _require_positive("optimizer.", clip_norm=self.clip_norm)
        _require(
            self.warmup_steps >= 0,
            f"optimizer.warmup_steps must be 0 or more, not {self.warmup_steps}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """One learner; every setting is the peer's own.

    Attributes:
        backbone: images to features.
        objective: the self-supervised loss with its heads.
        augmentation: how this peer draws its two views.
        optimizer: one of torch's, by name, with the schedule of its rate.
        distill_weight: factor of the mutual KL, in units of `distill_reduction`; 0 learns alone.
        distill_reduction: "batchmean", or the published code's "mean_over_elements".
        distill_warmup_steps: the weight rises linearly from 0 at the run's step 0 to its full value
            at this step; 0 uses the full value from the start.
        kl_temperature: divisor of the cosines in the similarity distribution.
        features_temperature: the same where exchange.rows=features: cosines of features are nearer
            to each other than those of a projector.
        init: weights file for the backbone to start from; null draws the weights.
        frozen_from: run folder in which the peer of this name was trained, or a weights file. The
            peer teaches with the weights of its newest checkpoint there, or of the file, and never
            learns. A file has no head, so it teaches by its features (exchange.rows=features). On a
            cluster both paths must be absolute.
    """

    backbone: ComponentConfig = field(metadata=_OWN)
    objective: ComponentConfig = field(
        metadata=scope(DecidedBy.SITE, Decides.TRAINING, teaching_options=("publish",))
    )
    augmentation: ComponentConfig = field(metadata=_OWN)
    optimizer: OptimizerConfig = field(metadata=_OWN)
    distill_weight: float = field(default=PUBLISHED_DISTILL_WEIGHT, metadata=_OWN_TEACHING)
    distill_reduction: Reduction = field(default=Reduction.BATCHMEAN, metadata=_OWN_TEACHING)
    distill_warmup_steps: int = field(default=0, metadata=_OWN_TEACHING)
    kl_temperature: float = field(default=0.1, metadata=_OWN_TEACHING)
    features_temperature: float = field(default=0.05, metadata=_OWN_TEACHING)
    init: str | None = field(default=None, metadata=_OWN)
    frozen_from: str | None = field(default=None, metadata=_OWN)

    def __post_init__(self) -> None:
        _require_positive(
            "",
            kl_temperature=self.kl_temperature,
            features_temperature=self.features_temperature,
        )
        if not isinstance(self.optimizer, OptimizerConfig):  # a name and options do as well
            plain: ComponentConfig = self.optimizer
            made = OptimizerConfig(name=plain.name, options=plain.options)
            object.__setattr__(self, "optimizer", made)
        _require(self.init != "", "init must be a weights file or null, not empty")
        _require(
            self.frozen_from != "",
            "frozen_from must be a run folder, a weights file or null, not empty",
        )
        _require(
            self.init is None or self.frozen_from is None,
            "init and frozen_from both name weights for one peer; give one of them",
        )
        _require(
            math.isfinite(self.distill_weight) and self.distill_weight >= 0,
            f"distill_weight must be 0 or more, not {self.distill_weight}",
        )
        _require(
            self.distill_warmup_steps >= 0,
            f"distill_warmup_steps must be 0 or more, not {self.distill_warmup_steps}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig(ComponentConfig):
    """The data set every peer sees.

    Attributes:
        default_rounds: length of a run that names neither `rounds` nor `steps`.
    """

    name: str = field(metadata=scope(DecidedBy.SITE, Decides.TRAINING, agreed=True))
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), metadata=_OWN)
    default_rounds: int = field(
        default=10, metadata=scope(DecidedBy.SITE, Decides.LENGTH, agreed=True)
    )

    def __post_init__(self) -> None:
        ComponentConfig.__post_init__(self)
        _require_positive("data.", default_rounds=self.default_rounds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeConfig:
    """How peers teach each other.

    Attributes:
        enabled: false trains the same peers side by side, each alone.
        symmetric: whether both view directions are exchanged: the first view's rows over the second
            view's images, and the second's over the first's. Each peer then sends two matrices, and
            the mutual KL is the mean of the two directions.
        every_steps: peers exchange at the steps 0, k, 2k, ... and train alone between them.
        graph: for each learner its teachers with their weights, which count relative to each other.
            A peer that is not a learner here trains alone. Null: every peer learns from all others,
            with equal weights.
        rows: whose similarities are shown and learned with, the same at every peer. Null: each
            objective's own choice, as published.
        encoding: how the numbers of the distributions travel.
        transport: what carries the distributions; not used where all peers are in one process.
        deadline_s: how long the others wait for a peer at a step; then it counts as lost.
        join_deadline_s: how long the run waits for its peers to appear.
        evaluation_deadline_s: how long the others wait for a peer that evaluates its encoder.
        reconnect_s: how long a peer tries to reach a coordinator that does not answer.
    """

    enabled: bool = field(default=True, metadata=_AGREED)
    symmetric: bool = field(default=False, metadata=_AGREED_TEACHING)
    every_steps: int = field(default=1, metadata=_AGREED_TEACHING)
    graph: Mapping[str, Mapping[str, float]] | None = field(default=None, metadata=_AGREED_TEACHING)
    rows: Rows | None = field(default=None, metadata=_AGREED_TEACHING)
    encoding: Encoding = field(default=Encoding.FLOAT32, metadata=_AGREED_TEACHING)
    transport: Transport = field(default=Transport.GRPC, metadata=_CONVERSATION)
    deadline_s: float = field(default=120.0, metadata=_AGREED_CONVERSATION)
    join_deadline_s: float = field(default=300.0, metadata=_CONVERSATION)
    evaluation_deadline_s: float = field(default=21600.0, metadata=_CONVERSATION)
    reconnect_s: float = field(default=30.0, metadata=_CONVERSATION)

    def __post_init__(self) -> None:
        _require_positive(
            "exchange.",
            deadline_s=self.deadline_s,
            join_deadline_s=self.join_deadline_s,
            evaluation_deadline_s=self.evaluation_deadline_s,
            reconnect_s=self.reconnect_s,
            every_steps=self.every_steps,
        )
        if self.graph is not None:
            _check_graph(self.graph)

    @property
    def answer_within_s(self) -> float:
        """The longest time, in seconds, that an answer may be held back.

        The first exchange may wait until the last peer has joined and has done its first step.
        """
        return self.deadline_s + self.join_deadline_s


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalConfig:
    """What is measured, on frozen features, on each peer's own machine.

    Attributes:
        knn_every_rounds: rounds between two evaluations by weighted kNN; the last round has one
            too.
        knn_k, knn_temperature: of the weighted kNN. Without k it is 200, or a tenth of the labelled
            training images if they are fewer than 2,000.
        health: whether the health of the features (spread, rank, alignment, uniformity), which needs
            no labels, is measured at every round; null: if no accuracy can be.
        test_share: how much of the training images is held out if there are no test images.
        linear: whether to end with a linear probe.
        linear_epochs: length of the linear probe.
        batch_size: images per forward pass of feature extraction.
    """

    knn_every_rounds: int = field(default=1, metadata=_SCORES)
    knn_k: int | None = field(default=None, metadata=_SCORES)
    knn_temperature: float = field(default=0.07, metadata=_SCORES)
    health: bool | None = field(default=None, metadata=_SCORES)
    test_share: float = field(default=0.1, metadata=_AGREED)
    linear: bool = field(default=True, metadata=_SCORES)
    linear_epochs: int = field(default=50, metadata=_SCORES)
    batch_size: int = field(default=500, metadata=_SCORES)

    def __post_init__(self) -> None:
        _require_positive(
            "eval.",
            knn_every_rounds=self.knn_every_rounds,
            knn_k=self.knn_k,
            knn_temperature=self.knn_temperature,
            linear_epochs=self.linear_epochs,
            batch_size=self.batch_size,
        )
        _require(
            0.0 <= self.test_share < 1.0,
            f"eval.test_share must be at least 0 and below 1, not {self.test_share}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """When peers save themselves.

    Attributes:
        every_steps: steps between checkpoints; null saves at the end of every round.
        keep: how many checkpoints each peer keeps at least. It keeps more where a slower peer may
            need them, so that all peers have a step in common to resume from.
    """

    every_steps: int | None = field(default=None, metadata=_SAFETY)
    keep: int = field(default=2, metadata=_SAFETY)

    def __post_init__(self) -> None:
        _require_positive("checkpoint.", every_steps=self.every_steps)
        _require(self.keep >= 2, f"checkpoint.keep must be at least 2, not {self.keep}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryConfig:
    """What happens when a peer dies.

    Attributes:
        max_restarts: how often each peer is started again from its last checkpoint.
        silence_s: a run in which no peer reports anything for this long ends with an error.
    """

    max_restarts: int = field(default=2, metadata=_PLACE)
    silence_s: float = field(default=900.0, metadata=_PLACE)

    def __post_init__(self) -> None:
        _require(
            self.max_restarts >= 0,
            f"recovery.max_restarts must be 0 or more, not {self.max_restarts}",
        )
        _require_positive("recovery.", silence_s=self.silence_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorConfig:
    """Where the coordinator listens, and how it is reached.

    Attributes:
        address: address to listen on; null is the loopback interface where all peers are on this
            machine and the node's own address where they are not.
        port: 0 takes a free one.
        public_address: host:port by which peers reach it, if that differs from where it listens (a
            name in the certificate, a forwarded port); null gives them the address it listens on.
        certificate: PEM file with the certificate chain; null uses no TLS.
        private_key: PEM file with its key.
    """

    address: str | None = field(default=None, metadata=_PLACE)
    port: int = field(default=0, metadata=_PLACE)
    public_address: str | None = field(default=None, metadata=_PLACE)
    certificate: str | None = field(default=None, metadata=_PLACE)
    private_key: str | None = field(default=None, metadata=_PLACE)

    def __post_init__(self) -> None:
        _require(0 <= self.port <= 65535, f"coordinator.port must be 0 to 65535, not {self.port}")
        _require(
            (self.certificate is None) == (self.private_key is None),
            "coordinator.certificate and coordinator.private_key belong together: give both or "
            "neither",
        )
        _require(
            self.public_address is None or bool(_HOST_PORT.fullmatch(self.public_address)),
            f"coordinator.public_address must be host:port, not {self.public_address!r}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RayConfig:
    """Where Ray puts the peers.

    Attributes:
        address: null starts a local Ray and ends it with the run; "auto" or host:port joins a
            running cluster.
        gpus_per_peer: null gives each peer one GPU if the cluster has any; with a fraction, several
            peers share one.
        cpus_per_peer: logical CPUs reserved for each peer.
        placement: Ray's placement group strategy.
        placement_timeout_s: how long to wait until the cluster has room for all peers.
    """

    address: str | None = field(default=None, metadata=_PLACE)
    gpus_per_peer: float | None = field(default=None, metadata=_PLACE)
    cpus_per_peer: float = field(default=1.0, metadata=_PLACE)
    placement: Placement = field(default=Placement.PACK, metadata=_PLACE)
    placement_timeout_s: float = field(default=120.0, metadata=_PLACE)

    def __post_init__(self) -> None:
        gpus = self.gpus_per_peer
        _require(
            gpus is None or (math.isfinite(gpus) and gpus >= 0),
            f"ray.gpus_per_peer must be 0 or more, not {gpus}",
        )
        _require(
            gpus is None or gpus <= 1 or float(gpus).is_integer(),
            f"ray.gpus_per_peer must be a fraction of one GPU or a whole number, not {gpus}",
        )
        _require(
            math.isfinite(self.cpus_per_peer) and self.cpus_per_peer >= 0,
            f"ray.cpus_per_peer must be 0 or more, not {self.cpus_per_peer}",
        )
        _require_positive("ray.", placement_timeout_s=self.placement_timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run.

    Attributes:
        host: where the peers live.
        peers: the peers by name. Wherever their order matters, it is the order of their names.
        data: the data set.
        batch_size: N, images per step, the same at every peer. Null: 256, or fewer where there are
            fewer than 1,024 training images; see `engine.plan.usual_batch_size`.
        seed: the seed of every random stream of the run.
        rounds, steps: length of the run in rounds or in steps; if both are null, the data set's
            `default_rounds`.
        steps_per_round: null is one epoch.
        threads_per_peer: torch's threads in each peer's process; another number may change the last
            bits of the results.
        device: "auto", "cpu" or "cuda".
        run_dir: null is runs/<peers>-<time>.
        resume: run folder to go on with; everything else is read from there.
        afresh: whether the run that `resume` names begins again at step 0.
    """

    peers: Mapping[str, PeerConfig]
    data: DataConfig
    host: Host = field(default=Host.RAY, metadata=_SAFETY)
    batch_size: int | None = field(default=None, metadata=_AGREED)
    seed: int = field(default=0, metadata=_AGREED)
    rounds: int | None = field(default=None, metadata=_LENGTH)
    steps: int | None = field(default=None, metadata=_LENGTH)
    steps_per_round: int | None = field(default=None, metadata=_AGREED)
    threads_per_peer: int = field(default=1, metadata=_OWN)
    device: str = field(default="auto", metadata=scope(DecidedBy.SITE, Decides.ROUNDING))
    run_dir: str | None = field(default=None, metadata=_PLACE)
    resume: str | None = field(default=None, metadata=_PLACE)
    afresh: bool = field(default=False, metadata=_PLACE)
    exchange: ExchangeConfig = ExchangeConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    recovery: RecoveryConfig = RecoveryConfig()
    coordinator: CoordinatorConfig = CoordinatorConfig()
    ray: RayConfig = RayConfig()

    def __post_init__(self) -> None:
        """Checks what can be checked without the data set.

        Raises:
            ConfigError: there is no peer, or none that learns; two names differ only in case, or a
                name can't be a folder's; a number is out of range; two settings contradict each
                other; the teaching graph names a peer that does not exist.
        """
        _require(len(self.peers) >= 1, "a run needs at least 1 peer, but peers is empty")
        for name in self.peers:
            _require(
                bool(_PEER_NAME.fullmatch(name)),
                f"peer name {name!r} must be 1 to 64 letters, digits, '.', '_' or '-', since it "
                "becomes a folder name",
            )
        folded = [name.casefold() for name in self.peers]
        _require(
            len(set(folded)) == len(folded),
            f"two peers have the same name (ignoring case): {', '.join(self.peers)}",
        )
        _require(
            any(peer.frozen_from is None for peer in self.peers.values()),
            "every peer is frozen (frozen_from), so no peer would learn",
        )
        _require(
            self.batch_size is None or self.batch_size >= 2,
            f"batch_size must be at least 2, not {self.batch_size}",
        )
        _require(0 <= self.seed < 2**63, f"seed must be between 0 and 2**63 - 1, not {self.seed}")
        _require_positive(
            "",
            rounds=self.rounds,
            steps=self.steps,
            steps_per_round=self.steps_per_round,
            threads_per_peer=self.threads_per_peer,
        )
        _require(
            self.rounds is None or self.steps is None,
            f"give rounds or steps, not both (rounds={self.rounds}, steps={self.steps})",
        )
        _require(
            self.resume is not None or not self.afresh,
            "afresh=true begins an earlier run again; name its folder by resume=",
        )
        _require(
            self.exchange.transport is Transport.GRPC or self.host is Host.FLOWER,
            "exchange=flower lets Flower's messages carry the steps; with "
            f"host={self.host.value} there are none. Start the run by `dogo-fed flower`, or leave "
            "exchange=grpc",
        )
        _require(
            self.device in ("auto", "cpu", "cuda"),
            f'device must be "auto", "cpu" or "cuda", not {self.device!r}',
        )
        if self.exchange.graph is not None:
            _check_names(self.exchange.graph, self.peers)

    @property
    def exchanges(self) -> bool:
        """Whether anything is exchanged: it is switched on, and there is more than one peer."""
        return self.exchange.enabled and len(self.peers) > 1

    @property
    def variants(self) -> dict[str, object]:
        """The settings of the teaching whose values are not the defaults, by their paths.

        The defaults are the paper's. Without an exchange there are none.
        """
        if not self.exchanges:
            return {}
        return {
            one.path: to_plain(one.value)
            for one in sorted(settings_of(self), key=lambda one: one.path.startswith("peers."))
            if one.scope.is_of_teaching
            and one.scope.decides is Decides.TRAINING
            and one.value != one.default
        }


def _check_graph(graph: Mapping[str, Mapping[str, float]]) -> None:
    """Checks what needs no peers: edges, weights, and that each learner has a teacher.

    Raises:
        ConfigError: there is no edge, a peer teaches itself, a weight is negative or not finite, or
            all weights of a learner are 0.
    """
    _require(
        any(graph.values()),
        "exchange.graph has no edge, so no peer would learn from another; say "
        "exchange.enabled=false",
    )
    for learner, teachers in graph.items():
        for teacher, weight in teachers.items():
            edge = f"exchange.graph.{learner}.{teacher}"
            _require(teacher != learner, f"{edge}: a peer can't be its own teacher")
            _require(
                math.isfinite(weight) and weight >= 0,
                f"{edge} must be a weight of 0 or more, not {weight}",
            )
        _require(
            not teachers or any(teachers.values()),
            f"exchange.graph.{learner} has only weights of 0; leave {learner} out if it is to "
            "train alone",
        )


def _check_names(graph: Mapping[str, Mapping[str, float]], peers: Mapping[str, PeerConfig]) -> None:
    """Checks that every learner and teacher is a peer of the run."""
    for learner, teachers in graph.items():
        for name in (learner, *teachers):
            _require(
                name in peers,
                f"exchange.graph names {name!r}, but the peers of the run are {', '.join(peers)}",
            )
