"""How peers teach each other."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from dogo_fed.config.checks import require, require_positive
from dogo_fed.config.scopes import (
    AGREED,
    AGREED_CONVERSATION,
    AGREED_TEACHING,
    CONVERSATION,
)
from dogo_fed.contracts import Weighting


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
    FLOAT16: 2 bytes a number, a relative error of at most 2**-11.
    LOG8: a byte a number, its logarithm to 1/255 of the range of its row, within 30 nats of the row's
        largest.
    TOP_K: the largest numbers of each row exactly, 6 bytes each; the rest's sum spread evenly.
    """

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    LOG8 = "log8"
    TOP_K = "top_k"


class Rows(enum.Enum):
    """Whose similarities the peers show each other and learn from: the rows of the distributions.

    PROJECTOR: the projector's output.
    PREDICTOR: the predictor's output, where the objective has one.
    FEATURES: the backbone's pooled features, which are what is used after training.
    """

    PROJECTOR = "projector"
    PREDICTOR = "predictor"
    FEATURES = "features"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeConfig:
    """How peers teach each other.

    Attributes:
        enabled: false trains the same peers side by side, each alone.
        symmetric: whether both view directions are exchanged: the first view's rows over the second
            view's images, and the second's over the first's. Each peer then sends two matrices, and
            the mutual KL is the mean of the two directions.
        every_steps: peers exchange at the steps 0, k, 2k, ... and train alone between them.
        dense_steps: so many steps at the beginning of the run exchange, whatever `every_steps` is.
        lookahead: 1 lets a peer begin its next step while the answer to the last one is on its way, so
            that a far coordinator costs no time. The update of a step that exchanges then comes one step
            late: its gradient is of the weights before the last update. It does nothing at the last
            step of a round. 0: the published method.
        graph: for each learner its teachers with their weights, which count relative to each other.
            A peer that is not a learner here trains alone. Null: every peer learns from all others,
            with equal weights.
        weighting: how much each teacher counts, image by image; of no effect with one teacher.
        rows: whose similarities are shown and learned with, the same at every peer. Null: each
            objective's own choice, as published.
        encoding: how the numbers of the distributions travel.
        top_k: how many numbers of each row travel, with encoding=top_k.
        transport: what carries the distributions; not used where all peers are in one process.
        deadline_s: how long the others wait for a peer at a step; then it counts as lost.
        join_deadline_s: how long the run waits for its peers to appear.
        evaluation_deadline_s: how long the others wait for a peer that evaluates its encoder.
        reconnect_s: how long a peer tries to reach a coordinator that does not answer.
    """

    enabled: bool = field(default=True, metadata=AGREED)
    symmetric: bool = field(default=False, metadata=AGREED_TEACHING)
    every_steps: int = field(default=1, metadata=AGREED_TEACHING)
    dense_steps: int = field(default=0, metadata=AGREED_TEACHING)
    lookahead: int = field(default=0, metadata=AGREED_TEACHING)
    graph: Mapping[str, Mapping[str, float]] | None = field(default=None, metadata=AGREED_TEACHING)
    weighting: Weighting = field(default=Weighting.UNIFORM, metadata=AGREED_TEACHING)
    rows: Rows | None = field(default=None, metadata=AGREED_TEACHING)
    encoding: Encoding = field(default=Encoding.FLOAT32, metadata=AGREED_TEACHING)
    top_k: int = field(default=16, metadata=AGREED_TEACHING)
    transport: Transport = field(default=Transport.GRPC, metadata=CONVERSATION)
    deadline_s: float = field(default=120.0, metadata=AGREED_CONVERSATION)
    join_deadline_s: float = field(default=300.0, metadata=CONVERSATION)
    evaluation_deadline_s: float = field(default=21600.0, metadata=CONVERSATION)
    reconnect_s: float = field(default=30.0, metadata=CONVERSATION)

    def __post_init__(self) -> None:
        require_positive(
            "exchange.",
            deadline_s=self.deadline_s,
            join_deadline_s=self.join_deadline_s,
            evaluation_deadline_s=self.evaluation_deadline_s,
            reconnect_s=self.reconnect_s,
            every_steps=self.every_steps,
            top_k=self.top_k,
        )
        require(
            self.dense_steps >= 0,
            f"exchange.dense_steps must be 0 or more, not {self.dense_steps}",
        )
        require(
            self.lookahead in (0, 1),
            f"exchange.lookahead must be 0 or 1, not {self.lookahead}",
        )
        require(
            self.lookahead == 0 or self.transport is Transport.GRPC,
            "exchange.lookahead=1 needs exchange=grpc: Flower's messages carry one step at a time",
        )
        if self.graph is not None:
            _check_graph(self.graph)

    @property
    def answer_within_s(self) -> float:
        """The longest time, in seconds, that an answer may be held back.

        The first exchange may wait until the last peer has joined and has done its first step.
        """
        return self.deadline_s + self.join_deadline_s


def _check_graph(graph: Mapping[str, Mapping[str, float]]) -> None:
    """Checks what needs no peers: edges, weights, and that each learner has a teacher.

    Raises:
        ConfigError: there is no edge, a peer teaches itself, a weight is negative or not finite, or
            all weights of a learner are 0.
    """
    require(
        any(graph.values()),
        "exchange.graph has no edge, so no peer would learn from another; say "
        "exchange.enabled=false",
    )
    for learner, teachers in graph.items():
        for teacher, weight in teachers.items():
            edge = f"exchange.graph.{learner}.{teacher}"
            require(teacher != learner, f"{edge}: a peer can't be its own teacher")
            require(
                math.isfinite(weight) and weight >= 0,
                f"{edge} must be a weight of 0 or more, not {weight}",
            )
        require(
            not teachers or any(teachers.values()),
            f"exchange.graph.{learner} has only weights of 0; leave {learner} out if it is to "
            "train alone",
        )
