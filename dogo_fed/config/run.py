"""One run: all its sections, and the checks that need more than one of them."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from dogo_fed.config.checks import require, require_positive
from dogo_fed.config.component import ComponentConfig
from dogo_fed.config.data import DataConfig
from dogo_fed.config.evaluation import EvalConfig
from dogo_fed.config.exchange import ExchangeConfig, Transport
from dogo_fed.config.host import (
    CheckpointConfig,
    CoordinatorConfig,
    Host,
    RayConfig,
    RecoveryConfig,
)
from dogo_fed.config.partition import PartitionConfig
from dogo_fed.config.peer import LossOn, PeerConfig
from dogo_fed.config.scopes import AGREED, LENGTH, OWN, PLACE, ROUNDING, SAFETY
from dogo_fed.objectives.catalog import OF_BASELINES
from dogo_fed.plain import to_plain
from dogo_fed.scope import Decides, settings_of

_PEER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Precision(enum.Enum):
    """In which numbers the networks compute while they train; losses and similarities are in fp32.

    FP32: float32 throughout.
    BF16: bfloat16 where torch's autocast takes it (products and convolutions); weights stay float32.
    FP16: float16 at the same places, for devices without instructions for bfloat16. The loss is scaled
        up, so that small gradients are not lost (Micikevicius et al., "Mixed Precision Training",
        2018); a step whose gradient overflows is left out, and the scale halved.
    AUTO: a few steps in fp32 and bf16 are tried before the run, and the fastest is taken, with its
        memory format.
    """

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


class MemoryFormat(enum.Enum):
    """How images and feature maps lie in memory; convolutions may be faster in one or the other."""

    CONTIGUOUS = "contiguous"
    CHANNELS_LAST = "channels_last"


MOST_PEERS = 1000
"""So many distributions can be added up exactly, see `coordination.exact_sum`."""

USUAL_ANCHOR_SHARE = 0.5
"""Share of a pass that are anchors, where a peer has private images."""


class AnchorsAt(enum.Enum):
    """At which steps a pass holds anchors, where peers have private images.

    EVERY_STEP: at each.
    EXCHANGES: at those that exchange; between them a pass is all private.
    """

    EVERY_STEP = "every_step"
    EXCHANGES = "exchanges"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One run.

    Attributes:
        host: where the peers live.
        peers: the peers by name. Wherever their order matters, it is the order of their names.
        data: the images that all peers share. Where peers have private images too, these are the
            anchors.
        anchors: manifest of the shared images, for a coordinator that has none of them.
        partition: cuts `data` into anchors and private images.
        batch_size: images of a pass. Null: 256, or fewer where few images are shared; see
            `engine.fit.fitted`.
        anchor_share: share of a pass that are anchors; the others are private. Null: a half if a peer
            is known to have private images, else 1. 0 is for peers that train alone on what they
            have.
        anchors_at: the steps whose passes hold anchors.
        seed: the seed of every random stream of the run.
        rounds, steps: length of the run in rounds or in steps; if both are null, the data set's
            `default_rounds`.
        steps_per_round: null is one epoch; 100 where passes have room for private images, of which
            each peer has another number.
        threads_per_peer: torch's threads in each peer's process; another number may change the last
            bits of the results.
        precision: in which numbers the networks compute while they train.
        memory_format: how images and feature maps lie in memory.
        compile: whether the peers' own backbones are compiled (torch.compile), which takes a while at
            the start and again at the first evaluation. Copies of them that only follow their weights
            are not: momentum encoders and averages.
        cuda_graphs: whether a GPU gets the compiled passes as one recording each (CUDA graphs), which
            spares the launches of their kernels.
        baseline: a method in place of the exchange, for comparisons in one process
            (`dogo_fed.baselines`); null is DoGo, or each peer alone.
        device: "auto", "cpu" or "cuda".
        run_dir: null is runs/<peers>-<time>.
        resume: run folder to go on with; everything else is read from there.
        afresh: whether the run that `resume` names begins again at step 0.
    """

    peers: Mapping[str, PeerConfig]
    data: DataConfig
    host: Host = field(default=Host.RAY, metadata=SAFETY)
    anchors: str | None = field(default=None, metadata=PLACE)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    batch_size: int | None = field(default=None, metadata=AGREED)
    anchor_share: float | None = field(default=None, metadata=AGREED)
    anchors_at: AnchorsAt = field(default=AnchorsAt.EVERY_STEP, metadata=AGREED)
    seed: int = field(default=0, metadata=AGREED)
    rounds: int | None = field(default=None, metadata=LENGTH)
    steps: int | None = field(default=None, metadata=LENGTH)
    steps_per_round: int | None = field(default=None, metadata=AGREED)
    threads_per_peer: int = field(default=1, metadata=ROUNDING)
    precision: Precision = field(default=Precision.FP32, metadata=OWN)
    memory_format: MemoryFormat = field(default=MemoryFormat.CONTIGUOUS, metadata=ROUNDING)
    compile: bool = field(default=False, metadata=ROUNDING)
    cuda_graphs: bool = field(default=False, metadata=ROUNDING)
    baseline: ComponentConfig | None = field(default=None, metadata=OWN)
    device: str = field(default="auto", metadata=ROUNDING)
    run_dir: str | None = field(default=None, metadata=PLACE)
    resume: str | None = field(default=None, metadata=PLACE)
    afresh: bool = field(default=False, metadata=PLACE)
    exchange: ExchangeConfig = field(default_factory=ExchangeConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)
    coordinator: CoordinatorConfig = field(default_factory=CoordinatorConfig)
    ray: RayConfig = field(default_factory=RayConfig)

    def __post_init__(self) -> None:
        """Checks what can be checked without the data set.

        Raises:
            ConfigError: there is no peer, or none that learns; two names differ only in case, or a
                name can't be a folder's; a number is out of range; two settings contradict each
                other; the teaching graph names a peer that does not exist.
        """
        require(len(self.peers) >= 1, "a run needs at least 1 peer, but peers is empty")
        require(
            len(self.peers) <= MOST_PEERS,
            f"a run has at most {MOST_PEERS} peers, not {len(self.peers)}",
        )
        for name in self.peers:
            require(
                bool(_PEER_NAME.fullmatch(name)),
                f"peer name {name!r} must be 1 to 64 letters, digits, '.', '_' or '-', since it "
                "becomes a folder name",
            )
        folded = [name.casefold() for name in self.peers]
        require(
            len(set(folded)) == len(folded),
            f"two peers have the same name (ignoring case): {', '.join(self.peers)}",
        )
        require(
            any(peer.frozen_from is None for peer in self.peers.values()),
            "every peer is frozen (frozen_from), so no peer would learn",
        )
        require(
            self.batch_size is None or self.batch_size >= 2,
            f"batch_size must be at least 2, not {self.batch_size}",
        )
        self._check_private()
        require(0 <= self.seed < 2**63, f"seed must be between 0 and 2**63 - 1, not {self.seed}")
        require_positive(
            "",
            rounds=self.rounds,
            steps=self.steps,
            steps_per_round=self.steps_per_round,
            threads_per_peer=self.threads_per_peer,
        )
        require(
            self.rounds is None or self.steps is None,
            f"give rounds or steps, not both (rounds={self.rounds}, steps={self.steps})",
        )
        require(
            self.resume is not None or not self.afresh,
            "afresh=true begins an earlier run again; name its folder by resume=",
        )
        require(
            self.exchange.transport is Transport.GRPC or self.host is Host.FLOWER,
            "exchange=flower lets Flower's messages carry the steps; with "
            f"host={self.host.value} there are none. Start the run by `dogo-fed flower`, or leave "
            "exchange=grpc",
        )
        require(
            self.precision is not Precision.AUTO or self.are_all_here,
            "precision=auto is measured on the machine that starts the run, and these peers live "
            "elsewhere; name fp32, bf16 or fp16",
        )
        baseline = None if self.baseline is None else self.baseline.name
        if baseline is not None:
            self._check_baseline(baseline)
        for name, peer in self.peers.items():
            own = peer.objective.name
            require(
                own not in OF_BASELINES or own == baseline,
                f"peers.{name}.objective={own} is a part of the baseline {own}, and by itself it has "
                "nobody to compare itself with; `dogo-fed compare "
                f"methods=[{own}]` trains it, or choose another objective",
            )
        require(
            self.compile or not self.cuda_graphs,
            "cuda_graphs=true records what compile=true has compiled; add compile=true",
        )
        require(
            self.device in ("auto", "cpu", "cuda"),
            f'device must be "auto", "cpu" or "cuda", not {self.device!r}',
        )
        for name, peer in self.peers.items():
            require(
                peer.chunk_size is None or not self.cuda_graphs,
                f"peers.{name}.chunk_size computes passes again, which cuda_graphs=true has not "
                "recorded; leave one of them out",
            )
        if self.exchange.graph is not None:
            _check_names(self.exchange.graph, self.peers)
        if self.exchanges and self.exchange.lookahead:
            self._check_lookahead()
        if self.host is Host.LOCAL:
            self.check_one_process()

    def check_one_process(self) -> None:
        """Checks that all peers may live in one process, whatever the host is.

        There, all first halves of a step come before all second halves. So the pass of the second peer
        would begin before the first one has gone back through its own.

        Raises:
            ConfigError: their passes are to be recorded, and there are several peers.
        """
        require(
            not self.cuda_graphs or len(self.peers) == 1,
            "cuda_graphs=true keeps the numbers of one pass only, and peers that share a process "
            f"({', '.join(self.peers)}) have one each under way. Type host=processes or host=ray, where "
            "each has a process of its own, or leave out cuda_graphs, as for a baseline and for "
            "dogo_fed.train, which exist in one process only",
        )

    def _check_baseline(self, name: str) -> None:
        """Checks what does not go with a baseline."""
        require(
            self.host is Host.LOCAL,
            f"baseline={name} moves weights or embeddings between peers, which exists for comparisons "
            "in one process only; type host=local, or `dogo-fed compare`",
        )
        require(
            not self.exchanges,
            f"baseline={name} takes the place of the exchange; type exchange.enabled=false",
        )
        require(
            self.checkpoint.every_steps is None,
            f"a run with baseline={name} is saved at the end of every round, where it can go on; leave "
            "out checkpoint.every_steps",
        )
        require(
            all(peer.frozen_from is None for peer in self.peers.values()),
            f"baseline={name} has no use for frozen peers; leave out frozen_from",
        )

    def _check_lookahead(self) -> None:
        """Checks what does not go with steps that overlap."""
        require(
            self.checkpoint.every_steps is None,
            "exchange.lookahead=1 saves peers at the end of every round, where they stand still; leave "
            "out checkpoint.every_steps, or make rounds shorter by steps_per_round",
        )
        require(
            not self.cuda_graphs,
            "cuda_graphs=true keeps the numbers of one pass only, and exchange.lookahead=1 needs those "
            "of two; leave one of them out",
        )
        for name, peer in self.peers.items():
            require(
                peer.chunk_size is None,
                f"peers.{name}.chunk_size computes a pass again at its update, when the weights have "
                "changed already; it does not go with exchange.lookahead=1",
            )
            require(
                peer.data_parallel == 1,
                f"peers.{name}.data_parallel splits one pass at a time, and exchange.lookahead=1 has "
                "two under way; leave one of them out",
            )

    def _check_private(self) -> None:
        """Checks what the settings say about private images against each other."""
        share = self.anchor_share
        require(
            share is None or 0.0 <= share <= 1.0,
            f"anchor_share must be from 0 to 1, not {share}",
        )
        require(
            share != 0.0 or not self.exchanges,
            "anchor_share=0 leaves no image to exchange about; it goes with exchange.enabled=false",
        )
        for name in self.peers:
            require(
                share != 0.0 or self.has_private(name),
                f"anchor_share=0 leaves peer {name} without images: it has no private ones; name them "
                f"by peers.{name}.data, or cut the data set by partition=dirichlet",
            )
        require(
            self.anchors is None or (self.host is Host.FLOWER and not self.partition.is_private),
            "anchors=<manifest> is for a coordinator whose peers have the images at their sites: a "
            "Flower deployment, without a partition. Here, leave it out; data= names the images",
        )
        for name, peer in self.peers.items():
            require(
                peer.ssl_on is LossOn.BOTH or self.has_private(name),
                f"peers.{name}.ssl_on={peer.ssl_on.value}, but this peer has no private images; name "
                f"them by peers.{name}.data, or cut the data set by partition=dirichlet",
            )
            require(
                peer.ssl_on is not LossOn.ANCHORS or self.anchors_at is AnchorsAt.EVERY_STEP,
                f"peers.{name}.ssl_on=anchors needs anchors at every step, but anchors_at="
                f"{self.anchors_at.value}",
            )

    def has_private(self, name: str) -> bool:
        """Whether this peer has images that the others do not see."""
        return self.partition.is_private or self.peers[name].data is not None

    @property
    def share_of_anchors(self) -> float:
        """The share of a pass that are anchors: `anchor_share`, or what it is if it is null."""
        if self.anchor_share is not None:
            return self.anchor_share
        return USUAL_ANCHOR_SHARE if any(map(self.has_private, self.peers)) else 1.0

    @property
    def expects_private(self) -> bool:
        """Whether passes have room for private images, at all steps or between exchanges.

        Whether peers have some is another question; a coordinator of sites can't answer it.
        """
        return self.share_of_anchors < 1.0 or self.anchors_at is AnchorsAt.EXCHANGES

    @property
    def anchors_per_step(self) -> int:
        """The images of a pass that all peers share: the N of a distribution's N x N."""
        assert self.batch_size is not None, "fitted to the images"
        if self.share_of_anchors == 0.0:
            return 0
        return max(2, round(self.batch_size * self.share_of_anchors))

    @property
    def are_all_here(self) -> bool:
        """Whether all peers live on the machine that starts the run."""
        is_own_ray = self.host is Host.RAY and self.ray.address is None
        return self.host in (Host.LOCAL, Host.PROCESSES) or is_own_ray

    @property
    def leaves_images_to_sites(self) -> bool:
        """Whether sites may have private images of which these settings, a coordinator's, say nothing."""
        has_none = not any(map(self.has_private, self.peers))
        return self.host is Host.FLOWER and has_none and self.expects_private

    @property
    def exchanges(self) -> bool:
        """Whether anything is exchanged: it is switched on, and there is more than one peer."""
        return self.exchange.enabled and len(self.peers) > 1

    @property
    def variants(self) -> dict[str, object]:
        """The settings of the teaching whose values are not the defaults, by their paths.

        The defaults are the paper's. Without an exchange there are none, or those of a baseline.
        """
        if self.baseline is not None:
            options = self.baseline.options.items()
            of_baseline = {f"baseline.options.{name}": to_plain(option) for name, option in options}
            return {"baseline": self.baseline.name, **of_baseline}
        if not self.exchanges:
            return {}
        found: dict[str, object] = {}
        for setting in sorted(settings_of(self), key=lambda it: it.path.startswith("peers.")):
            if setting.scope.decides is not Decides.TRAINING:
                continue
            if setting.scope.is_of_teaching and setting.value != setting.default:
                found[setting.path] = to_plain(setting.value)
            for name, default in setting.scope.teaching_options:
                assert isinstance(setting.value, ComponentConfig), "only components have options"
                value = setting.value.options.get(name, default)
                if value != default:
                    found[f"{setting.path}.options.{name}"] = to_plain(value)
        return found

    def variants_without(self, sites: Collection[str]) -> dict[str, object]:
        """Returns the variants but for the settings of these peers, which their sites decide.

        What this configuration says of such a peer is not what it was trained with.
        """
        theirs = tuple(f"peers.{name}." for name in sites)
        return {path: value for path, value in self.variants.items() if not path.startswith(theirs)}


def _check_names(graph: Mapping[str, Mapping[str, float]], peers: Mapping[str, PeerConfig]) -> None:
    """Checks that every learner and teacher is a peer of the run."""
    for learner, teachers in graph.items():
        for name in (learner, *teachers):
            require(
                name in peers,
                f"exchange.graph names {name!r}, but the peers of the run are {', '.join(peers)}",
            )
