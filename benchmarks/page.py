"""Writes one page of all results of a machine and month: benchmarks/results/<machine>-<month>.md.

    python -m benchmarks.page [MACHINE-MONTH ...]

Every benchmark leaves a JSON file; this only puts them into tables. Without an argument, all pages are
written anew.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import coordinator_memory
from benchmarks.machine import RESULTS
from benchmarks.turns import told
from dogo_fed.atomic import write_atomic

_NAME = re.compile(r"(?P<benchmark>\w+)(?P<what>[.\w]*)-(?P<place>[\w-]+-\d{4}-\d{2})")
"""`what` says what a result is about that is not the usual one."""

Content = Mapping[str, Any]


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Returns a table in markdown."""
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    lines += [f"| {' | '.join(map(shown, row))} |" for row in rows]
    return "\n".join(lines) + "\n"


def shown(value: object) -> str:
    """Returns a cell of a table; a median has the least and the most beside it."""
    if value is None or isinstance(value, Mapping):
        return told(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def records(found: Sequence[Content]) -> str:
    """Returns a table of equal records, with their keys as its heads."""
    return table(list(found[0]), [list(one.values()) for one in found]) if found else ""


def step(content: Content) -> str:
    """Returns the tables of benchmarks.step."""
    parts = []
    for name, found in content["networks"].items():
        seconds = [(one, each["cpu"], each["wall"]) for one, each in found["seconds"].items()]
        parts.append(table([f"{name}: a step of", "CPU seconds", "wall seconds"], seconds))
        parts.append(table([f"{name}: ratio", "within a round"], found["ratios"].items()))
        parts += [f"{one}: {note}.\n" for one, note in found.get("notes", {}).items()]
    return "\n".join(parts)


def coordinator(content: Content) -> str:
    """Returns the table of benchmarks.coordinator, and what became of its memory."""
    rows, grown = records(content["rows"]), content["long_run"]
    if not grown:
        return rows
    sentence = coordinator_memory.told(grown)
    return f"{rows}\n{sentence[0].upper()}{sentence[1:]}.\n"


def exchange_tax(content: Content) -> str:
    """Returns the tables of benchmarks.exchange_tax."""
    ratios = table(
        ["steps/s of the slowest peer, with exchange / without", "over the pairs"],
        [("mean steps", content["ratio"]), ("median steps", content["ratio_of_median_steps"])],
    )
    parts = ("step_ms", "compute_ms", "wait_ms", "exchange_ms", "exchange_share", "processor_ms")
    rows = [
        (peer, mode, *(found[part] for part in parts))
        for peer, modes in content["peers"].items()
        for mode, found in modes.items()
    ]
    return f"{ratios}\n{table(['peer', 'exchange', *parts], rows)}"


def round_trip(content: Content) -> str:
    """Returns the tables of benchmarks.round_trip; an early result has no steps."""
    exchanges = f"Exchanges alone:\n\n{records(content['rows'])}"
    if not content.get("step_rows"):
        return exchanges
    left_out = content["left_out"]
    more = "".join(f"- left out: {name}: {reason}\n" for name, reason in left_out.items())
    compute_ms = settings_of(content)["compute_ms"]
    return (
        f"{exchanges}\nSteps of simulated peers that compute {compute_ms:g} ms:\n\n"
        f"{records(content['step_rows'])}" + (f"\n{more}" if more else "")
    )


def rows_of(key: str) -> Callable[[Content], str]:
    """Returns what makes a table of a list of equal records."""
    return lambda content: records(content[key])


TITLES: Mapping[str, tuple[str, Callable[[Content], str]]] = {
    "main_job": ("The main job", rows_of("rows")),
    "step": ("A step beside the published recipe, lightly and the bare networks", step),
    "epoch": ("An epoch on a GPU", rows_of("rows")),
    "exchange_tax": ("What the exchange costs a run on one machine", exchange_tax),
    "round_trip": ("An exchange, alone and in the steps of simulated peers", round_trip),
    "far_link": ("A far coordinator", rows_of("rows")),
    "coordinator": ("What a coordinator can carry", coordinator),
    "data_path": ("Two views of a batch", rows_of("rows")),
    "cold_folder": ("A step fed from a disk", rows_of("rows")),
    "loss_memory": ("The memory of the losses", rows_of("rows")),
    "flower_steps": ("Steps under Flower", rows_of("cells")),
}
"""By benchmark, in the order of the page."""

_EARLY: Mapping[str, str] = {
    "exchange_tax": "Runs with exchange and without took turns; the spread is over the pairs of them.",
    "round_trip": "One pass, one combination after the other; p10 and p90 are over its exchanges.",
    "flower_steps": "One run of each kind, one after the other.",
}
"""How a benchmark has measured whose result does not say it."""


def section(name: str, content: Content) -> str:
    """Returns the part of a page about one result."""
    title, made = TITLES[name]
    machine = content["machine"]
    where = ", ".join(
        str(part)
        for part in (
            machine["processor"], _kind(machine), f"{machine['cores']} cores", machine["accelerator"],
            f"Python {machine['python']}", f"torch {machine['torch']}", content.get("date"),
            f"commit {content['commit']}" if content.get("commit") else None,
        )
        if part
    )  # fmt: skip
    command = content.get("command", f"python -m benchmarks.{name}")
    how = content.get("how") or _EARLY[name]
    parts = [f"## {title}", f"    {command}", f"{where}."]
    if settings := told_settings(content):
        parts.append(settings)
    parts.append(how)
    if failed := content.get("failed"):
        reasons = "\n".join(f"- {what}: {why}" for what, why in failed.items())
        parts.append(f"NOT ALL WAS MEASURED. What has failed:\n\n{reasons}")
    return "\n\n".join([*parts, made(content)])


def settings_of(content: Content) -> Content:
    """Returns the settings of a run; those of an early result are among its figures."""
    found = content.get("settings")
    return found if isinstance(found, Mapping) else content


def told_settings(content: Content) -> str:
    """Returns a sentence with the settings of a run; an early result may have none, or a list."""
    found = content.get("settings", [])
    if isinstance(found, Mapping):
        found = [
            f"{key} {' '.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in found.items()
            if value is not None and value != [] and value is not False
        ]
    return f"Settings: {', '.join(found)}." if found else ""


def _kind(machine: Content) -> str | None:
    """Returns which of the processors of its name it is; an early result does not say."""
    if machine.get("family") is None:
        return None
    bf16 = " and ".join(machine["bf16"]) or "no instructions for bfloat16"
    return f"family {machine['family']}, model {machine['model']}, {bf16}"


def page(place: str, results: Path) -> str:
    """Returns the page of a machine and month."""
    found = [
        (list(TITLES).index(match["benchmark"]), match["what"], path)
        for path, match in _matches(results)
        if match["place"] == place
    ]
    parts = [
        section(list(TITLES)[number], json.loads(path.read_text("utf-8")))
        for number, _, path in sorted(found)
    ]
    head = (
        f"# Benchmarks, {place}\n\nWritten by `python -m benchmarks.page` from the JSON files beside it. A "
        "figure with two others\nin brackets is a median with the least and the most.\n"
    )
    return "\n".join([head, *parts])


def places(results: Path) -> list[str]:
    """Returns the machines and months of which there are results."""
    return sorted({match["place"] for _, match in _matches(results)})


def _matches(results: Path) -> Iterator[tuple[Path, re.Match[str]]]:
    """Yields the files of results, and their names in parts."""
    for path in results.glob("*.json"):
        match = _NAME.fullmatch(path.stem)
        if match is not None and match["benchmark"] in TITLES:
            yield path, match


def main(asked: Sequence[str]) -> None:
    """Writes the pages of these machines and months, or of all."""
    for place in asked or places(RESULTS):
        write_atomic(RESULTS / f"{place}.md", page(place, RESULTS))
        print(f"written: benchmarks/results/{place}.md")


if __name__ == "__main__":
    main(sys.argv[1:])
