"""Text that somebody else wrote, fit for a log, a record or a terminal: one line, bounded, visible.

Names, messages and reports come from other processes, sites and files. Written as they are, they
could move a terminal's cursor, colour it, or end a line and forge the next one. This is the one
place that prevents it. Records clean their own text (`contracts`), log files and terminals clean
every line that they write (`reporting.log_file`), and so does `exit_status.say`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence


def one_line(text: object, most: int = 2000) -> str:
    r"""Returns the text on one line: what is not printable is escaped, and what is too long is cut.

    Letters of all scripts and all spaces stay. Control characters, line ends, marks that change the
    direction of writing, and lone surrogates are written as Python writes them, e.g. "\x1b".

    Args:
        text: anything; `str` is applied to it.
        most: the longest result, in characters; what is longer ends with "...".
    """
    plain = str(text)
    if plain.isprintable() and len(plain) <= most:
        return plain
    shown = "".join(
        character if _is_shown(character) else _escaped(character)
        for character in plain[: most + 1]
    )
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def block(text: object, most: int = 2000) -> str:
    """Returns a text of several lines, each as `one_line` has it; all but the first are indented.

    So no line of it can be taken for one that we wrote.
    """
    return "\n    ".join(one_line(line, most) for line in str(text).splitlines())


def some_of(names: Sequence[object], most: int) -> str:
    """Returns the first names, with commas, and how many more there are."""
    more = len(names) - most
    return ", ".join(map(str, names[:most])) + (f" and {more} more" if more > 0 else "")


def _is_shown(character: str) -> bool:
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
