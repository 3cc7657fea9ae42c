"""The error tree: drawn as it is, what each means for a command, and what a site tells of each."""

from __future__ import annotations

import re

import pytest

from dogo_fed import errors
from dogo_fed.errors import (
    COULD_NOT_START,
    CheckpointError,
    ConfigError,
    CoordinatorLost,
    DataError,
    DogoError,
    EvaluationError,
    ExchangeError,
    ExchangeTimeout,
    HelperLost,
    MalformedDistribution,
    OwnCodeError,
    Refused,
    SchemaMismatch,
    StaleTicket,
    StartError,
    Stopped,
    StorageFull,
    TrainingError,
    outside,
)
from dogo_fed.exit_status import EXIT_FAILED, EXIT_STOPPED, EXIT_UNUSABLE, status_of

TREE = {
    one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, DogoError)
}


def test_the_picture_of_the_tree_has_every_error() -> None:
    drawn = set(re.findall(r"-- (\w+)", errors.__doc__ or ""))
    assert drawn | {"DogoError"} == {one.__name__ for one in TREE}


def test_a_run_that_could_not_be_started_has_a_status_of_its_own() -> None:
    assert {one for one in TREE if status_of(one("why")) == EXIT_UNUSABLE} == {
        *COULD_NOT_START,
        OwnCodeError,
    }
    assert {DataError, StartError} < set(COULD_NOT_START)


def test_a_stop_of_the_user_s_is_none() -> None:
    assert status_of(Stopped("stopped by the user")) == EXIT_STOPPED
    assert status_of(HelperLost("part 1 died")) == EXIT_FAILED


@pytest.mark.parametrize(
    "kind",
    [
        Refused,
        SchemaMismatch,
        StaleTicket,
        ExchangeTimeout,
        CoordinatorLost,
        MalformedDistribution,
        TrainingError,
    ],
)
def test_a_site_tells_what_says_nothing_of_its_images(kind) -> None:
    assert outside(kind("the words")) == "the words"


@pytest.mark.parametrize(
    "kind",
    [
        ConfigError,
        OwnCodeError,
        DataError,
        CheckpointError,
        StorageFull,
        StartError,
        HelperLost,
        EvaluationError,
        ExchangeError,
        DogoError,
    ],
)
def test_of_all_else_a_site_tells_the_kind(kind) -> None:
    told = outside(kind("/data/anna.png is broken, one of 40"))
    assert told == f"{kind.__name__} (the reason is in the site's log)"


def test_of_what_nobody_thought_of_a_site_tells_not_even_the_name() -> None:
    class AnnaIsMissing(Exception):
        pass

    assert outside(AnnaIsMissing("40")) == "an unexpected error (the reason is in the site's log)"
