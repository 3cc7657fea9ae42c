"""The picture of the live view: a bar with the time left, a row per peer, the last events."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dogo_fed.contracts import Event, EventKind
from dogo_fed.reporting.live.progress import PeerProgress, Phase, RunProgress
from dogo_fed.reporting.units import UNKNOWN, human_bytes, human_seconds, number, percent

_PHASE_STYLES = {
    Phase.STARTING: "dim",
    Phase.TRAINING: "cyan",
    Phase.FINISHED: "green",
    Phase.LOST: "bold red",
}
_HEADINGS = ("step", "SSL\nloss", "mutual\nKL", "kNN\ntop-1", "steps\n/s", "wait", "up", "down")
_WITHOUT_ACCURACY = {"kNN\ntop-1": "rank"}
"""Headings of what takes the place of an accuracy where the images have no labels."""
_WIDE = 96


def render(title: str, progress: RunProgress, width: int) -> RenderableType:
    """Returns the whole view; cheap, since it is made four times a second.

    Args:
        title: of the frame.
        progress: what is shown.
        width: of the terminal, in columns; a narrow one gets no byte counts.
    """
    num_columns = len(_HEADINGS) if width >= _WIDE else len(_HEADINGS) - 2
    parts: list[RenderableType] = [_bar(progress), _peer_table(progress, num_columns)]
    parts += [_event_line(event) for event in progress.events]
    return Panel(
        Group(*parts), title=Text(title, style="bold"), title_align="left", box=box.ROUNDED
    )


def _bar(progress: RunProgress) -> RenderableType:
    """Returns the progress bar: steps done by the slowest peer, share, time gone and left."""
    grid = Table.grid(padding=(0, 2), expand=True)
    for ratio in (None, 1, None, None):
        grid.add_column(ratio=ratio, no_wrap=True)
    share = progress.share_done()
    present = [p.steps_done for p in progress.peers.values() if p.phase is not Phase.LOST]
    left = "done" if share >= 1.0 else f"{human_seconds(progress.left_s())} left"
    grid.add_row(
        f"step {min(present, default=0)}/{progress.total_steps}",
        ProgressBar(total=1.0, completed=share),
        percent(share, 0),
        f"{human_seconds(progress.elapsed_s())} gone, {left}",
    )
    return grid


def _peer_table(progress: RunProgress, num_columns: int) -> Table:
    """Returns a row per peer, with the first `num_columns` numbers."""
    table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, collapse_padding=True)
    table.add_column("peer", overflow="fold", min_width=6)  # the only one that may be narrowed
    table.add_column("phase", no_wrap=True)
    for heading in _HEADINGS[:num_columns]:
        shown = heading if progress.has_accuracy else _WITHOUT_ACCURACY.get(heading, heading)
        table.add_column(shown, justify="right", no_wrap=True)
    for name, peer in progress.peers.items():
        table.add_row(
            Text(name, style="bold"),
            Text(peer.phase.value, style=_PHASE_STYLES[peer.phase]),
            *_numbers(peer, progress.has_accuracy)[:num_columns],
            style="dim" if peer.phase is Phase.LOST else "",
        )
    return table


def _numbers(peer: PeerProgress, has_accuracy: bool) -> tuple[str, ...]:
    """Returns the cells below `_HEADINGS`."""
    return (
        str(peer.steps_done) if peer.steps_done else UNKNOWN,
        number(peer.ssl_loss),
        number(peer.mutual_kl),
        percent(peer.knn_top1) if has_accuracy else number(peer.rankme, 1),
        number(peer.steps_per_s(), 1),
        percent(peer.wait_share(), 0),
        human_bytes(peer.bytes_up),
        human_bytes(peer.bytes_down),
    )


def _event_line(event: Event) -> Text:
    style = "red" if event.kind == EventKind.PEER_LOST else "yellow"
    at_step = f"step {event.step}: " if event.step >= 0 else ""
    return Text.assemble((at_step, "dim"), (event.message, style))
