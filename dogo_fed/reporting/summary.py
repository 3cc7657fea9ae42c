"""summary.json and the table at the end of a run: what it reached, and what that cost."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict, cast

from rich import box
from rich.console import Console, Group
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dogo_fed import layout
from dogo_fed.atomic import without_nan
from dogo_fed.contracts import EventKind
from dogo_fed.ledger import Part
from dogo_fed.reporting.sinks.totals import ExchangeSummary, RunTotals
from dogo_fed.reporting.units import human_bytes, human_seconds, number, percent

_ACCURACIES = ("kNN untrained -> trained", "gain", "linear")
"""Headings of the most important columns."""
_HEALTH = ("rank untrained -> trained", "spread", "alignment", "uniformity")
"""What takes their place where no image has a label to count an accuracy by."""

_LEAST_SHARE = 0.02
"""A smaller part of a step is not printed."""

_NOTES = (EventKind.DATA, EventKind.WEIGHTS, EventKind.TRAFFIC)
"""Kinds of events that tell what the run is about, before anything has happened."""


class PeerSummary(TypedDict):
    """What a peer reached; see `contracts.PeerResult`. None where a number was not finite."""

    backbone: str
    objective: str
    parameters: int
    knn_top1: float | None
    linear_top1: float | None
    knn_top1_untrained: float | None
    ssl_loss: float | None
    mutual_kl: float | None
    state_digest: str
    steps_trained: int
    feature_std: float | None
    rankme: float | None
    alignment: float | None
    uniformity: float | None
    rankme_untrained: float | None


class UnfinishedSummary(TypedDict):
    """How far a peer without a result has come; see `totals.Reached`. None: not known."""

    backbone: str | None
    objective: str | None
    steps_done: int
    steps_trained: int
    ssl_loss: float | None
    mutual_kl: float | None
    knn_top1: float | None
    knn_top1_untrained: float | None
    feature_std: float | None
    rankme: float | None
    alignment: float | None
    uniformity: float | None
    rankme_untrained: float | None


class RunSummary(TypedDict):
    """The content of summary.json.

    Attributes:
        steps: of the whole run.
        steps_done: by the peer that has got furthest.
        wall_s: seconds from start to end, over all starts of the run.
        peers: what each peer reached that has come to the run's end.
        unfinished: how far the others have come.
        step_ms: where the time of a step goes: mean milliseconds of its parts (`ledger.Part`) over
            the sampled steps of this start, by peer.
        provenance: where the numbers come from: images, code, libraries and device, from which step
            on; see `storage.provenance_file`.
    """

    run_id: str
    seed: int
    host: str
    steps: int
    steps_done: int
    wall_s: float
    peers: dict[str, PeerSummary]
    unfinished: dict[str, UnfinishedSummary]
    exchange: ExchangeSummary
    variants: dict[str, object]
    step_ms: dict[str, dict[str, float]]
    provenance: list[dict[str, object]]
    events: list[dict[str, object]]


def build_summary(
    run_id: str,
    seed: int,
    host: str,
    steps: int,
    wall_s: float,
    exchange_enabled: bool,
    totals: RunTotals,
    variants: Mapping[str, object] | None = None,
) -> RunSummary:
    """Returns the content of summary.json, ready to be written: peers by name, None for NaN.

    Provenance and the parts of a step are the caller's to add.

    Args:
        run_id: the run.
        seed: the run's seed.
        host: what ran it, e.g. "local", "processes", "ray", "flower".
        steps: steps of the run.
        wall_s: from start to end, in seconds, over all starts.
        exchange_enabled: False for a run in which the peers learn alone.
        totals: has seen every record of the run.
        variants: settings of the exchange that are not as published, by name; see
            `RunConfig.variants`.
    """
    peers = {}
    for name in sorted(totals.results):
        fields = dataclasses.asdict(totals.results[name])
        del fields["peer"]
        peers[name] = fields
    summary = {
        "run_id": run_id,
        "seed": seed,
        "host": host,
        "steps": steps,
        "steps_done": max((reached.steps_done for reached in totals.reached.values()), default=0),
        "wall_s": wall_s,
        "peers": peers,
        "unfinished": _unfinished(totals),
        "exchange": totals.exchange(exchange_enabled),
        "variants": dict(variants or {}),
        "step_ms": {},
        "provenance": [],
        "events": [dataclasses.asdict(event) for event in totals.events],
    }
    return cast(RunSummary, without_nan(summary))


def _unfinished(totals: RunTotals) -> dict[str, dict[str, object]]:
    found = {}
    for name in sorted(set(totals.reached) - set(totals.results)):
        backbone, objective = totals.peers.get(name, (None, None))
        what = {"backbone": backbone, "objective": objective}
        found[name] = {**what, **dataclasses.asdict(totals.reached[name])}
    return found


def read_summary(folder: Path) -> RunSummary | None:
    """Returns what a run folder's summary.json says; None if there is none that can be read.

    The file may be of another version: that it tells of peers, events and the time is all that is
    certain.
    """
    try:
        content = json.loads((folder / layout.SUMMARY).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    is_summary = (
        isinstance(content, dict)
        and isinstance(content.get("wall_s"), int | float)
        and isinstance(content.get("peers"), dict)
        and all(isinstance(peer, dict) for peer in content["peers"].values())
        and isinstance(content.get("events"), list)
        and all(isinstance(event, dict) and "kind" in event for event in content["events"])
    )
    return cast(RunSummary, content) if is_summary else None


def was_stopped(summary: RunSummary) -> bool:
    """Whether the run ended early, by its user; a stop before it was resumed does not count."""
    kinds = [
        event["kind"]
        for event in summary["events"]
        if event["kind"] in (EventKind.STOPPED, EventKind.RESUMED)
    ]
    return bool(kinds) and kinds[-1] == EventKind.STOPPED


def summary_table(summary: RunSummary) -> Table:
    """Returns a row per peer: what it is, what it knew before and after, and how to check it."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("peer", "backbone", "objective"):
        table.add_column(heading, no_wrap=True)
    for heading in ("params", *_headings(summary), "SSL loss", "mutual KL"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("steps", justify="right", no_wrap=True)
    table.add_column("state", style="dim", no_wrap=True)
    for name, peer in summary["peers"].items():
        table.add_row(
            Text(name, style="bold"),
            Text(peer["backbone"]),
            Text(peer["objective"]),
            f"{peer['parameters'] / 1e6:.2f} M",
            *_how_good(summary, peer),
            number(_float(peer["ssl_loss"])),
            _mutual_kl(summary, peer),
            str(peer["steps_trained"]),
            Text(peer["state_digest"][:8]),
        )
    for name, unfinished in summary["unfinished"].items():
        table.add_row(
            Text(name, style="bold"),
            Text(unfinished["backbone"] or "-"),
            Text(unfinished["objective"] or "-"),
            "-",
            *_how_good(summary, unfinished),
            number(_float(unfinished["ssl_loss"])),
            _mutual_kl(summary, unfinished),
            str(unfinished["steps_trained"]),
            "unfinished",
        )
    return table


def narrow_table(summary: RunSummary) -> Table:
    """Returns the table for a terminal of 80 columns: accuracies and mutual KL only."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("peer", overflow="fold")
    for heading in (*_headings(summary), "mutual KL"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, peer in summary["peers"].items():
        what = f"\n{peer['backbone']}, {peer['objective']}"
        table.add_row(
            Text.assemble((name, "bold"), (what, "dim")),
            *_how_good(summary, peer),
            _mutual_kl(summary, peer),
        )
    for name, unfinished in summary["unfinished"].items():
        what = f"\nunfinished, {unfinished['steps_trained']} steps trained"
        table.add_row(
            Text.assemble((name, "bold"), (what, "dim")),
            *_how_good(summary, unfinished),
            _mutual_kl(summary, unfinished),
        )
    return table


def print_summary(summary: RunSummary, console: Console | None = None) -> None:
    """Prints the table and below it the exchange's cost and the events.

    Args:
        summary: from `build_summary`.
        console: standard output by default; where that is a file, lines are as long as needed.
    """
    if console is None:
        console = Console()
        if not console.is_terminal:
            console = Console(width=160)
    title = Text.assemble(
        (f"run {summary['run_id']}", "bold"),
        f"  {summary['host']}, seed {summary['seed']}, {_how_far(summary)} in "
        f"{human_seconds(summary['wall_s'])}",
    )
    table = summary_table(summary)
    unlimited = console.options.update(max_width=10_000)
    if Measurement.get(console, unlimited, table).maximum > console.width:
        table = narrow_table(summary)
    console.print(Group(title, table, *map(Text, _footnotes(summary))))


def _how_far(summary: RunSummary) -> str:
    """Returns the number of steps; of a run that did not come to its end, those that were done."""
    if not summary["unfinished"]:
        return f"{summary['steps']} steps"
    return f"{summary['steps_done']} of {summary['steps']} steps"


def _has_accuracy(summary: RunSummary) -> bool:
    """Whether accuracies were measured, or nothing was."""
    peers = [*summary["peers"].values(), *summary["unfinished"].values()]
    known = any(peer["knn_top1"] is not None for peer in peers)
    return known or not any(peer["rankme"] is not None for peer in peers)


def _headings(summary: RunSummary) -> tuple[str, ...]:
    """Returns the headings of the columns that say how good the peers are."""
    return _ACCURACIES if _has_accuracy(summary) else _HEALTH


def _how_good(summary: RunSummary, peer: PeerSummary | UnfinishedSummary) -> tuple[str | Text, ...]:
    """Returns the cells below `_headings`."""
    if not _has_accuracy(summary):
        before, after = _float(peer["rankme_untrained"]), _float(peer["rankme"])
        rest = (peer["feature_std"], peer["alignment"], peer["uniformity"])
        return (
            f"{number(before, 1)} -> {number(after, 1)}",
            *(number(_float(value)) for value in rest),
        )
    before, after = _float(peer["knn_top1_untrained"]), _float(peer["knn_top1"])
    return (
        f"{percent(before)} -> {percent(after)}",
        _gain(after - before),
        percent(_float(cast(PeerSummary, peer).get("linear_top1"))),
    )


def _mutual_kl(summary: RunSummary, peer: PeerSummary | UnfinishedSummary) -> str:
    """Returns the cell mutual KL."""
    return number(_float(peer["mutual_kl"])) if summary["exchange"]["enabled"] else "off"


def _footnotes(summary: RunSummary) -> list[str]:
    """Returns what the exchange cost, its variants, and what happened, a line each."""
    exchange = summary["exchange"]
    if exchange["enabled"]:
        cost = (
            f"exchange: {human_bytes(exchange['bytes_up_per_step'])} up, "
            f"{human_bytes(exchange['bytes_down_per_step'])} down per peer and step, "
            f"{human_bytes(exchange['bytes_up'] + exchange['bytes_down'])} in all; "
            f"{percent(exchange['wait_fraction'])} of the step time waiting for slower peers, "
            f"{percent(exchange['exchange_fraction'])} exchanging"
        )
    elif "baseline" in summary["variants"]:
        cost = (
            f"exchange: off; {summary['variants']['baseline']} in its place would send "
            f"{human_bytes(exchange['bytes_up_per_step'])} per peer and step between sites, and its "
            "losses stand in the column of the own loss"
        )
    else:
        cost = "exchange: off, every peer learned alone"
    variants = [
        f"variant: {name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in summary["variants"].items()
    ]
    events = [
        f"{event['kind'] if event['kind'] in _NOTES else 'event'}: {event['message']}"
        for event in summary["events"]
    ]
    return [cost, *_step_lines(summary.get("step_ms", {})), *variants, *events]


def _step_lines(step_ms: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Returns a line for each peer: how long its step takes, and its largest parts.

    Summaries of earlier versions have none.
    """
    lines = []
    for peer, all_parts in step_ms.items():
        parts = dict(all_parts)
        beside = parts.pop(Part.BESIDE.value, 0.0)
        total = sum(parts.values())
        if total <= 0:
            continue
        largest = sorted(parts.items(), key=lambda item: -item[1])
        told = ", ".join(
            f"{name} {percent(ms / total, 0)}" for name, ms in largest if ms >= _LEAST_SHARE * total
        )
        if beside > 0:
            told += f"; beside it, messages: {number(beside, 1)} ms"
        lines.append(f"step of {peer}: {number(total, 1)} ms: {told}")
    return lines


def _float(value: float | None) -> float:
    return math.nan if value is None else value


def _gain(difference: float) -> Text:
    """Returns a difference of accuracies in percentage points, green if it is one."""
    if not math.isfinite(difference):
        return Text("-")
    style = "green" if difference > 0 else "red" if difference < 0 else ""
    return Text(f"{100 * difference:+.1f}", style=style)
