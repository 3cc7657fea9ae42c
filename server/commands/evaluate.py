"""`dogo-fed evaluate`: protocols for the encoders of a finished run, or for a weights file."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from types import MappingProxyType

import hydra
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from configs.shorthand import in_full_for_evaluation
from dogo_fed import layout
from dogo_fed.atomic import check_writable
from dogo_fed.config import DataConfig, EvalConfig, RunConfig
from dogo_fed.config_text import load_run_config
from dogo_fed.data.files.pixel_options import PixelOptions
from dogo_fed.data.held_out import dataset_with_test_part
from dogo_fed.data.kin import check_split
from dogo_fed.data.source import DataSet
from dogo_fed.engine.numerics import fix_numerics
from dogo_fed.errors import ConfigError, DogoError
from dogo_fed.evaluation.protocols import check_labels, protocol_title
from dogo_fed.evaluation.protocols.ood import with_targets
from dogo_fed.evaluation.subject import Subject
from dogo_fed.exit_status import EXIT_STOPPED, say, tell, tell_unexpected
from dogo_fed.reporting.scores import scores_table, write_sheet
from dogo_fed.run.evaluate import by_dataset, evaluate_subjects, image_size_of, open_run
from dogo_fed.run.weights_file import WeightsFile, image_size_in, open_file
from dogo_fed.text import one_line
from server.commands.evaluation_request import (
    EvaluationRequest,
    as_lists,
    check_evaluation,
    request_from_omegaconf,
)
from server.terminal_log import log_to_terminal

logger = logging.getLogger(__name__)

_HOW_PIXELS_ARE_MADE = ("channels", "value_range", "ground")
"""Options that change what an encoder sees, beside the size."""


def main() -> None:
    """Evaluates what the command line says, and exits with the status of `run`."""
    try:
        arguments = as_lists(in_full_for_evaluation(sys.argv[1:]))
        check_evaluation(arguments)
    except ConfigError as error:
        sys.exit(tell(error))
    sys.argv = [sys.argv[0], *arguments]
    _main()


@hydra.main(version_base="1.3", config_path="pkg://configs", config_name="evaluate")
def _main(composed: DictConfig) -> None:
    status = run(composed)
    if status:
        sys.exit(status)


def run(composed: DictConfig) -> int:
    """Returns 0, 1 if an evaluation failed, 2 if it could not be started, 130 after Ctrl-C."""
    log_to_terminal()
    try:
        evaluate(request_from_omegaconf(composed))
    except (DogoError, OSError) as error:
        return tell(error)
    except Exception as error:
        return tell_unexpected(error)
    except KeyboardInterrupt:
        return say("stopped; what was printed with a path is written", EXIT_STOPPED)
    return 0


def evaluate(request: EvaluationRequest) -> None:
    """Runs every protocol of the request, one after the other; prints and writes the scores.

    Scores that can't be written are printed all the same, and so are those that follow.

    Raises:
        DogoError: see `dogo_fed.run.evaluate.evaluate_run`.
        OSError: the folder of the results takes no files; known before anything is computed, or later.
    """
    fix_numerics(request.threads)
    subjects, source, config = _opened(request)
    for protocol, subject in product(request.protocol, subjects):
        check_labels(protocol, request.protocol[protocol], subject.dataset)
    console = _console()
    check_writable(_out(request))
    unwritten: list[OSError] = []
    told: list[DataSet] = []
    for protocol, options in request.protocol.items():
        complete = dict(options)
        if config is not None and request.data is None:
            complete = with_targets(protocol, options, config.data)
        for whose, group in by_dataset(subjects).items():
            with console.status(Text(f"{protocol} ...")):
                sheet = evaluate_subjects(group, protocol, complete, source=source)
            if whose:
                console.print(f"on {one_line(sheet.dataset, 80)}", highlight=False, soft_wrap=True)
            for note in group[0].dataset.notes if group[0].dataset not in told else ():
                console.print(f"note: {one_line(note)}", highlight=False, soft_wrap=True)
            told.append(group[0].dataset)
            console.print(scores_table(sheet))
            try:
                paths = write_sheet(sheet, _out(request), _stem(protocol, request, group) + whose)
            except OSError as error:
                console.print("not written: see the error at the end\n")
                unwritten.append(error)
            else:
                console.print(f"written to {', '.join(map(one_line, paths))}\n", soft_wrap=True)
    if unwritten:
        raise unwritten[0]


def _opened(request: EvaluationRequest) -> tuple[list[Subject], str, RunConfig | None]:
    """Returns the encoders, what they are of, and the settings of their run if they are of one."""
    if request.run is None:
        return [_from_file(request)], str(request.checkpoint), None
    folder = Path(request.run)
    config = load_run_config(folder, trust=bool(request.trust))
    return _from_run(request, folder, config), folder.resolve().name, config


def _console() -> Console:
    """Returns where the tables go. Names and paths in them are anybody's, so they are no markup."""
    console = Console(markup=False, emoji=False)
    return console if console.is_terminal else Console(width=120, markup=False, emoji=False)


def _from_run(request: EvaluationRequest, folder: Path, config: RunConfig) -> list[Subject]:
    """Returns the run's encoders."""
    on = None
    if request.data is not None:
        check_split(config.data, request.data.name, request.data.options)
        on = _data_set(request.data, image_size_of(folder), config.data.options)
    return open_run(
        folder,
        config,
        on=on,
        peers=request.peer_names,
        seed=request.seed,
        device=request.device,
    )


def _from_file(request: EvaluationRequest) -> Subject:
    """Returns the encoder in a weights file."""
    assert request.checkpoint is not None and request.data is not None, "checked by the request"
    file = WeightsFile(
        path=Path(request.checkpoint),
        backbone=request.backbone,
        prefix=request.prefix,
        image_size=request.image_size,
        mean=_numbers(request.mean),
        std=_numbers(request.std),
    )
    dataset = _data_set(request.data, file.image_size or image_size_in(file.path))
    return open_file(file, dataset, seed=request.seed or 0, device=request.device or "auto")


def _data_set(
    data: DataConfig,
    image_size: int | None,
    trained_with: Mapping[str, object] = MappingProxyType({}),
) -> DataSet:
    """Returns a data set, with a test part as a run would have it.

    Args:
        data: names it.
        image_size: side of the images that the encoder was trained with. Where the loader can choose
            the side, it is this one.
        trained_with: the options of the data set that it was trained on. Where the loader has the
            same, and nothing else is named, pixels are made as there.
    """
    wanted: dict[str, object] = {} if image_size is None else {"image_size": image_size}
    usual = PixelOptions()
    for name in _HOW_PIXELS_ARE_MADE:
        if name in trained_with and data.options.get(name) == getattr(usual, name):
            wanted[name] = trained_with[name]
    given = data.options
    changes = {name: one for name, one in wanted.items() if given.get(name, one) != one}
    if changes:
        stored = given.get("stored_size")
        if image_size is not None and isinstance(stored, int) and stored < image_size:
            changes["stored_size"] = None
        told = [f"{name}={one} and not {given[name]}" for name, one in changes.items()]
        logger.info(
            "the images of %s are read as those of the training: %s", data.name, ", ".join(told)
        )
        data = dataclasses.replace(data, options={**given, **changes})
    return dataset_with_test_part(data, EvalConfig().test_share)


def _numbers(values: Sequence[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _out(request: EvaluationRequest) -> Path:
    """Returns the folder of the results."""
    if request.out is not None:
        return Path(request.out)
    assert request.run is not None, "checked by the request"
    return Path(request.run) / layout.EVALUATION


def _stem(protocol: str, request: EvaluationRequest, subjects: Sequence[Subject]) -> str:
    """Returns the files' name: the protocol's, and the data set's if it is not the run's own."""
    title = protocol_title(protocol)
    if request.data is None:
        return title
    return f"{title}-{Path(subjects[0].dataset.title).name}"
