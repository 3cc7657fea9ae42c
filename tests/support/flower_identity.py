"""What tests need to make Flower messages outside of a run: Flower without its warnings, an identity."""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():
    # Flower's own dependencies warn of each other when they are loaded; ours are errors all the same.
    warnings.simplefilter("ignore", DeprecationWarning)
    import flwr.clientapp
    import flwr.serverapp  # noqa: F401
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture
def flower_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a test make Flower messages as if in a run. There is no public way."""
    for name in ("run_id", "node_id", "task_id"):
        monkeypatch.setattr(TaskIdentity, f"_{name}", 1)
