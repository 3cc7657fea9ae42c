"""Which part of a data set is to train with and which to test with, by what the parts are called."""

from __future__ import annotations

from collections.abc import Sequence

from dogo_fed.text import one_line, some_of

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation", "eval")
"""The first one that is there is used."""
_MOST_NAMED = 6


def not_used_note(parts: Sequence[str], where: object) -> tuple[str, ...]:
    """Returns the note about parts that are for neither; none if there are none."""
    named = some_of([one_line(part, 60) for part in parts], _MOST_NAMED)
    return (f"not used: {named} in {where}",) if parts else ()
