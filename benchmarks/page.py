"""Writes one page of all results of a machine and month: benchmarks/results/<machine>-<month>.md.

    python -m benchmarks.page [MACHINE-MONTH ...]

Every benchmark leaves a JSON file; this only puts them into tables. Without an argument, all pages are
written anew.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.machine import RESULTS
from dogo_fed.atomic import write_atomic

_NAME = re.compile(r"(?P<benchmark>\w+)-(?P<place>(?:\d+core|gpu)-\d{4}-\d{2})")


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table in markdown."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def spread(one: Mapping[str, float]) -> str:
    """Returns a median with the least and the most."""
    return f"{one['median']:.3g} ({one['min']:.3g} to {one['max']:.3g})"


def step(content: Mapping[str, Any]) -> str:
    """Returns the tables of benchmarks.step."""
    seconds = table(
        ["a step of", "CPU seconds, median (least to most)", "wall seconds"],
        [
            (name, spread(one["cpu"]), spread(one["wall"]))
            for name, one in content["seconds"].items()
        ],
    )
    ratios = table(["ratio", "median (least to most)"],
                   [(name, spread(one)) for name, one in content["ratios"].items()])  # fmt: skip
    return (
        f"Batch size {content['batch_size']}, {content['threads']} thread.\n\n{seconds}\n{ratios}"
    )


def coordinator(content: Mapping[str, Any]) -> str:
    """Returns the tables of benchmarks.coordinator."""
    names = ("copy", "echo", "calls", "grpc")
    rows = table(
        ["B", "peers", *(f"{name}: contributions (MiB) a CPU second" for name in names)],
        [
            (
                row["batch_size"],
                row["peers"],
                *(f"{row[f'{n}_per_cpu_s']:.0f} ({row[f'{n}_mib_per_cpu_s']:.0f})" for n in names),
            )
            for row in content["rows"]
        ],
    )
    if not content["long_run"]:
        return rows
    grown = content["long_run"]
    return (
        f"{rows}\nMemory of a run of {grown[-1]['steps']:,} steps: {grown[0]['rss_mib']:.0f} MiB after "
        f"{grown[0]['steps']:,}, {grown[-1]['rss_mib']:.0f} MiB at its end.\n"
    )


def far_link(content: Mapping[str, Any]) -> str:
    """Returns the table of benchmarks.far_link."""
    return table(
        ["round trip, ms", "Mbit/s", "lookahead", "steps/s by round", "share of the nearest"],
        [
            (
                f"{row['round_trip_ms']:g}",
                f"{row['mbit_per_s']:g}" if row["mbit_per_s"] else "no limit",
                row["lookahead"],
                ", ".join(f"{one:.2f}" for one in row["steps_per_s"]),
                row["share_of_near"],
            )
            for row in content["rows"]
        ],
    )


def exchange_tax(content: Mapping[str, Any]) -> str:
    """Returns the tables of benchmarks.exchange_tax."""
    ratios = table(["steps/s of the slowest peer, with exchange / without", "median (least to most)"],
                   [("mean steps", spread(content["ratio"])),
                    ("median steps", spread(content["ratio_of_median_steps"]))])  # fmt: skip
    parts = ("step_ms", "compute_ms", "wait_ms", "exchange_ms", "processor_ms")
    rows = [
        (peer, mode, *(f"{found[part]:.2f}" for part in parts))
        for peer, modes in content["peers"].items()
        for mode, found in modes.items()
    ]
    return f"{ratios}\n{table(['peer', 'exchange', *parts], rows)}"


def rows_of(key: str) -> Callable[[Mapping[str, Any]], str]:
    """Returns what makes a table of a list of equal records."""

    def made(content: Mapping[str, Any]) -> str:
        records = content[key]
        return table(list(records[0]), [list(one.values()) for one in records])

    return made


TITLES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {
    "step": ("A step beside the published recipe, lightly and the bare networks", step),
    "exchange_tax": ("What the exchange costs a run on one machine", exchange_tax),
    "round_trip": ("One exchange between processes", rows_of("rows")),
    "far_link": ("A far coordinator", far_link),
    "coordinator": ("What a coordinator can carry", coordinator),
    "data_path": ("Two views of a batch", rows_of("rows")),
    "flower_steps": ("Steps under Flower", rows_of("cells")),
}
"""By benchmark, in the order of the page."""


def page(place: str) -> str:
    """Returns the page of a machine and month."""
    parts = []
    for name, (title, made) in TITLES.items():
        path = RESULTS / f"{name}-{place}.json"
        if not path.is_file():
            continue
        content = json.loads(path.read_text("utf-8"))
        machine = content["machine"]
        where = ", ".join(
            str(part)
            for part in (
                machine["processor"], f"{machine['cores']} cores", machine["accelerator"],
                f"Python {machine['python']}", f"torch {machine['torch']}",
            )
            if part
        )  # fmt: skip
        command = content.get("command", f"python -m benchmarks.{name}")
        parts.append(f"## {title}\n\n    {command}\n\n{where}.\n\n{made(content)}")
    head = (
        f"# Benchmarks, {place}\n\nWritten by `python -m benchmarks.page` from the JSON files beside it. "
        "Contestants took turns;\na spread is over rounds.\n"
    )
    return "\n".join([head, *parts])


def main(places: Sequence[str]) -> None:
    """Writes the pages of these machines and months, or of all."""
    matches = [_NAME.fullmatch(path.stem) for path in RESULTS.glob("*.json")]
    known = sorted({match["place"] for match in matches if match is not None})
    for place in places or known:
        write_atomic(RESULTS / f"{place}.md", page(place))
        print(f"written: benchmarks/results/{place}.md")


if __name__ == "__main__":
    main(sys.argv[1:])
