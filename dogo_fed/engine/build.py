"""Builds a peer from its settings. Everything random here is drawn from named streams."""

# N = images, C, H, W = channels and pixels, F = feature dimension

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from dogo_fed import components, seeding
from dogo_fed.config import (
    ComponentConfig,
    ExchangeConfig,
    Gate,
    OptimizerConfig,
    PeerConfig,
    Rows,
    Teacher,
)
from dogo_fed.contracts import PeerId
from dogo_fed.data.augment import build_augmentation
from dogo_fed.data.source import DataSet
from dogo_fed.engine.catalog import OPTIMIZERS
from dogo_fed.engine.peer import Peer
from dogo_fed.errors import CheckpointError, ConfigError, OwnCodeError
from dogo_fed.evaluation import evaluation_mode
from dogo_fed.models.catalog import BACKBONES
from dogo_fed.models.weights import (
    is_weights_file,
    load_weights,
    name_file_in,
    read_weights,
)
from dogo_fed.objectives.base import Objective
from dogo_fed.objectives.catalog import KNOWN
from dogo_fed.storage.peer_folder import PeerFolder


def build_peer(
    peer_id: PeerId,
    settings: PeerConfig,
    *,
    dataset: DataSet,
    run_seed: int,
    device: torch.device,
    backbone: nn.Module | None = None,
    exchange: ExchangeConfig | None = None,
    reads_weights: bool = True,
) -> Peer:
    """Returns the peer with its initial weights, which depend only on the seed and the peer's name.

    Its learning rate stays as it is; `LoadedRun.build_peer` gives it the schedule of a run.

    Args:
        peer_id: the peer's name.
        settings: its own settings.
        dataset: gives image size, channels, normalisation and, for labels, the number of classes.
        run_seed: the run's seed.
        device: where it computes.
        backbone: the user's own module, in place of the one that `settings` names.
        exchange: whose similarities are exchanged, and whether of both view directions; None is one
            direction of what the objective publishes.
        reads_weights: whether `init` and `frozen_from` are read. A checkpoint has these weights too.

    Raises:
        ConfigError: a component is unknown, an option is wrong, the backbone does not give
            features, or a frozen peer's weights can't be loaded.
    """
    notices: list[str] = []
    rows = None if exchange is None else exchange.rows
    try:
        with seeding.stream(run_seed, peer_id, "initialisation"):
            is_own = backbone is not None or not components.is_known(
                settings.backbone.name, BACKBONES
            )
            if backbone is None:
                backbone = build_backbone(settings.backbone, dataset.image_size, len(dataset.mean))
            if settings.init is not None and reads_weights:
                notices = _initialise(backbone, "init", settings.init, settings.weights_prefix)
            feature_dim = _feature_dim(backbone, dataset, is_own=is_own)
            objective = _build_objective(settings.objective, backbone, feature_dim, dataset)
        if rows is not None:
            _choose_rows(objective, settings.objective, rows, dataset)
        source = settings.frozen_from
        is_from_file = source is not None and is_weights_file(Path(source))
        if settings.teacher is Teacher.EMA and not is_from_file:
            objective.keep_average()
        objective.to(device)
        optimizer = components.build(
            "optimizer",
            settings.optimizer.name,
            OPTIMIZERS,
            settings.optimizer.options,
            params=_parameter_groups(objective, settings.optimizer),
        )
        if settings.frozen_from is not None and reads_weights:
            notices = _freeze(objective, peer_id, settings, rows)
        augmentation = build_augmentation(
            settings.augmentation.name,
            settings.augmentation.options,
            dataset.image_size,
            dataset.mean,
            dataset.std,
        )
    except (ConfigError, ValueError, TypeError) as error:
        raise ConfigError(f"peer {peer_id!r}: {error}") from error
    return Peer(
        id=peer_id,
        objective=objective,
        optimizer=cast(torch.optim.Optimizer, optimizer),
        augmentation=augmentation,
        distill_weight=settings.distill_weight,
        rare_distill_weight=settings.rare_distill_weight,
        distill_warmup_steps=settings.distill_warmup_steps,
        reduction=settings.distill_reduction,
        temperature=(
            settings.features_temperature if rows is Rows.FEATURES else settings.kl_temperature
        ),
        teacher_temperature=settings.teacher_temperature,
        teacher_temperature_end=settings.teacher_temperature_end,
        teacher_momentum=settings.teacher_momentum,
        is_symmetric=exchange is not None and exchange.symmetric,
        run_seed=run_seed,
        device=device,
        is_frozen=settings.frozen_from is not None,
        clip_norm=settings.optimizer.clip_norm,
        chunk_size=settings.chunk_size,
        is_gated=settings.gate is Gate.AGREEMENT,
        notices=tuple(notices),
    )


def _parameter_groups(objective: Objective, settings: OptimizerConfig) -> list[Any]:
    """Returns the parameters that learn, or two groups of which one has no weight decay."""
    learning = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    if settings.decay_all:
        return learning
    decayed = [parameter for parameter in learning if parameter.ndim > 1]
    others = [parameter for parameter in learning if parameter.ndim <= 1]
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


def build_backbone(settings: ComponentConfig, image_size: int, in_channels: int) -> nn.Module:
    """Returns the plain backbone for images of this size and number of channels, on the CPU.

    Its initial weights come from torch's default generator.

    Raises:
        ConfigError: the name or an option is unknown, or it builds no module.
    """
    backbone = components.build(
        "backbone",
        settings.name,
        BACKBONES,
        settings.options,
        image_size=image_size,
        in_channels=in_channels,
    )
    if not isinstance(backbone, nn.Module):
        raise ConfigError(
            f"backbone {settings.name!r} gave a {type(backbone).__name__}; it must be a torch "
            "nn.Module"
        )
    return backbone


def _build_objective(
    settings: ComponentConfig, backbone: nn.Module, feature_dim: int, dataset: DataSet
) -> Objective:
    given: dict[str, Any] = {"backbone": backbone, "feature_dim": feature_dim}
    kind = components.resolve("objective", settings.name, KNOWN)
    if getattr(kind, "uses_labels", False):
        given["num_classes"] = _num_classes(settings.name, dataset)
    objective = components.build("objective", settings.name, KNOWN, settings.options, **given)
    if not isinstance(objective, Objective):
        raise ConfigError(
            f"objective {settings.name!r} gave a {type(objective).__name__}; it must be a "
            "dogo_fed.objectives.base.Objective"
        )
    return objective


def _choose_rows(
    objective: Objective, settings: ComponentConfig, rows: Rows, dataset: DataSet
) -> None:
    """Lets an objective learn with, and publish, the embeddings that the run exchanges.

    Raises:
        ConfigError: it has no such embeddings, or a setting of its own says something else.
    """
    if objective.publish not in ("projector", rows.value):
        raise ConfigError(
            f"exchange.rows={rows.value} decides what objective {settings.name!r} publishes, but its "
            f"option publish={objective.publish} says otherwise; leave that out, or type exchange.rows=null"
        )
    objective.learn_with = objective.publish = rows.value
    black_NCHW = torch.zeros(2, len(dataset.mean), dataset.image_size, dataset.image_size)
    with evaluation_mode(objective), torch.no_grad():
        heads = {name.rpartition("_")[0] for name in objective.embed(black_NCHW, black_NCHW)}
    if rows.value not in heads:
        offered = sorted(heads & {choice.value for choice in Rows})
        raise ConfigError(
            f"objective {settings.name!r} has no {rows.value}, which exchange.rows={rows.value} "
            f"exchanges; it has {' and '.join(offered) or 'none of the rows that can be chosen'}. Type "
            "exchange.rows=null to exchange what each objective publishes"
        )


def _num_classes(objective: str, dataset: DataSet) -> int:
    """Returns the number of classes, for an objective that learns them.

    Raises:
        ConfigError: some training images have no label.
    """
    num_unlabelled = int((dataset.train.labels < 0).sum())
    if num_unlabelled:
        raise ConfigError(
            f"objective {objective!r} learns from labels, but {num_unlabelled} of the "
            f"{len(dataset.train)} training images of {dataset.title} have none; leave them out, or "
            "choose a self-supervised objective"
        )
    return dataset.num_classes


def _initialise(backbone: nn.Module, setting: str, path: str, prefix: str | None) -> list[str]:
    """Gives a backbone the weights of a file; returns what a user should know about them.

    Raises:
        ConfigError: the file can't be read, or does not fit the backbone.
    """
    try:
        return load_weights(backbone, read_weights(Path(path)), path, prefix)
    except CheckpointError as error:
        raise ConfigError(f"{setting}={path}: {error}") from error


def _freeze(
    objective: Objective, peer_id: PeerId, settings: PeerConfig, rows: Rows | None
) -> list[str]:
    """Gives a frozen peer the weights that the peer of its name has in another run, or of a file.

    Returns:
        What a user should know about the weights of a file.

    Raises:
        ConfigError: there is nothing there; that run has no checkpoint of this peer, or it is of
            another model; or a file's weights are to teach by a head that they do not have.
    """
    source = settings.frozen_from
    assert source is not None, "this peer is frozen"
    if not Path(source).exists():
        raise ConfigError(f"frozen_from={source}: there is no such weights file or run folder")
    if Path(source).is_file():
        if rows is not Rows.FEATURES:
            raise ConfigError(
                f"frozen_from={source} is a weights file, which has a backbone and no projector. Its "
                "similarities are those of its features: type exchange.rows=features"
            )
        return _initialise(objective.backbone, "frozen_from", source, settings.weights_prefix)
    if settings.weights_prefix is not None:
        raise ConfigError(
            f"weights_prefix={settings.weights_prefix} is about the names in a weights file, and "
            f"frozen_from={source} is a run folder; leave it out"
        )
    folder = PeerFolder(Path(source), peer_id)
    try:
        step = folder.checkpoints.load_weights(objective)
    except CheckpointError as error:
        raise ConfigError(f"frozen_from={source}: {error}") from error
    if step is None:
        raise ConfigError(
            f"frozen_from={source} has no checkpoint of a peer of this name; train it in that run first, "
            f"or, for a file of weights, {name_file_in(Path(source))}"
        )
    return []


def _feature_dim(backbone: nn.Module, dataset: DataSet, *, is_own: bool) -> int:
    """Returns F by passing two black images through the backbone, which leaves it as it was.

    Raises:
        ConfigError: the backbone can't take them, or does not give N x F features. If it is the
            user's own, this is an `OwnCodeError`.
    """
    size = dataset.image_size
    try:
        with evaluation_mode(backbone), torch.no_grad():
            features_NF = backbone(torch.zeros(2, len(dataset.mean), size, size))
    except Exception as error:  # a user's module may fail in any way
        raise (OwnCodeError if is_own else ConfigError)(
            f"the backbone can't take 2 images of {len(dataset.mean)} x {size} x {size}: "
            f"{components.error_in_words(error)}"
        ) from error
    if not isinstance(features_NF, torch.Tensor) or features_NF.ndim != 2 or len(features_NF) != 2:
        shape = tuple(features_NF.shape) if isinstance(features_NF, torch.Tensor) else "no tensor"
        raise ConfigError(
            "the backbone must map N x C x H x W images to N x F features; for 2 images it gave "
            f"{shape}"
        )
    return features_NF.shape[1]
