"""Two comparisons of the same peers, images and seeds with other settings: what did the change do?

    python -m benchmarks.before_after BEFORE AFTER [--methods solo,dogo]

Each is the folder of a comparison, or its compare.json. `dogo-fed compare` holds methods against
each other at the same settings. This holds the same method against itself, pair by pair of a seed,
after minus before. It prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from dogo_fed.compare.comparison import unit_of
from dogo_fed.compare.report import MINUS, difference, score
from dogo_fed.compare.statistics import paired_difference, spread

Scores: TypeAlias = dict[int, float]
"""By seed."""


class Place(NamedTuple):
    """Whose scores: of which metric, peer and method or variant."""

    peers: str
    data: str
    metric: str
    peer: str
    method: str


def main(arguments: Sequence[str]) -> None:
    """Prints the table.

    Raises:
        SystemExit: a file is missing or no comparison's, or the two have nothing in common.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--methods", help="methods and variants to hold; all that both have")
    chosen = parser.parse_args(arguments)
    try:
        before, after = read(chosen.before), read(chosen.after)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        parser.error(f"{type(error).__name__}: {error}. Give folders of `dogo-fed compare`")
    wanted = set(chosen.methods.split(",")) if chosen.methods else None
    lines = list(table(before, after, wanted))
    if len(lines) == 2:
        parser.error("the two comparisons have no peer, metric, method and seed in common")
    print("\n".join(lines))


def read(path: Path) -> dict[Place, Scores]:
    """Returns all scores of a comparison.

    Args:
        path: its folder, or the compare.json in it.

    Raises:
        OSError: there is none.
        ValueError, KeyError, TypeError, AttributeError: it is no comparison's.
    """
    file = path / "compare.json" if path.is_dir() else path
    content = json.loads(file.read_text(encoding="utf-8"))
    found = {}
    for row in content["rows"]:
        for method, scores in _columns(row):
            place = Place(row["peers"], row["data"], row["metric"], row["peer"], method)
            found[place] = {int(seed): float(one) for seed, one in scores.items()}
    return found


def _columns(row: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    for kind in ("methods", "variants"):
        for name, column in row[kind].items():
            yield name, column["scores"]


def table(
    before: Mapping[Place, Scores],
    after: Mapping[Place, Scores],
    methods: set[str] | None = None,
) -> Iterator[str]:
    """Yields the lines of a Markdown table, a row for each place that both have a seed of.

    Args:
        before: scores by place and seed.
        after: likewise.
        methods: those to show; None for all.
    """
    yield f"| peers | data | metric | peer | method | before | after | after {MINUS} before |"
    yield "|---|---|---|---|---|---|---|---|"
    for place, first in before.items():
        second = after.get(place, {})
        seeds = first.keys() & second.keys()
        if not seeds or (methods is not None and place.method not in methods):
            continue
        unit = unit_of(place.metric)
        cells = [score(spread([one[seed] for seed in seeds]), unit) for one in (first, second)]
        cells.append(difference(paired_difference(second, first), unit))
        yield f"| {' | '.join([*place, *cells])} |"


if __name__ == "__main__":
    main(sys.argv[1:])
