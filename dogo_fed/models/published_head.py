"""The classifier that the published code left in its backbones, for those who want its behaviour.

There, ResNets from 100 pixels on, and wide ResNets, MobileNets and ShuffleNets always, end in an
untrained ImageNet classifier, so that the "features" are its 1000 outputs. Here features are pooled
activations, unless a backbone is built with `keep_classifier`.
"""

from __future__ import annotations

from torch import nn

NUM_OUTPUTS = 1000


def make_head(pooled_dim: int, keep_classifier: bool) -> nn.Module:
    """Returns what follows the pooling.

    Args:
        pooled_dim: channels of the last stage.
        keep_classifier: false lets the pooled features through, true is the published behaviour.
    """
    return nn.Linear(pooled_dim, NUM_OUTPUTS) if keep_classifier else nn.Identity()
