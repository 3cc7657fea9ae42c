"""The types that peer and coordinator, and engine and reports, hand to each other.

Nothing here knows a network, a framework or a model. `SimilarityDistribution` is the only type with
a tensor: there is none for images, labels, embeddings, weights or gradients, so none of them can be
sent by accident.

A peer's own settings stay at the peer, with two exceptions: `PeerResult` tells the coordinator the
backbone with its options, and the name of the objective.
"""

# N = images in the step's batch

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import NewType, TypeAlias

import numpy as np
import numpy.typing as npt

from dogo_fed.text import one_line

PeerId = NewType("PeerId", str)
FloatMatrix: TypeAlias = npt.NDArray[np.float32]

PROTOCOL_VERSION = 5
"""Increased whenever the meaning of a message changes; peers and coordinator must agree on it."""

LONGEST_NAME = 200
"""Characters of a name in a record: of a backbone with its options, an objective, a peer."""

LONGEST_MESSAGE = 2000
"""Characters of the sentence of an event."""


class Weighting(enum.Enum):
    """How much each teacher counts, image by image, on top of the teaching graph's weights.

    UNIFORM: all alike: the published method, extended to more than two peers.
    CERTAIN: by exp(-H), with H the entropy of the teacher's row: who sees few images as similar.
    AGREEING: by exp(-KL(teacher || mean of the teachers)): who sees what the others see.
    """

    UNIFORM = "uniform"
    CERTAIN = "certain"
    AGREEING = "agreeing"


@dataclass(frozen=True, slots=True)
class Ticket:
    """Identifies one exchange: which run, round and step, and which images in which order.

    Attributes:
        run_id: the run.
        round: the round that the step belongs to, counted from 1.
        step: counted from 0 over the whole run.
        batch_digest: digest of the ordered sample ids of this step (hex).
    """

    run_id: str
    round: int
    step: int
    batch_digest: str


@dataclass(frozen=True, slots=True)
class SimilarityDistribution:
    """Row softmax of the cosine similarities between two views of a batch: what a peer publishes.

    Attributes:
        p_NN: float32, row-stochastic, N x N. Row i is image i of the ticket's batch.
        negative_entropy: mean over rows of sum_j p_ij log p_ij, in nats; between -log N and 0.
        reverse: the distribution from the second view to the first, if the run has agreed on both
            directions (exchange.symmetric); it has no reverse of its own.
    """

    p_NN: FloatMatrix
    negative_entropy: float
    reverse: SimilarityDistribution | None = None


@dataclass(frozen=True, slots=True)
class TeacherSignal:
    """What a peer receives for a ticket: the mean of its teachers' distributions.

    Its teachers are the other peers. If the run has a teaching graph, they are those that the graph
    gives it, and the mean is weighted.

    Attributes:
        mean_NN: float32, row-stochastic, N x N; None when no teacher took part.
        negative_entropy: mean over the teachers of their negative entropies (nats). Together with
            `mean_NN` it gives the exact mean of the KL divergences, see `objectives.mutual`.
        teachers: the peers whose distributions were averaged, in name order.
        next_step: the step this peer does next; greater than step + 1 if it fell behind.
        stop: whether the run ends after this step; the peer then saves and leaves.
        waited_s: seconds that the answer was held back for slower peers.
        reverse: the teachers' mean from the second view to the first, if both directions are agreed
            on and a teacher took part.
    """

    mean_NN: FloatMatrix | None
    negative_entropy: float
    teachers: tuple[PeerId, ...]
    next_step: int
    stop: bool = False
    waited_s: float = 0.0
    reverse: SimilarityDistribution | None = None


class Outcome(enum.Enum):
    """How a peer's process ended on its own; the value is its exit status.

    FINISHED: all steps are done and the result is delivered.
    STOPPED: the run was stopped early; the peer has saved a checkpoint.
    FAILED: the peer can't go on, and starting it again would not help.
    UNFIT: the peer should not have been started: a setting is wrong, or the coordinator refused it.
    CUT_OFF: the coordinator can't be reached any more; the last checkpoint is there.
    """

    FINISHED = 0
    STOPPED = 3
    FAILED = 4
    UNFIT = 5
    CUT_OFF = 6


@dataclass(frozen=True, slots=True)
class Ending:
    """How a peer's process ended.

    Attributes:
        message: one sentence for people; may be empty.
        outside: what a site tells its coordinator instead, see `errors.outside`.
    """

    outcome: Outcome
    message: str = ""
    outside: str = ""


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one peer says about one step. Times in seconds, sizes in bytes on the wire.

    Attributes:
        ssl_loss: the peer's own objective (nats for NT-Xent, cosine units for SimSiam).
        mutual_kl: mean over the teachers of KL(teacher || this peer), mean over rows, in nats,
            before the distill weight; 0 if there was no teacher.
        num_teachers: how many other peers' distributions arrived.
        compute_s: forward, backward, update and augmentation.
        wait_s: time that the answer was held back for slower peers.
        exchange_s: the rest of the round trip: encoding, transfer, averaging, checking.
        bytes_up, bytes_down: size of the messages from and to the peer; 0 where nothing travels.
    """

    peer: PeerId
    round: int
    step: int
    ssl_loss: float
    mutual_kl: float
    num_teachers: int
    compute_s: float
    wait_s: float
    exchange_s: float
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What one peer says at the end of a round; round 0 is before training.

    Attributes:
        step: number of steps done.
        knn_top1: accuracy of the weighted kNN on the frozen features, 0 to 1; NaN if the images have
            no labels to count it by.
        seconds: duration of the evaluation.
        feature_std, rankme, alignment, uniformity: the health of the features, which needs no
            labels; see `evaluation.representation`. NaN if not measured.
    """

    peer: PeerId
    round: int
    step: int
    knn_top1: float
    seconds: float
    feature_std: float = math.nan
    rankme: float = math.nan
    alignment: float = math.nan
    uniformity: float = math.nan


@dataclass(frozen=True, slots=True)
class PeerResult:
    """The last report of a peer, with which it leaves; one row of `summary.json`.

    Backbone and objective are the only settings of its own that a peer sends. Its texts are kept on
    one line, printable and short, see `text.one_line`.

    Attributes:
        backbone: name and options, e.g. "tiny_resnet(width=16)".
        objective: name, with "(frozen)" for a peer that does not learn.
        parameters: number of trainable parameters of the backbone.
        knn_top1, linear_top1, knn_top1_untrained: accuracies on the frozen features, 0 to 1; NaN if
            not measured. The last is of the initial weights.
        ssl_loss: mean over the last round's steps.
        mutual_kl: mean over the last round's exchanges, in nats.
        state_digest: hash over all parameters and buffers in name order.
        steps_trained: updates this peer has made; fewer than the run's steps if it was away.
        feature_std, rankme, alignment, uniformity, rankme_untrained: health of the features; NaN if
            not measured. The last is of the initial weights.
    """

    peer: PeerId
    backbone: str
    objective: str
    parameters: int
    knn_top1: float
    linear_top1: float
    knn_top1_untrained: float
    ssl_loss: float
    mutual_kl: float
    state_digest: str
    steps_trained: int
    feature_std: float = math.nan
    rankme: float = math.nan
    alignment: float = math.nan
    uniformity: float = math.nan
    rankme_untrained: float = math.nan

    def __post_init__(self) -> None:
        _clean(self, backbone=LONGEST_NAME, objective=LONGEST_NAME, state_digest=LONGEST_NAME)


class EventKind(enum.StrEnum):
    """What happened. The values stand in metrics.jsonl and summary.json.

    DATA: a note about the images.
    WEIGHTS: a note about the weights that a peer starts from, or teaches with.
    TRAFFIC: how much the run is going to exchange.
    RESUMED: the run goes on.
    SETTINGS_CHANGED: it goes on with other settings.
    PROVENANCE_CHANGED: it goes on with other code, packages or another device.
    PEER_STARTED: a peer has a process.
    PEER_PLACED: in which process a peer of Flower's lives.
    NODE_LOST: Flower has lost a peer's node.
    PEER_LOST: the others go on without a peer.
    PEER_REJOINED: a peer is there again.
    PEER_LATE: a peer has no checkpoint of the step with which the run goes on.
    CHECKPOINT_PASSED_OVER: a newer checkpoint can't be used.
    RECORDS_LEFT_OUT: records could not be written.
    STOPPED: the run ended early.
    """

    DATA = "data"
    WEIGHTS = "weights"
    TRAFFIC = "traffic"
    RESUMED = "resumed"
    SETTINGS_CHANGED = "settings_changed"
    PROVENANCE_CHANGED = "provenance_changed"
    PEER_STARTED = "peer_started"
    PEER_PLACED = "peer_placed"
    NODE_LOST = "node_lost"
    PEER_LOST = "peer_lost"
    PEER_REJOINED = "peer_rejoined"
    PEER_LATE = "peer_late"
    CHECKPOINT_PASSED_OVER = "checkpoint_passed_over"
    RECORDS_LEFT_OUT = "records_left_out"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a person should know, e.g. that a peer was lost or that a run was stopped.

    Its text may quote a peer. It is kept on one line, printable and short, see `text.one_line`.

    Attributes:
        kind: what happened; its value, as a word, will do.
        message: one sentence for people.
        peer: the peer it is about; empty if it is about the run.
        step: the run's step when it happened; -1 before the first.
        at_s: seconds since the coordinator started; for "resumed", the seconds that all earlier
            starts of the run took.
    """

    kind: EventKind
    message: str
    peer: str = ""
    step: int = -1
    at_s: float = field(default=0.0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", EventKind(self.kind))
        _clean(self, message=LONGEST_MESSAGE, peer=LONGEST_NAME)


def _clean(record: PeerResult | Event, **longest: int) -> None:
    for name, most in longest.items():
        object.__setattr__(record, name, one_line(getattr(record, name), most))


Record: TypeAlias = StepReport | RoundReport | PeerResult | Event


@dataclass(frozen=True, slots=True)
class Score:
    """One number of an evaluation protocol, for one encoder.

    Attributes:
        protocol: the protocol's name, e.g. "limited_labels".
        condition: the condition it was measured under, e.g. "1 % of the labels"; unique in its
            protocol.
        draw: number of the random subset or noise, from 0. Every encoder gets the same draws.
        metric: e.g. "top1", a share from 0 to 1.
        value: the number.
        low, high: 95 % interval of this one measurement over the test images; NaN if it has none.
        group: the kind of condition, e.g. "symmetric"; each group is one panel of the picture.
        level: the number that orders the conditions of a group, e.g. 0.4; NaN without an order.
        level_name: what this number is, e.g. "severity"; stands below the picture.
        level_is_share: whether it is a share from 0 to 1, which a picture shows in percent.
    """

    protocol: str
    condition: str
    draw: int
    metric: str
    value: float
    low: float = float("nan")
    high: float = float("nan")
    group: str = ""
    level: float = float("nan")
    level_name: str = "level"
    level_is_share: bool = False
