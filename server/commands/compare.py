"""`dogo-fed compare`: its command line, its dry run, the comparison, and the exit status."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dogo_fed.compare.comparison import CellReport, compare
from dogo_fed.compare.experiment import SOLO, Cell, Runner
from dogo_fed.compare.origin import check_images, images_of
from dogo_fed.compare.picture import draw_comparison
from dogo_fed.compare.report import to_markdown, write_comparison
from dogo_fed.compare.standing import (
    Standing,
    finished_cells,
    finished_summary,
    standing_of,
)
from dogo_fed.compare.traffic_picture import draw_traffic, draws_traffic
from dogo_fed.compare.variants_picture import draw_variants
from dogo_fed.errors import DogoError
from dogo_fed.evaluation.protocols import check_labels
from dogo_fed.exit_status import EXIT_FAILED, EXIT_STOPPED, say, tell
from dogo_fed.provenance import DataFacts
from dogo_fed.reporting.units import human_seconds
from dogo_fed.run.prepare import notes_of, prepare
from dogo_fed.run.stop_signal import stop_on_signal
from dogo_fed.storage.run_lock import run_lock
from dogo_fed.text import one_line
from server.comparison.cell_loop import CellLoop, CellRunner
from server.comparison.process_cells import ProcessCells, default_jobs, gpus_of_cells
from server.comparison.request import ComparisonRequest, preset_names, request_comparison
from server.process_tree import process_tree
from server.terminal_log import log_to_terminal

_HELP = """\
usage: dogo-fed compare [experiment=PRESET] [key=value ...] [--dry-run]

Did it help? Runs every method with every seed, and prints the paired differences.

  dogo-fed compare experiment=digits_m_pair
  dogo-fed compare experiment=digits_m_pair seeds=[0,1,2] rounds=5 out=runs/mine
  dogo-fed compare peers=[pair,trio] data=[digits_m] methods=[solo,dogo,supervised]
  dogo-fed compare data=/path/to/images methods=[solo,dogo] batch_size=64 out=runs/mine
  dogo-fed compare --dry-run            lists the cells, and runs nothing

  experiment=  {presets}
  methods=     of solo, offline, teacher, dogo, fedavg, fedx, flesd, fccl, supervised;
               where peers have private images also private; with a partition also central
  seeds=       one pair each
  peers=, data=   configurations, or lists of them; backbones (peers=[resnet50,resnet18]) are one
                  set of peers, and data=/path/to/images is a folder
  variants=    DoGo with other settings of the teaching: {{name: [settings]}}
  protocols=   evaluations after training
  baselines=   options of the methods that are baselines (baselines.fedavg.every_steps=20)
  not_counted=   peers that are broken on purpose: left out where all peers are taken together
  out=         folder, by default runs/compare/<experiment>; the same command goes on with it
  jobs=        cells at a time; by default one a core, or one a GPU
  runner=      processes, or ray: cells as tasks of a cluster (ray.address=auto)
  silence_s=   a cell that writes nothing for this many seconds is ended

everything else is a setting of every run, as for `dogo-fed train`; batch_size is 256 unless told.
Ctrl-C lets the running cells save themselves and end; a second one ends them at once.
exit status: 0 all cells finished, 1 some did not, 2 could not be started, 130 stopped
"""

_KILL_PATIENCE_S = 5.0
_GOES_ON = "the same command goes on with the cells that are not finished"


def main() -> None:
    """Runs what the command line says; leaves the process with a status that tells how it ended."""
    arguments = sys.argv[1:]
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(_HELP.format(presets=", ".join(preset_names())))
        return
    log_to_terminal()
    status = run(arguments)
    if status:
        sys.exit(status)


def run(arguments: Sequence[str]) -> int:
    """Runs the comparison; returns the exit status that the help text describes."""
    is_dry = "--dry-run" in arguments
    try:
        request = request_comparison(
            [argument for argument in arguments if argument != "--dry-run"]
        )
        standings = {
            cell.id: standing_of(cell, request.experiment.protocols) for cell in request.cells
        }
        if is_dry:
            sys.stdout.write(describe(request, standings))
            return 0
        _check_first_cells(request, standings)
        return _run(request)
    except (DogoError, OSError) as error:
        return tell(error)
    except KeyboardInterrupt:
        return say(f"ended at once; {_GOES_ON}", EXIT_STOPPED)


def describe(request: ComparisonRequest, standings: dict[str, Standing]) -> str:
    """Returns the text of a dry run: a line for each cell, and how long it may take."""
    lines = [f"out={request.out}", ""]
    for cell in request.cells:
        after = f"  after {', '.join(cell.needs)}" if cell.needs else ""
        lines.append(f"{standings[cell.id].value:<12} {cell.id}{after}")
    left = [cell for cell in request.cells if standings[cell.id] is not Standing.FINISHED]
    jobs = _jobs(request)
    room = "as many at a time as Ray has room for"
    at_a_time = room if request.runner is Runner.RAY else f"{jobs} at a time"
    lines += ["", f"{len(request.cells)} cells, {len(left)} to run, {at_a_time}"]
    lines.append(_estimate(request, left, jobs))
    return "\n".join(lines) + "\n"


def _estimate(request: ComparisonRequest, left: Sequence[Cell], jobs: int) -> str:
    """Returns a sentence about the time, by finished cells or by the preset's own measurement."""
    if not left:
        return "nothing is left to run"
    rounds = -(-len(left) // jobs)
    walls = [
        summary["wall_s"]
        for cell in request.cells
        if (summary := finished_summary(cell)) is not None
    ]
    if walls:
        mean_s = sum(walls) / len(walls)
        return (
            f"about {human_seconds(rounds * mean_s)}: the {len(walls)} finished cells took "
            f"{human_seconds(mean_s)} on average"
        )
    expected = request.experiment.expected
    is_gpu = bool(gpus_of_cells(request.run))
    cell_s = expected.gpu_cell_s if is_gpu else expected.cpu_cell_s
    if cell_s is None:
        return "how long a cell takes was not measured for this preset; the first one will tell"
    how = f"as measured with the preset's own settings on {expected.measured_on}"
    if expected.measured_on is None:
        how = f"reckoned for the preset's own settings, not measured, from {expected.reckoned_from}"
    return f"about {human_seconds(rounds * cell_s)}, at {human_seconds(cell_s)} a cell, {how}"


def _jobs(request: ComparisonRequest) -> int:
    return request.jobs or default_jobs(request.run, gpus_of_cells(request.run))


def _check_first_cells(request: ComparisonRequest, standings: dict[str, Standing]) -> None:
    """Checks one new cell for each method or variant, peers and data set, as a run would at its start.

    What there is to know about the images, and the weights that peers start from, is said once.

    Raises:
        ConfigError, DataError: the cell can't be run, or a protocol can't be counted on its images,
            or cells that are finished were trained on other images.
    """
    checked, images = set[object](), dict[str, DataFacts]()
    notes: dict[str, None] = {}
    for cell in request.cells:
        case = (cell.column, cell.peers, cell.data)
        if case in checked or cell.needs or standings[cell.id] is not Standing.NEW:
            continue
        checked.add(case)
        run = prepare(cell.config)
        for protocol, options in request.experiment.protocols.items():
            for peer in run.peer_ids:
                check_labels(protocol, options, run.data_of(peer).evaluated)
        notes |= dict.fromkeys([*notes_of(run), *run.weights_notes])
        images |= images_of(cell, run)
    for note in notes:
        say(note, 0)
    check_images(finished_cells(request.cells), images)


def _run(request: ComparisonRequest) -> int:
    """Runs the cells in the folder of the comparison, which no other command may write to meanwhile.

    Raises:
        ConfigError: another one does.
    """
    request.out.mkdir(parents=True, exist_ok=True)
    with run_lock(request.out):
        return _run_cells(request)


def _run_cells(request: ComparisonRequest) -> int:
    with stop_on_signal() as stop_requested, _runner(request) as (runner, jobs):
        loop = CellLoop(
            cells=request.cells,
            protocols=request.experiment.protocols,
            runner=runner,
            jobs=jobs,
            silence_s=request.silence_s,
            tell=_tell,
        )
        reports = loop.run(stop_requested)
    _report(request, reports)
    outcomes = {report.outcome for report in reports}
    if outcomes == {"finished"}:
        return 0
    was_stopped = stop_requested() and "failed" not in outcomes
    return say(_GOES_ON, EXIT_STOPPED if was_stopped else EXIT_FAILED)


def _report(request: ComparisonRequest, reports: Sequence[CellReport]) -> None:
    comparison = compare(request.experiment, request.cells, reports)
    write_comparison(comparison, request.out)
    draw_comparison(comparison, request.out / "compare.png")
    if comparison.variants and SOLO in comparison.methods:
        draw_variants(comparison, request.out / "variants.png")
    if draws_traffic(comparison):
        draw_traffic(comparison, request.out / "traffic.png")
    sys.stdout.write(f"\n{to_markdown(comparison)}\n{one_line(request.out)}\n")


@contextmanager
def _runner(request: ComparisonRequest) -> Iterator[tuple[CellRunner, int]]:
    """Yields the runner and the number of cells at a time; ends left-over processes."""
    if request.runner is Runner.RAY:
        # Ray is imported only where it is used: that takes a second.
        from server.comparison.ray_cells import RayCells
        from server.hosts.ray_actors import ray_cluster

        with ray_cluster(request.run.ray, request.jobs or 1):
            cells = RayCells(request.run)
            yield cells, min(request.jobs or cells.room, cells.room)
        return
    with process_tree() as processes:
        gpus = gpus_of_cells(request.run)
        try:
            yield (
                ProcessCells(processes, request.out, request.run.threads_per_peer, gpus),
                _jobs(request),
            )
        finally:
            processes.end(_KILL_PATIENCE_S)


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
