"""Evaluates the encoders of a finished run by a protocol; writes three files.

Nothing else changes: no training stream is drawn from, thread counts and other global settings
stay, and the encoders are checked to be the same afterwards.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from dogo_fed import layout, seeding
from dogo_fed.atomic import check_writable
from dogo_fed.config import ComponentConfig, RunConfig
from dogo_fed.contracts import PeerId, Score
from dogo_fed.data.held_out import dataset_with_test_part, with_test_part
from dogo_fed.data.private import other_anchors, private_images, set_of_anchors
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
from dogo_fed.evaluation.protocols.ood import with_loaded_targets, with_targets
from dogo_fed.evaluation.subject import Encoder, Inputs, Subject
from dogo_fed.models.weights import read_description
from dogo_fed.packages import source_digest
from dogo_fed.private_files import private_files
from dogo_fed.provenance import (
    DataFacts,
    Provenance,
    changed_origin,
    check_same_images,
    origin_here,
)
from dogo_fed.reporting.score_sheet import ScoreSheet
from dogo_fed.reporting.scores import write_sheet
from dogo_fed.storage.newest_end import check_newest_end
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.provenance_file import read_starts

logger = logging.getLogger(__name__)


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
        options: options of the protocol; see `protocols.ood.with_targets` for those that follow from
            the run's data set.
        dataset: the run's data set, if it is loaded already.
        peers: some of the run's peers; None takes all.

    Raises:
        ConfigError: a protocol, option or peer is unknown or impossible.
        DataError: a data set is missing or has no labels.
        CheckpointError: the run has no encoders (yet), they do not fit, or they are of an earlier end.
        EvaluationError: a feature is not finite, or an encoder changed.
        OSError: the folder takes no files; known before anything is computed.
    """
    check_protocol(protocol, options)
    subjects = open_run(folder, config, dataset=dataset, peers=peers)
    with private_files():
        check_writable(folder / layout.EVALUATION)
    complete = with_targets(protocol, options, config.data)
    scores: dict[PeerId, list[Score]] = {}
    for whose, group in by_dataset(subjects).items():
        sheet = evaluate_subjects(group, protocol, complete, source=folder.name)
        with private_files():
            write_sheet(sheet, folder / layout.EVALUATION, sheet.protocol + whose)
        scores |= {PeerId(name): list(found) for name, found in sheet.scores.items()}
    return {
        PeerId(subject.encoder.name): scores[PeerId(subject.encoder.name)] for subject in subjects
    }


def open_run(
    folder: Path,
    config: RunConfig,
    *,
    dataset: DataSet | None = None,
    on: DataSet | None = None,
    peers: Iterable[str] | None = None,
    seed: int | None = None,
    device: str | None = None,
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
        device: "auto", "cpu" or "cuda"; None takes the run's.

    Raises:
        ConfigError: there is no such peer, or no such device here.
        CheckpointError: an encoder is missing, does not fit, or is of an earlier end of the run.
        DataError: the run's images are not those that it was trained with. They are looked at only
            where they are evaluated on.
    """
    if device is not None:
        config = dataclasses.replace(config, device=device)
    names = sorted(config.peers) if peers is None else list(dict.fromkeys(peers))
    for name in names:
        _check_peer(folder, config, name)
    home, trained_on = _data_of(folder, config, dataset, is_evaluated_on=on is None)
    on_device = resolve_device(config.device)
    _tell_other_origin(folder, origin_here(on_device, source_digest()))
    private: Mapping[str, DataSet] = {}
    if on is None:
        assert home is not None, "the run's own images are loaded if there are no others"
        own = {name: data for name in names if (data := config.peers[name].data) is not None}
        drawn_from = (other_anchors(config, home) if own else None) or home
        private = private_images(own, drawn_from, config.eval.test_share, set_of_anchors(config))
    subjects = []
    for name in names:
        backbone, inputs, facts = _opened(folder, config, name, trained_on)
        encoder = Encoder(
            name=name,
            backbone=backbone.to(on_device),
            inputs=inputs,
            trained_on=facts.fingerprint,
            linear_stream=(name, "linear probe"),
            device=on_device,
            batch_size=config.eval.batch_size,
            state_digest=PeerFolder(folder, PeerId(name)).encoder_state(),
        )
        if on is None:
            _check_images(folder, name, facts, private.get(name), trained_on)
        evaluated = on or private.get(name) or home
        assert evaluated is not None, "see above"
        subjects.append(Subject(encoder, evaluated, config.seed if seed is None else seed))
    return subjects


def image_size_of(folder: Path) -> int | None:
    """Returns the side of the images that a run was trained with; None if its folder does not say."""
    starts = read_starts(folder)
    return starts[-1].provenance.data.image_size if starts else None


def by_dataset(subjects: Sequence[Subject]) -> dict[str, list[Subject]]:
    """Returns the subjects that are on the same data set together, under what names their files.

    Where all are on one data set, that is nothing; else it is a hyphen and the encoders' names.
    """
    groups: dict[str, list[Subject]] = {}
    for subject in subjects:
        groups.setdefault(subject.dataset.fingerprint, []).append(subject)
    if len(groups) == 1:
        return {"": list(subjects)}
    return {
        "".join(f"-{subject.encoder.name}" for subject in group): group for group in groups.values()
    }


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
    _check_peer(folder, config, name)
    _, shared = _data_of(folder, config, None, is_evaluated_on=False)
    backbone, _, trained_on = _opened(folder, config, name, shared)
    return backbone.eval(), trained_on


def _check_peer(folder: Path, config: RunConfig, name: str) -> None:
    """Raises ConfigError if a run has no such peer."""
    if name not in config.peers:
        raise ConfigError(
            f"there is no peer {name!r} in {folder.name}; its peers are "
            f"{', '.join(sorted(config.peers))}"
        )


def _opened(
    folder: Path, config: RunConfig, name: str, trained_on: DataFacts
) -> tuple[torch.nn.Module, Inputs, DataFacts]:
    """Returns a peer's exported encoder, on the CPU, what it expects, and what it was trained on.

    Args:
        folder: folder of a finished run.
        config: the run's configuration.
        name: the peer.
        trained_on: the facts of the run's newest start, for encoders of versions that wrote none.

    Raises:
        CheckpointError: the encoder is missing, does not fit, or is of an earlier end of the run.
    """
    facts = _facts_of_peer(folder, name, trained_on)
    inputs = Inputs(image_size=facts.image_size, mean=facts.mean, std=facts.std)
    backbone = initial_backbone(config.peers[name].backbone, inputs, config.seed)
    PeerFolder(folder, PeerId(name)).load_encoder(backbone)
    return backbone, inputs, facts


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
    share = config.eval.test_share
    home = (
        dataset_with_test_part(config.data, share)
        if dataset is None
        else with_test_part(dataset, share)
    )
    now = DataFacts.of(home)
    if not starts:
        return home, now
    then = starts[-1].provenance.data
    check_same_images(
        then, now, of=f"run {folder.name}", instead="name other images by data=<name>"
    )
    return home, then


def _tell_other_origin(folder: Path, here: Mapping[str, str]) -> None:
    """Says what trained a run, as far as it was something else than what evaluates it."""
    starts = read_starts(folder)
    if starts:
        tell_other_origin(f"run {folder.name}", starts[-1].provenance.origin, here)


def tell_other_origin(what: str, then: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Logs what something was trained with, as far as it is not what is here.

    Args:
        what: a run or a file.
        then: its origin, see `Provenance.origin`.
        here: that of this process.
    """
    changes = changed_origin(then, here)
    if changes:
        logger.warning("%s was trained with something else: %s", what, "; ".join(changes))


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
    loaded = with_loaded_targets(protocol, options)
    scores = {}
    for subject in subjects:
        logger.info("%s of %s on %s", title, subject.encoder.name, subject.dataset.title)
        scores[subject.encoder.name] = evaluate(subject, protocol, loaded)
    first = subjects[0]
    first.tell_if_enlarged()
    return ScoreSheet(
        protocol=title,
        source=source,
        dataset=first.dataset.title,
        fingerprint=first.dataset.fingerprint,
        seed=first.seed,
        options={key: _recorded(value) for key, value in recorded.items()},
        scores=scores,
        origin=origin_here(first.encoder.device, source_digest()),
        states={one.encoder.name: one.encoder.state_digest for one in subjects},
        targets={target.title: DataFacts.of(target) for target in _data_sets(loaded)},
    )


def initial_backbone(settings: ComponentConfig, inputs: Inputs, seed: int) -> torch.nn.Module:
    """Returns the backbone with initial weights, which the caller replaces."""
    with seeding.stream(seed, "evaluation", "initialisation"):
        return build_backbone(settings, inputs.image_size, len(inputs.mean))


def _data_sets(options: Mapping[str, object]) -> list[DataSet]:
    """Returns the data sets among the targets of a protocol."""
    targets = options.get("targets")
    if not isinstance(targets, Sequence):
        return []
    return [target for target in targets if isinstance(target, DataSet)]


def _recorded(value: object) -> object:
    """Returns an option as plain values, as the score sheet records it."""
    if isinstance(value, DataSet):
        return value.title
    if isinstance(value, Mapping):
        return {str(key): _recorded(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_recorded(item) for item in value]
    return value
