"""Options and settings of the whole test run."""

from __future__ import annotations

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the numbers of tests/golden anew instead of comparing with them",
    )


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Numbers and times that don't depend on how many cores there are."""
    torch.set_num_threads(1)
