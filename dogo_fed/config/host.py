"""Where a run lives: its host, its coordinator, Ray, and what happens when a peer dies."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass, field

from dogo_fed.config.checks import require, require_positive
from dogo_fed.config.scopes import PLACE, SAFETY


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


class Placement(enum.Enum):
    """How Ray spreads the peers over nodes (Ray's placement group strategies)."""

    PACK = "PACK"
    SPREAD = "SPREAD"
    STRICT_PACK = "STRICT_PACK"
    STRICT_SPREAD = "STRICT_SPREAD"


_HOST_PORT = re.compile(r"\S+:[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointConfig:
    """When peers save themselves.

    Attributes:
        every_steps: steps between checkpoints; null saves at the end of every round.
        keep: how many checkpoints each peer keeps at least. It keeps more where a slower peer may
            need them, so that all peers have a step in common to resume from.
    """

    every_steps: int | None = field(default=None, metadata=SAFETY)
    keep: int = field(default=2, metadata=SAFETY)

    def __post_init__(self) -> None:
        require_positive("checkpoint.", every_steps=self.every_steps)
        require(self.keep >= 2, f"checkpoint.keep must be at least 2, not {self.keep}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryConfig:
    """What happens when a peer dies.

    Attributes:
        max_restarts: how often each peer is started again from its last checkpoint.
        silence_s: a run in which no peer reports anything for this long ends with an error.
    """

    max_restarts: int = field(default=2, metadata=PLACE)
    silence_s: float = field(default=900.0, metadata=PLACE)

    def __post_init__(self) -> None:
        require(
            self.max_restarts >= 0,
            f"recovery.max_restarts must be 0 or more, not {self.max_restarts}",
        )
        require_positive("recovery.", silence_s=self.silence_s)


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

    address: str | None = field(default=None, metadata=PLACE)
    port: int = field(default=0, metadata=PLACE)
    public_address: str | None = field(default=None, metadata=PLACE)
    certificate: str | None = field(default=None, metadata=PLACE)
    private_key: str | None = field(default=None, metadata=PLACE)

    def __post_init__(self) -> None:
        require(0 <= self.port <= 65535, f"coordinator.port must be 0 to 65535, not {self.port}")
        require(
            (self.certificate is None) == (self.private_key is None),
            "coordinator.certificate and coordinator.private_key belong together: give both or "
            "neither",
        )
        require(
            self.public_address is None or bool(_HOST_PORT.fullmatch(self.public_address)),
            f"coordinator.public_address must be host:port, not {self.public_address!r}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RayConfig:
    """Where Ray puts the peers.

    Attributes:
        address: null starts a local Ray and ends it with the run; "auto" or host:port joins a
            running cluster.
        gpus_per_peer: null gives each peer one GPU, or as many as its data_parallel, if the cluster has
            any; where they are fewer than the peers, each gets a share. With a fraction, several peers
            share one.
        cpus_per_peer: logical CPUs reserved for each peer.
        placement: Ray's placement group strategy.
        placement_timeout_s: how long to wait until the cluster has room for all peers.
    """

    address: str | None = field(default=None, metadata=PLACE)
    gpus_per_peer: float | None = field(default=None, metadata=PLACE)
    cpus_per_peer: float = field(default=1.0, metadata=PLACE)
    placement: Placement = field(default=Placement.PACK, metadata=PLACE)
    placement_timeout_s: float = field(default=120.0, metadata=PLACE)

    def __post_init__(self) -> None:
        gpus = self.gpus_per_peer
        require(
            gpus is None or (math.isfinite(gpus) and gpus >= 0),
            f"ray.gpus_per_peer must be 0 or more, not {gpus}",
        )
        require(
            gpus is None or gpus <= 1 or float(gpus).is_integer(),
            f"ray.gpus_per_peer must be a fraction of one GPU or a whole number, not {gpus}",
        )
        require(
            math.isfinite(self.cpus_per_peer) and self.cpus_per_peer >= 0,
            f"ray.cpus_per_peer must be 0 or more, not {self.cpus_per_peer}",
        )
        require_positive("ray.", placement_timeout_s=self.placement_timeout_s)
