"""Weighted k-nearest-neighbour accuracy: nothing is trained at all."""

from __future__ import annotations

from dogo_fed.config.evaluation import USUAL_KNN_TEMPERATURE
from dogo_fed.contracts import Score
from dogo_fed.data.labels import num_labelled
from dogo_fed.evaluation.knn import knn_predictions, usual_k
from dogo_fed.evaluation.protocols.probing import TOP1, accuracy
from dogo_fed.evaluation.subject import Subject


def knn(
    subject: Subject, *, k: int | None = None, temperature: float = USUAL_KNN_TEMPERATURE
) -> list[Score]:
    """Returns one score: all labelled training images vote on all labelled test images.

    Args:
        subject: the encoder on a data set.
        k: neighbours; None takes those of training runs: 200, or a tenth of the labelled training
            images if they are fewer than 2,000.
        temperature: divisor of the cosine similarity.

    Raises:
        ConfigError: more neighbours than labelled training images, or a setting is not positive.
    """
    k = usual_k(num_labelled(subject.dataset.train.labels)) if k is None else k
    test = subject.test.labelled("kNN queries")
    predictions_N = knn_predictions(subject.train, test.features_NF, k, temperature)
    value, low, high = accuracy(predictions_N, test.labels_N)
    return [Score("knn", f"k = {k}", 0, TOP1, value, low, high)]
