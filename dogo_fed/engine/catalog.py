"""The optimizers that have a short name; any other is named by its import path."""

from __future__ import annotations

OPTIMIZERS = {
    "adam": "torch.optim:Adam",
    "adamw": "torch.optim:AdamW",
    "sgd": "torch.optim:SGD",
}
