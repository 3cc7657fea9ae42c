"""The classifier that the published code left in its backbones, for whoever wants its behaviour.

There, ResNets from 100 pixels on, and wide ResNets, MobileNets and ShuffleNets always, end in an
untrained ImageNet classifier, so that the "features" are its 1000 outputs. Here features are pooled
activations, unless a backbone is built with `keep_classifier`.
"""

# F = feature dimension

from __future__ import annotations

from torch import nn

NUM_OUTPUTS = 1000


def make_head(pooled_dim: int, keep_classifier: bool) -> tuple[nn.Module, int]:
    """Returns what follows the pooling, and the F that comes out of it.

    Args:
        pooled_dim: channels of the last stage.
        keep_classifier: false lets the pooled features through, true is the published behaviour.
    """
    if keep_classifier:
        return nn.Linear(pooled_dim, NUM_OUTPUTS), NUM_OUTPUTS
    return nn.Identity(), pooled_dim
