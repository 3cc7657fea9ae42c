"""An encoder in a weights file, which need not be of a run, opened for protocols."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dogo_fed.components import is_known
from dogo_fed.config import ComponentConfig
from dogo_fed.data.source import DataSet, check_image_facts
from dogo_fed.engine.numerics import resolve_device
from dogo_fed.errors import CheckpointError, ConfigError
from dogo_fed.evaluation.subject import Encoder, Inputs, Subject
from dogo_fed.models.catalog import BACKBONES
from dogo_fed.models.weights import load_weights, read_description, read_weights
from dogo_fed.packages import source_digest
from dogo_fed.plain import from_plain
from dogo_fed.provenance import DataFacts, Provenance, origin_here
from dogo_fed.run.evaluate import initial_backbone, tell_other_origin
from dogo_fed.text import one_line

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """An encoder of the user's own, in a file.

    Attributes:
        path: a .safetensors file, or a .pt file of tensors only.
        backbone: the network that the weights belong to; None takes what the file says, if a run has
            exported it.
        prefix: what stands in front of its names in the file; None looks for it.
        image_size, mean, std: the size and normalisation that it expects; None takes what the file
            says, if a run has exported it, and else the data set's.
    """

    path: Path
    backbone: ComponentConfig | None = None
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
        CheckpointError: the file can't be read, does not fit the backbone, or does not say which it
            is.
    """
    target = resolve_device(device)
    known = _trained_on(file.path, origin_here(target, source_digest()))
    own = known or DataFacts.of(dataset)
    if known is None and None in (file.image_size, file.mean, file.std):
        logger.warning(
            "%s does not say what it was trained with, so size and normalisation are those of %s (%d px, "
            "mean %s, std %s); image_size=, mean= and std= give others",
            file.path,
            one_line(dataset.title, 80),
            file.image_size or own.image_size,
            _rounded(file.mean or own.mean),
            _rounded(file.std or own.std),
        )
    inputs = Inputs(
        image_size=file.image_size or own.image_size,
        mean=file.mean or own.mean,
        std=file.std or own.std,
    )
    try:
        check_image_facts(inputs.image_size, inputs.mean, inputs.std)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    network = _network_of(file.path) if file.backbone is None else file.backbone
    backbone = initial_backbone(network, inputs, seed)
    for notice in load_weights(backbone, read_weights(file.path), str(file.path), file.prefix):
        logger.warning("%s", notice)
    encoder = Encoder(
        name=file.path.stem, backbone=backbone.to(target), inputs=inputs, device=target,
        trained_on=None if known is None else known.fingerprint, batch_size=batch_size,
    )  # fmt: skip
    return Subject(encoder, dataset, seed)


def _rounded(values: Sequence[float]) -> str:
    return f"[{', '.join(f'{value:.3f}' for value in values)}]"


def image_size_in(path: Path) -> int | None:
    """Returns the side of the images that an exported encoder was trained with, if its file says it."""
    try:
        return Provenance.from_plain(read_description(path)).data.image_size
    except CheckpointError:
        return None


def _network_of(path: Path) -> ComponentConfig:
    """Returns the network that an exported encoder says it is of.

    It may be anybody's file, so only networks that this project lists are taken, and no import path.

    Raises:
        CheckpointError: it says none, or another one.
    """
    said = read_description(path).get("network")
    try:
        network = from_plain(ComponentConfig, said, path="network.")
    except ConfigError as error:
        raise CheckpointError(
            f"{path} does not say which network it is of; give it by backbone=<name>"
        ) from error
    if not is_known(network.name, BACKBONES):
        raise CheckpointError(
            f"{path} says that it is of the network {one_line(network.name)!r}, which is somebody's own "
            "code. If you have that code and trust it, give it by backbone=own backbone.name=<import path>"
        )
    return network


def _trained_on(path: Path, here: Mapping[str, str]) -> DataFacts | None:
    """Returns the data set that an exported encoder was trained on; None if the file says nothing.

    What trained it, as far as it was something else than what is here, is logged.
    """
    described = read_description(path)
    if not described:
        return None
    try:
        known = Provenance.from_plain(described)
    except CheckpointError as error:
        logger.warning("%s: what it was trained on can't be read (%s)", path, error)
        return None
    tell_other_origin(str(path), known.origin, here)
    return known.data
