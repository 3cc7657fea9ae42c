"""The protocols that have a short name; any other is named by its import path.

A protocol is a function of a `Subject` and its own options, by keyword, that returns a list of
`Score`. It leaves the encoder as it was; `evaluate` checks that.
"""

from __future__ import annotations

PROTOCOLS = {
    "knn": "dogo_fed.evaluation.protocols.knn:knn",
    "linear": "dogo_fed.evaluation.protocols.linear:linear",
    "limited_labels": "dogo_fed.evaluation.protocols.limited_labels:limited_labels",
    "noisy_labels": "dogo_fed.evaluation.protocols.noisy_labels:noisy_labels",
    "imbalance": "dogo_fed.evaluation.protocols.imbalance:imbalance",
    "ood": "dogo_fed.evaluation.protocols.ood:ood",
    "corruptions": "dogo_fed.evaluation.protocols.corruptions:corruptions",
    "health": "dogo_fed.evaluation.protocols.health:health",
}

NOT_COUNTED = ("health", "ood")
"""Those that count no labels of the subject's images; ood counts those of its targets."""
