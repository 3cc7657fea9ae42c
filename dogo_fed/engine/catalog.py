"""The optimizers that have a short name; any other is named by its import path."""

from __future__ import annotations

OPTIMIZERS = {
    "adam": "torch.optim:Adam",
    "adamw": "torch.optim:AdamW",
    "lars": "timm.optim:Lars",  # You et al. 2017; timm is an extra
    "sgd": "torch.optim:SGD",
}
