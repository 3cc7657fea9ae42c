"""How good a frozen backbone is: weighted kNN, linear probe, and proof that it stayed frozen."""

from dogo_fed.evaluation.digest import state_digest, tensor_digests
from dogo_fed.evaluation.features import FrozenFeatures, evaluation_mode, extract_features
from dogo_fed.evaluation.guard import frozen
from dogo_fed.evaluation.knn import knn_predictions
from dogo_fed.evaluation.linear_probe import LinearProbeResult, linear_probe

__all__ = [
    "FrozenFeatures",
    "LinearProbeResult",
    "evaluation_mode",
    "extract_features",
    "frozen",
    "knn_predictions",
    "linear_probe",
    "state_digest",
    "tensor_digests",
]
