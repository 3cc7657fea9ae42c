"""How healthy a representation is, without labels: does it spread, and do views stay together?"""

# N = images, F = features, R = rows in a chunk

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from dogo_fed.errors import DataError
from dogo_fed.evaluation.pulse import beat

_EPSILON = 1e-7
_ROWS_PER_CHUNK = 1024


def feature_std(features_NF: torch.Tensor) -> torch.Tensor:
    """Returns sqrt(F) times the standard deviation of every dimension of normalised features.

    Shape F. Directions spread evenly over the sphere have a mean near 1; a collapsed encoder has 0.

    Source: Chen, He, "Exploring simple Siamese representation learning", CVPR 2021, section 4.1.
    """
    num_features = features_NF.shape[1]
    return torch.std(F.normalize(features_NF, dim=1), dim=0, correction=0) * math.sqrt(num_features)


def rankme(features_NF: torch.Tensor) -> float:
    """Returns the effective rank: exp of the entropy of the singular values' distribution.

    From 1, when all features lie on a line through the origin, to min(N, F). Not centred.

    Source: Garrido et al., "RankMe: assessing the downstream performance of pretrained
    self-supervised representations by their rank", ICML 2023, equations 1 and 2.
    """
    singular = torch.linalg.svdvals(features_NF.double())
    share = singular / singular.sum().clamp_min(_EPSILON) + _EPSILON
    return float(torch.exp(-(share * share.log()).sum()))


def alignment(view_a_NF: torch.Tensor, view_b_NF: torch.Tensor) -> float:
    """Returns the mean squared distance between the normalised features of two views; 0 is best.

    Args:
        view_a_NF: features of one view of every image.
        view_b_NF: features of another view of the same images.

    Source: Wang, Isola, "Understanding contrastive representation learning through alignment and
    uniformity on the hypersphere", ICML 2020, equation 7 with alpha = 2.
    """
    difference_NF = F.normalize(view_a_NF, dim=1) - F.normalize(view_b_NF, dim=1)
    return float(difference_NF.square().sum(dim=1).mean())


def uniformity(features_NF: torch.Tensor, t: float = 2.0) -> float:
    """Returns the log of the mean Gaussian potential over all pairs of images; lower is better.

    0 for a collapsed encoder, about -2 t for many dimensions filled evenly.

    Source: Wang, Isola, ICML 2020, equation 8 with t = 2, over pairs of different images.

    Raises:
        DataError: there are fewer than 2 images.
    """
    number = len(features_NF)
    if number < 2:
        raise DataError(f"uniformity is about pairs of images, but there are only {number} images")
    unit_NF = F.normalize(features_NF.double(), dim=1)
    total = torch.zeros((), dtype=torch.float64)
    for rows_RF in torch.split(unit_NF, _ROWS_PER_CHUNK):
        squared_RN = (2.0 - 2.0 * rows_RF @ unit_NF.T).clamp_min(0.0)
        total += (-t * squared_RN).exp().sum()
        beat()
    # Every image is one of its own N pairs, with potential 1.
    return float(((total - number) / (number * (number - 1))).log())
