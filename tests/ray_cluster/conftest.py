"""One reference run of host=local, which every run on a cluster has to equal."""

from __future__ import annotations

import pytest

from tests.support.command_line import SMALL_RUN, dogo_fed
from tests.support.run_watch import digests

RUN = (*SMALL_RUN, "device=cpu")


@pytest.fixture(scope="session")
def run_settings() -> tuple[str, ...]:
    """A run of seconds."""
    return RUN


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    run_dir = tmp_path_factory.mktemp("reference") / "run"
    dogo_fed("train", *RUN, "host=local", f"run_dir={run_dir}")
    return digests(run_dir)
