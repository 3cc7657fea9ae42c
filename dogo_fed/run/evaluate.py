"""Evaluates the encoders of a finished run, or a weights file, by a protocol; writes three files.

Nothing else changes: no training stream is drawn from, thread counts and other global settings
stay, and the encoders are checked to be the same afterwards.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dogo_fed import seeding
from dogo_fed.config import ComponentConfig, DataConfig, RunConfig
from dogo_fed.contracts import PeerId, Score
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.held_out import with_test_part
from dogo_fed.data.private import private_images
from dogo_fed.data.source import DataSet
from dogo_fed.engine.build import build_backbone
from dogo_fed.engine.numerics import resolve_device
from dogo_fed.errors import CheckpointError, ConfigError
from dogo_fed.evaluation.protocols import (
    check_protocol,
    complete_options,
    evaluate,
    protocol_title,
)
from dogo_fed.evaluation.subject import Encoder, Inputs, Subject
from dogo_fed.models.weights import load_weights, read_description, read_weights
from dogo_fed.packages import source_digest
from dogo_fed.private_files import private_files
from dogo_fed.provenance import DataFacts, Provenance, check_same_images
from dogo_fed.reporting.score_sheet import ScoreSheet
from dogo_fed.reporting.scores import write_sheet
from dogo_fed.storage.newest_end import check_newest_end
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.provenance_file import read_starts

_log = logging.getLogger(__name__)

FOLDER = "evaluation"
"""The subfolder of the run folder for the files."""


def evaluate_run(
    folder: Path,
    config: RunConfig,
    protocol: str,
    options: Mapping[str, object],
    *,
    dataset: DataSet | None = None,
    peers: Iterable[str] | None = None,
) -> dict[PeerId, list[Score]]:
    """Returns each peer's scores, and writes <folder>/evaluation/<protocol>.json, .csv and .png.

    Peers with private images of their own are evaluated on these, and their names stand in the
    files' names.

    Args:
        folder: folder of a finished run.
        config: the run's configuration, e.g. from `dogo_fed.config_text.load_run_config`.
        protocol: a key of `dogo_fed.evaluation.protocols.PROTOCOLS`, or an import path.
        options: options of the protocol. Without targets, `ood` uses digits for digits_m.
        dataset: the run's data set, if it is loaded already.
        peers: some of the run's peers; None takes all.

    Raises:
        ConfigError: a protocol, option or peer is unknown or impossible.
        DataError: a data set is missing or has no labels.
        CheckpointError: the run has no encoders (yet), they do not fit, or they are of an earlier end.
        EvaluationError: a feature is not finite, or an encoder changed.
    """
    check_protocol(protocol, options)
    subjects = open_run(folder, config, dataset=dataset, peers=peers)
    complete = with_targets(protocol, options, config.data)
    scores: dict[PeerId, list[Score]] = {}
    for whose, group in by_dataset(subjects).items():
        sheet = evaluate_subjects(group, protocol, complete, source=folder.name)
        with private_files():
            write_sheet(sheet, folder / FOLDER, sheet.protocol + whose)
        scores |= {PeerId(name): list(found) for name, found in sheet.scores.items()}
    return {PeerId(one.encoder.name): scores[PeerId(one.encoder.name)] for one in subjects}


def open_run(
    folder: Path,
    config: RunConfig,
    *,
    dataset: DataSet | None = None,
    on: DataSet | None = None,
    peers: Iterable[str] | None = None,
    seed: int | None = None,
) -> list[Subject]:
    """Returns the encoders of a run, in name order, ready for protocols; see `evaluate_run`.

    Args:
        folder: folder of a finished run.
        config: the run's configuration.
        dataset: the run's data set, if it is loaded already.
        on: the data set to evaluate on; None takes a peer's own: that of the run, or the images that
            its settings name.
        peers: some of the run's peers, in this order; None takes all.
        seed: the seed of subsets and noise; None takes the run's.

    Raises:
        ConfigError: there is no such peer.
        CheckpointError: an encoder is missing, does not fit, or is of an earlier end of the run.
        DataError: the run's images are not those that it was trained with. They are looked at only
            where they are evaluated on.
    """
    names = sorted(config.peers) if peers is None else list(dict.fromkeys(peers))
    for name in names:
        if name not in config.peers:
            raise ConfigError(
                f"there is no peer {name!r} in {folder.name}; its peers are "
                f"{', '.join(sorted(config.peers))}"
            )
    home, trained_on = _data_of(folder, config, dataset, is_evaluated_on=on is None)
    device = resolve_device(config.device)
    private: Mapping[str, DataSet] = {}
    if on is None:
        assert home is not None, "the run's own images are loaded if there are no others"
        own = {name: one for name in names if (one := config.peers[name].data) is not None}
        private = private_images(own, home, config.eval.test_share)
    subjects = []
    for name in names:
        facts = _facts_of_peer(folder, name, trained_on)
        inputs = Inputs(image_size=facts.image_size, mean=facts.mean, std=facts.std)
        backbone = _backbone(config.peers[name].backbone, inputs, config.seed)
        PeerFolder(folder, PeerId(name)).load_encoder(backbone)
        encoder = Encoder(
            name=name,
            backbone=backbone.to(device),
            inputs=inputs,
            trained_on=facts.fingerprint,
            linear_stream=(name, "linear probe"),
            device=device,
            batch_size=config.eval.batch_size,
        )
        if on is None:
            _check_images(folder, name, facts, private.get(name), trained_on)
        evaluated = on or private.get(name) or home
        assert evaluated is not None, "see above"
        subjects.append(Subject(encoder, evaluated, config.seed if seed is None else seed))
    return subjects


def by_dataset(subjects: Sequence[Subject]) -> dict[str, list[Subject]]:
    """Returns the subjects that are on the same data set together, under what names their files.

    Where all are on one data set, that is nothing; else it is a hyphen and the encoders' names.
    """
    groups: dict[str, list[Subject]] = {}
    for subject in subjects:
        groups.setdefault(subject.dataset.fingerprint, []).append(subject)
    if len(groups) == 1:
        return {"": list(subjects)}
    return {"".join(f"-{one.encoder.name}" for one in group): group for group in groups.values()}


def open_backbone(folder: Path, config: RunConfig, name: str) -> tuple[torch.nn.Module, DataFacts]:
    """Returns a peer's exported encoder, on the CPU in eval mode, and what it was trained on.

    Args:
        folder: folder of a finished run.
        config: the run's configuration.
        name: the peer.

    Raises:
        ConfigError: there is no such peer.
        CheckpointError: the encoder is missing, does not fit, or is of an earlier end of the run.
        DataError: the run does not say what it was trained on, and its images are not there.
    """
    if name not in config.peers:
        raise ConfigError(
            f"there is no peer {name!r} in {folder.name}; its peers are "
            f"{', '.join(sorted(config.peers))}"
        )
    _, shared = _data_of(folder, config, None, is_evaluated_on=False)
    trained_on = _facts_of_peer(folder, name, shared)
    inputs = Inputs(image_size=trained_on.image_size, mean=trained_on.mean, std=trained_on.std)
    backbone = _backbone(config.peers[name].backbone, inputs, config.seed)
    PeerFolder(folder, PeerId(name)).load_encoder(backbone)
    return backbone.eval(), trained_on


def _facts_of_peer(folder: Path, name: str, shared: DataFacts) -> DataFacts:
    """Returns the facts of what a peer was trained on, as its encoder has them.

    Args:
        folder: the run folder.
        name: the peer.
        shared: those of the run's newest start, for encoders of versions that wrote none.

    Raises:
        CheckpointError: the encoder is of an earlier end of the run.
    """
    path = PeerFolder(folder, PeerId(name)).encoder_path
    described = read_description(path) if path.is_file() else {}
    if "state_digest" in described:
        check_newest_end(folder, name, described["state_digest"])
    try:
        return Provenance.from_plain(described).data
    except CheckpointError:
        return shared


def _check_images(
    folder: Path, name: str, facts: DataFacts, own: DataSet | None, shared: DataFacts
) -> None:
    """Checks that the images to evaluate a peer on are those that it was trained with.

    Shared images are known by their fingerprint: a site's copy may have another name, or other labels.

    Args:
        folder: the run folder.
        name: the peer.
        facts: of what it was trained on.
        own: its private images that are there; None if it has none.
        shared: the facts of the shared images that are there.

    Raises:
        DataError: they are others.
    """
    if own is None and facts.fingerprint == shared.fingerprint:
        return
    check_same_images(
        facts, shared if own is None else DataFacts.of(own), of=f"peer {name} in run {folder.name}",
        instead="name other images by data=<name>",
    )  # fmt: skip


def _data_of(
    folder: Path, config: RunConfig, dataset: DataSet | None, *, is_evaluated_on: bool
) -> tuple[DataSet | None, DataFacts]:
    """Returns a run's data set, if it is needed, and the facts of the one that it was trained with.

    Raises:
        DataError: these are not the same images.
    """
    starts = read_starts(folder)
    if starts and not is_evaluated_on:
        return dataset, starts[-1].provenance.data
    home = with_test_part(
        dataset or build_dataset(config.data.name, config.data.options), config.eval.test_share
    )
    now = Provenance.of(home, resolve_device(config.device), source_digest())
    if not starts:
        return home, now.data
    then = starts[-1].provenance
    check_same_images(
        then.data, now.data, of=f"run {folder.name}", instead="name other images by data=<name>"
    )
    changes = then.changes(now)
    if changes:
        _log.warning("run %s was trained with something else: %s", folder.name, "; ".join(changes))
    return home, then.data


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """An encoder of the user's own, in a file.

    Attributes:
        path: a .safetensors file, or a .pt file of tensors only.
        backbone: the network that the weights belong to.
        prefix: what stands in front of its names in the file; None looks for it.
        image_size, mean, std: the size and normalisation that it expects; None takes what the file
            says, if a run has exported it, and else the data set's.
    """

    path: Path
    backbone: ComponentConfig
    prefix: str | None = None
    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def open_file(
    file: WeightsFile,
    dataset: DataSet,
    *,
    seed: int = 0,
    device: str = "auto",
    batch_size: int = 500,
) -> Subject:
    """Returns the encoder in a file on a data set, ready for protocols.

    Weights in the file that the backbone does not have (a classifier's) are logged as a warning.

    Raises:
        ConfigError: the backbone is unknown, or the input settings are impossible.
        CheckpointError: the file can't be read, or does not fit the backbone.
    """
    known = _trained_on(file.path)
    own = known or DataFacts.of(dataset)
    inputs = Inputs(
        image_size=file.image_size or own.image_size,
        mean=file.mean or own.mean,
        std=file.std or own.std,
    )
    if len(inputs.mean) != len(inputs.std) or not all(deviation > 0 for deviation in inputs.std):
        raise ConfigError(
            "mean and std need a number for each channel, and std above 0, not "
            f"{list(inputs.mean)} and {list(inputs.std)}"
        )
    backbone = _backbone(file.backbone, inputs, seed)
    for notice in load_weights(backbone, read_weights(file.path), str(file.path), file.prefix):
        _log.warning("%s", notice)
    target = resolve_device(device)
    encoder = Encoder(
        name=file.path.stem, backbone=backbone.to(target), inputs=inputs, device=target,
        trained_on=None if known is None else known.fingerprint, batch_size=batch_size,
    )  # fmt: skip
    return Subject(encoder, dataset, seed)


def _trained_on(path: Path) -> DataFacts | None:
    """Returns the data set that an exported encoder was trained on; None if the file says nothing."""
    described = read_description(path)
    if not described:
        return None
    try:
        return Provenance.from_plain(described).data
    except CheckpointError as error:
        _log.warning(
            "%s does not say what it was trained on (%s); size and normalisation are those of the "
            "data set, unless image_size=, mean= and std= give others",
            path,
            error,
        )
        return None


def evaluate_subjects(
    subjects: Sequence[Subject], protocol: str, options: Mapping[str, object], *, source: str
) -> ScoreSheet:
    """Returns the scores of encoders on one data set; writes nothing.

    Args:
        subjects: one or more; they keep their features, so further protocols are cheaper.
        protocol: a key of `dogo_fed.evaluation.protocols.PROTOCOLS`, or an import path.
        options: options of the protocol.
        source: the run's name, or the weights file, for the reports.

    Raises:
        ConfigError, DataError, EvaluationError: see `evaluate_run`.
    """
    recorded = complete_options(protocol, options)
    title = protocol_title(protocol)
    scores = {}
    for subject in subjects:
        _log.info("%s of %s on %s", title, subject.encoder.name, subject.dataset.name)
        scores[subject.encoder.name] = evaluate(subject, protocol, options)
    first = subjects[0]
    return ScoreSheet(
        protocol=title,
        source=source,
        dataset=first.dataset.name,
        fingerprint=first.dataset.fingerprint,
        seed=first.seed,
        options={key: _recorded(value) for key, value in recorded.items()},
        scores=scores,
    )


def with_targets(
    protocol: str, options: Mapping[str, object], data: DataConfig
) -> dict[str, object]:
    """Returns the options of a protocol; for digits_m, `ood` gets the target digits by default.

    Raises:
        ConfigError: see `check_split`.
    """
    given = options.get("targets") or ()
    if protocol != "ood" or data.name != "digits_m":
        return dict(options)
    if not given:
        return {**options, "targets": [{"name": "digits", "options": _seed_of(data.options)}]}
    for target in given if isinstance(given, Sequence) else [given]:
        if isinstance(target, str):
            check_split(data, target, {})
        elif isinstance(target, Mapping):
            check_split(data, str(target.get("name")), target.get("options") or {})
    return dict(options)


def check_split(home: DataConfig, name: str, options: Mapping[str, object]) -> None:
    """Checks that the test images of a data set are not training images of `home`.

    Raises:
        ConfigError: they are digits_m and digits with different seeds, so their splits differ.
    """
    if home.name != "digits_m" or name != "digits":
        return
    theirs, ours = _seed_of(home.options)["seed"], _seed_of(options)["seed"]
    if theirs != ours:
        raise ConfigError(
            f"digits with seed {ours} would test digits that digits_m with seed {theirs} trained "
            f"on; set the option seed of digits to {theirs}"
        )


def _seed_of(options: Mapping[str, object]) -> dict[str, object]:
    """Returns only the seed of a data set's options."""
    return {"seed": options.get("seed", 0)}


def _backbone(settings: ComponentConfig, inputs: Inputs, seed: int) -> torch.nn.Module:
    """Returns the backbone with initial weights, which the caller replaces."""
    with seeding.stream(seed, "evaluation", "initialisation"):
        return build_backbone(settings, inputs.image_size, len(inputs.mean))


def _recorded(value: object) -> object:
    """Returns an option as plain values, as the score sheet records it."""
    if isinstance(value, DataSet):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): _recorded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_recorded(item) for item in value]
    return value
