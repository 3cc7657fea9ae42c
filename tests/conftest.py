"""Options and settings of the whole test run."""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis
import pytest
import torch

from dogo_fed.trust import STATE_VARIABLE

hypothesis.settings.register_profile("tests", deadline=None)  # a busy machine proves no fault
hypothesis.settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-golden",
        action="store_true",
        help="write the numbers of tests/golden anew instead of comparing with them",
    )


@pytest.fixture(autouse=True, scope="session")
def _state_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests' runs are trusted with stays out of the user's own folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(STATE_VARIABLE, str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Numbers and times that don't depend on how many cores there are."""
    torch.set_num_threads(1)
