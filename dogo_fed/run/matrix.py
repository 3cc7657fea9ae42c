"""Every encoder of a run on every site's own images: whose features serve whom."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dogo_fed import layout
from dogo_fed.atomic import check_writable, write_atomic
from dogo_fed.config import EvalConfig, RunConfig
from dogo_fed.data.labels import num_labelled, why_no_accuracy
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.guard import frozen
from dogo_fed.evaluation.knn import fitting_k
from dogo_fed.evaluation.protocols.knn import knn
from dogo_fed.evaluation.subject import Subject
from dogo_fed.private_files import private_files
from dogo_fed.reporting.pictures.matrix_picture import draw_matrix
from dogo_fed.reporting.units import UNKNOWN
from dogo_fed.run.evaluate import open_run
from dogo_fed.run.weights_file import WeightsFile, open_file


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """kNN accuracies, encoders by sites.

    Attributes:
        accuracies: encoder to site to top-1, 0 to 1; NaN where a site's images give no accuracy.
        sizes: site to the number of its training images, which are the neighbours.
        reasons: site to why it has no accuracy.
    """

    accuracies: Mapping[str, Mapping[str, float]]
    sizes: Mapping[str, int]
    reasons: Mapping[str, str]

    def to_csv(self) -> str:
        """Returns a line for each encoder and site; an empty field for no number."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["encoder", "site", "site_images", "knn_top1"])
        for encoder, row in self.accuracies.items():
            for site, value in row.items():
                number = "" if math.isnan(value) else repr(value)
                writer.writerow([encoder, site, self.sizes[site], number])
        return text.getvalue()

    def to_markdown(self) -> str:
        """Returns the table to read, in percent; a site's own encoder stands in bold."""
        sites = list(self.sizes)
        lines = [
            "| encoder of | "
            + " | ".join(f"on {site} ({self.sizes[site]})" for site in sites)
            + " |",
            "|---" * (len(sites) + 1) + "|",
        ]
        for encoder, row in self.accuracies.items():
            cells = [_percent(row[site], is_own=site == encoder) for site in sites]
            lines.append(f"| {encoder} | " + " | ".join(cells) + " |")
        notes = [
            "kNN, top-1 in percent. A column is a site's own images: its training images, whose number "
            "stands beside it, are the neighbours, and its test images are counted."
        ]
        notes += [f"No accuracy on {site}: {why}." for site, why in self.reasons.items()]
        return "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n"


def matrix_of_run(folder: Path, config: RunConfig, encoders: Sequence[Path] = ()) -> Matrix:
    """Returns the matrix of a finished run; `write_matrix` writes it.

    All private images that the configuration names must be readable here. The folder of a run on one
    machine has those of all sites. A site's folder has its own: there, `encoders` are what others have
    given it, and the matrix is that site's column of the whole one.

    Args:
        folder: the run folder.
        config: the run's configuration, e.g. from `dogo_fed.config_text.load_run_config`.
        encoders: files that other runs or sites have exported; a row each, named like the file.

    Raises:
        ConfigError: no peer has private images.
        CheckpointError: the run has no encoders (yet), or they do not fit; or one of the files does
            not say what it is.
        DataError: a data set is missing or broken, or is not that of the run.
        OSError: the folder takes no files; known before anything is computed.
    """
    if not any(map(config.has_private, config.peers)):
        raise ConfigError(
            f"the peers of {folder.name} have no private images, so a matrix would have one column; "
            f"type dogo-fed evaluate run={folder}"
        )
    run = load_run(config)
    with private_files():
        check_writable(folder / layout.EVALUATION)
    sites = {name: roles.own for name, roles in sorted(run.private.items())}
    whole = run.data.evaluated
    reasons = {
        site: why for site, data in sites.items() if (why := why_no_accuracy(data)) is not None
    }
    accuracies: dict[str, dict[str, float]] = {}
    given = [open_file(WeightsFile(path=path), whole, device=config.device) for path in encoders]
    subjects = [*open_run(folder, config, dataset=whole), *given]
    _check_names(subjects)
    for subject in subjects:
        row = accuracies.setdefault(subject.encoder.name, {})
        for site, data in sites.items():
            row[site] = math.nan if site in reasons else _knn(subject.on(data), config.eval)
    return Matrix(
        accuracies=accuracies,
        sizes={site: len(data.train) for site, data in sites.items()},
        reasons=reasons,
    )


def write_matrix(found: Matrix, folder: Path) -> list[Path]:
    """Writes evaluation/matrix.csv, .md and .png in a run folder; returns their paths."""
    paths = [folder / layout.EVALUATION / f"matrix.{suffix}" for suffix in ("csv", "md", "png")]
    with private_files():
        write_atomic(paths[0], found.to_csv())
        write_atomic(paths[1], found.to_markdown())
        draw_matrix(found.accuracies, paths[2])
    return paths


def _check_names(subjects: Sequence[Subject]) -> None:
    """Raises ConfigError if two encoders have one name."""
    names = [subject.encoder.name for subject in subjects]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"two encoders are named {twice}; rename the file {twice}.safetensors")


def _knn(subject: Subject, settings: EvalConfig) -> float:
    """Returns the accuracy on a site's images, with the run's settings as far as they reach."""
    k = fitting_k(settings.knn_k, num_labelled(subject.dataset.train.labels))
    with frozen(subject.encoder.backbone):
        (score,) = knn(subject, k=k, temperature=settings.knn_temperature)
    return score.value


def _percent(value: float, *, is_own: bool) -> str:
    text = UNKNOWN if math.isnan(value) else f"{100 * value:.1f}"
    return f"**{text}**" if is_own else text
