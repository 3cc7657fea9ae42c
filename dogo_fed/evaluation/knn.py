"""Weighted k-nearest-neighbour classifier on frozen features.

The k training images with the highest cosine similarity s vote for their class with weight
exp(s / temperature); the class with most votes wins.

Source: Wu, Xiong, Yu, Lin, "Unsupervised feature learning via non-parametric instance
discrimination", CVPR 2018, section 3.4, with k = 200 and temperature 0.07. Caron et al., "Emerging
properties in self-supervised vision transformers", ICCV 2021, use k = 20 with the same temperature.
"""

# M = bank (training) images, N = query (test) images, Q = queries in a chunk, F = features,
# C = classes, k = neighbours

from __future__ import annotations

import torch
import torch.nn.functional as F

from dogo_fed.config.evaluation import USUAL_KNN_TEMPERATURE
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.evaluation.features import FrozenFeatures
from dogo_fed.evaluation.pulse import beat

USUAL_K = 200
"""Neighbours where there are enough images (Wu et al. 2018)."""


def usual_k(num_labelled: int) -> int:
    """Returns the neighbours that suit a bank: 200, or a tenth of a bank of fewer than 2,000."""
    return min(USUAL_K, max(1, num_labelled // 10))


def fitting_k(given: int | None, num_labelled: int) -> int:
    """Returns the neighbours that a run asks for, as far as there are so many; the usual ones of None."""
    return usual_k(num_labelled) if given is None else min(given, max(1, num_labelled))


def knn_predictions(
    bank: FrozenFeatures,
    queries_NF: torch.Tensor,
    k: int,
    temperature: float = USUAL_KNN_TEMPERATURE,
    queries_per_chunk: int = 256,
) -> torch.Tensor:
    """Returns the predicted class of every query: int64, shape N.

    Unlabelled bank images (label -1) do not vote. The result does not depend on the order of the bank:
    bank images that tie for the k-th place share the places that are left. If classes tie, the lowest
    wins.

    Raises:
        ConfigError: k exceeds the labelled bank, or a setting is not positive.
        DataError: the bank has no labelled image, or the features differ in width.
    """
    bank = bank.labelled("kNN bank")
    _check_settings(len(bank.labels_N), k, temperature, queries_per_chunk)
    if queries_NF.ndim != 2 or queries_NF.shape[1] != bank.features_NF.shape[1]:
        raise DataError(
            f"kNN: queries of shape {tuple(queries_NF.shape)} do not fit a bank of shape "
            f"{tuple(bank.features_NF.shape)}; both need the same number of features"
        )
    bank_FM = F.normalize(bank.features_NF, dim=1).T.contiguous()
    num_classes = int(bank.labels_N.max()) + 1
    chunks = torch.split(F.normalize(queries_NF, dim=1), queries_per_chunk)
    predictions = []
    for chunk_QF in chunks:
        predictions.append(_vote(chunk_QF @ bank_FM, bank.labels_N, num_classes, k, temperature))
        beat()
    return torch.cat(predictions)


def _vote(
    similarity_QM: torch.Tensor,
    labels_M: torch.Tensor,
    num_classes: int,
    k: int,
    temperature: float,
) -> torch.Tensor:
    """Returns the class with most votes for every query: int64, shape Q."""
    nearest_Qk = similarity_QM.topk(k, dim=1).values
    best_Q1, last_Q1 = nearest_Qk[:, :1], nearest_Qk[:, -1:]
    nearer_QM, tied_QM = similarity_QM > last_Q1, similarity_QM == last_Q1
    places_left_Q1 = k - nearer_QM.sum(dim=1, keepdim=True)
    share_Q1 = places_left_Q1 / tied_QM.sum(dim=1, keepdim=True)
    # Relative to the best, so that no temperature overflows; the factor cancels in the argmax.
    weight_QM = ((similarity_QM - best_Q1) / temperature).exp()
    weight_QM *= nearer_QM + tied_QM * share_Q1
    votes_QC = weight_QM.new_zeros(len(weight_QM), num_classes)
    # Not a product with a matrix of classes: of 100,000 images and 1,000 classes that has 400 MB.
    return votes_QC.index_add_(1, labels_M, weight_QM).argmax(dim=1)


def _check_settings(num_bank: int, k: int, temperature: float, queries_per_chunk: int) -> None:
    """Raises ConfigError if the classifier can't be what was asked for."""
    if not 1 <= k <= num_bank:
        raise ConfigError(
            f"kNN with k={k} needs at least that many labelled training images, and k at least 1; "
            f"there are {num_bank}, so choose k between 1 and {num_bank}"
        )
    if not temperature > 0.0:
        raise ConfigError(f"the kNN temperature must be positive, not {temperature}")
    if queries_per_chunk < 1:
        raise ConfigError(f"queries_per_chunk must be at least 1, not {queries_per_chunk}")
