"""How good a peer's frozen features are: what a run reports of it at the end of its rounds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch

from dogo_fed.data.labels import why_no_accuracy
from dogo_fed.data.source import DataSet, Subset
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.evaluation import frozen
from dogo_fed.evaluation.protocols.health import health
from dogo_fed.evaluation.protocols.knn import knn
from dogo_fed.evaluation.protocols.linear import linear
from dogo_fed.evaluation.subject import Encoder, Inputs, Subject

MOST_HEALTH_IMAGES = 2048
"""The health is measured at every round, so on no more images than these."""


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was found; NaN for what was not measured.

    Attributes:
        knn_top1, linear_top1: accuracies, 0 to 1.
        feature_std: mean deviation of the dimensions of normalised features, times sqrt(F).
        rankme: the effective rank.
        alignment, uniformity: Wang and Isola's.
    """

    knn_top1: float = math.nan
    linear_top1: float = math.nan
    feature_std: float = math.nan
    rankme: float = math.nan
    alignment: float = math.nan
    uniformity: float = math.nan


def measure(peer: Peer, run: LoadedRun, *, linear_probe: bool) -> Measured:
    """Returns how good a peer's features are.

    Accuracies are measured if the images have labels to count them by. The health of the features
    needs none; it is measured if `eval.health` asks for it, or if nothing else can be.

    Args:
        peer: whose backbone is measured.
        run: its settings and data.
        linear_probe: whether the probe is asked for.

    Raises:
        EvaluationError: the evaluation changed the backbone, or a feature is not finite.
    """
    settings, data = run.config.eval, run.data_of(peer.id)
    backbone = peer.objective.backbone
    encoder = Encoder(
        name=peer.id,
        backbone=backbone,
        inputs=Inputs.of(data.own),
        linear_stream=(peer.id, "linear probe"),
        device=peer.device,
        batch_size=settings.batch_size,
    )
    subject = Subject(encoder, data.evaluated, run.config.seed)
    has_accuracy = why_no_accuracy(data.evaluated) is None
    wants_health = settings.health if settings.health is not None else not has_accuracy
    found = Measured()
    with frozen(backbone):
        if has_accuracy:
            (score,) = knn(subject, k=run.knn_k(peer.id), temperature=settings.knn_temperature)
            found.knn_top1 = score.value
        if has_accuracy and linear_probe:
            (score,) = linear(subject, epochs=settings.linear_epochs)
            found.linear_top1 = score.value
        if wants_health:
            by_name = {
                score.metric: score.value for score in health(subject.on(_sample(data.evaluated)))
            }
            found.feature_std = by_name["std_mean"]
            found.rankme = by_name["rankme"]
            found.alignment = by_name["alignment"]
            found.uniformity = by_name["uniformity"]
    return found


def _sample(dataset: DataSet) -> DataSet:
    """Returns the data set with few test images, evenly spaced; training images if it has none."""
    source = dataset.test if len(dataset.test) > 1 else dataset.train
    number = min(len(source), MOST_HEALTH_IMAGES)
    ids_N = torch.arange(number) * len(source) // number
    return dataclasses.replace(dataset, test=Subset(source, ids_N))
