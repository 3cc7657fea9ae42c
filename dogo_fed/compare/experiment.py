"""What is compared: methods, peers, data sets, seeds, and the settings that all of them share."""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dogo_fed.baselines.catalog import BASELINES, baseline_class
from dogo_fed.compare.settings import differing, flat, is_of_teaching, teaching_settings
from dogo_fed.config import (
    AnchorsAt,
    ComponentConfig,
    Gate,
    Host,
    LossOn,
    PartitionConfig,
    PeerConfig,
    Precision,
    RunConfig,
    Teacher,
)
from dogo_fed.config.without_effect import without_effect
from dogo_fed.engine.fit import USUAL_STEPS_PER_ROUND
from dogo_fed.errors import ConfigError

_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Method(enum.Enum):
    """How the peers of a cell learn, all by the same session.

    PRIVATE: each alone, from its private images, without the anchors.
    SOLO: each alone, exchange off; with private images, from these and the anchors.
    OFFLINE: one from the others, which were trained alone and stay frozen: two-stage distillation.
    TEACHER: each from the teachers from outside alone (weights files), and not from the other peers.
    DOGO: all from each other; with private images, about the anchors.
    FEDAVG, FEDX, FLESD, FCCL: what people would use instead (`dogo_fed.baselines`).
    CENTRAL: each alone, from all images in one place: what partners who may not pool them can't have.
    SUPERVISED: each alone, from labels.
    """

    PRIVATE = "private"
    SOLO = "solo"
    OFFLINE = "offline"
    TEACHER = "teacher"
    DOGO = "dogo"
    FEDAVG = "fedavg"
    FEDX = "fedx"
    FLESD = "flesd"
    FCCL = "fccl"
    CENTRAL = "central"
    SUPERVISED = "supervised"

    @property
    def is_baseline(self) -> bool:
        """Whether it stands in place of the exchange; it is called like its baseline."""
        return self.value in BASELINES

    @property
    def has_own_loss(self) -> bool:
        """Whether its peers learn by a loss of the method in place of their own objective."""
        if self.is_baseline:
            return baseline_class(self.value).has_own_loss
        return self is Method.SUPERVISED


BASELINE_METHODS = tuple(method for method in Method if method.is_baseline)
"""In the order of the columns."""


@dataclass(frozen=True, slots=True)
class Column:
    """What is compared with what: a method, or a variant of DoGo.

    Attributes:
        variant: for Method.DOGO, the name of the variant; None is the experiment's own settings.
    """

    method: Method
    variant: str | None = None

    @property
    def name(self) -> str:
        """E.g. "solo", "dogo", "dogo-rare"."""
        return self.method.value if self.variant is None else f"{self.method.value}-{self.variant}"


SOLO = Column(Method.SOLO)
DOGO = Column(Method.DOGO)
OFFLINE = Column(Method.OFFLINE)


class Runner(enum.Enum):
    """Where cells are run.

    PROCESSES: each in a process of this machine.
    RAY: each as a Ray task, wherever the cluster has room.
    """

    PROCESSES = "processes"
    RAY = "ray"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a cell of this experiment takes; None where nobody has measured or reckoned it.

    Attributes:
        cpu_cell_s: seconds of one cell on CPU cores, one thread.
        gpu_cell_s: seconds of one cell on one GPU.
        measured_on: machine and month, if whole cells were timed.
        reckoned_from: what the seconds were reckoned from, if no whole cell was timed.
    """

    cpu_cell_s: float | None = None
    gpu_cell_s: float | None = None
    measured_on: str | None = None
    reckoned_from: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One comparison.

    Attributes:
        name: of the experiment.
        methods: columns of the table.
        seeds: every method is run with each of them, which makes the pairs.
        peers: configurations of the group `peers`; rows of the table.
        data: configurations of the group `data`.
        overrides: settings that all cells share, as on the command line.
        variants: DoGo with other settings of the teaching, by name: overrides on top of `overrides`.
        protocols: evaluations after training, by name, with their options.
        baselines: options of the methods that are baselines, by name.
        not_counted: peers that are broken, or unlike the others, on purpose. They have their rows, but
            where all peers are taken together they do not count.
        expected: what it takes.
    """

    name: str
    methods: Sequence[Method]
    seeds: Sequence[int]
    peers: Sequence[str]
    data: Sequence[str]
    overrides: Sequence[str] = ()
    variants: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    protocols: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    baselines: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: MappingProxyType({}))
    not_counted: Sequence[str] = ()
    expected: Expected = field(default_factory=Expected)

    def __post_init__(self) -> None:
        """Checks what can be checked without composing anything."""
        for what, values in (
            ("methods", self.methods),
            ("seeds", self.seeds),
            ("peers", self.peers),
            ("data", self.data),
        ):
            if not values:
                raise ConfigError(f"a comparison needs at least one of {what}, but it is empty")
            if len(set(values)) != len(values):
                raise ConfigError(f"{what} names something twice: {_listed(values)}")
        strangers = sorted(set(self.baselines) - set(BASELINES))
        if strangers:
            raise ConfigError(
                f"baselines.{strangers[0]}: there is no such baseline; there are "
                f"{_listed(BASELINE_METHODS)}"
            )
        for label in (*self.peers, *self.data):
            if not _LABEL.fullmatch(label):
                raise ConfigError(
                    f"{label!r} can't be a folder's name; peers and data are names of configurations"
                )
        for name, overrides in self.variants.items():
            if not _LABEL.fullmatch(name):
                raise ConfigError(
                    f"{name!r} can't be a folder's name; a variant is called by letters, digits and ._-"
                )
            if not overrides:
                raise ConfigError(f"variant {name!r} changes nothing: give it a list of settings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One run of a comparison, and an ordinary run folder.

    Attributes:
        student: for Method.OFFLINE, the one peer that learns.
        config: the run; its `run_dir` is the cell's folder.
        needs: identifiers of the cells that must be finished before.
    """

    column: Column
    peers: str
    data: str
    seed: int
    student: str | None
    config: RunConfig
    needs: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """The cell's name, and its folder below cells/."""
        return _cell_id(self.column, self.student, self.peers, self.data, self.seed)

    @property
    def folder(self) -> Path:
        """The cell's run folder."""
        assert self.config.run_dir is not None, "a cell has a folder"
        return Path(self.config.run_dir)

    @property
    def learners(self) -> tuple[str, ...]:
        """The peers whose scores the cell gives."""
        if self.student is not None:
            return (self.student,)
        return tuple(_learners(self.config))


def plan_cells(
    experiment: Experiment,
    out: Path,
    configs: Mapping[tuple[str, str, int], RunConfig],
    variants: Mapping[tuple[str, str, str, int], RunConfig] = MappingProxyType({}),
) -> list[Cell]:
    """Returns all cells, each after those that it needs: seed by seed, so that pairs are whole early.

    Solo cells are there whenever `offline` is compared, since they make its teachers.

    Args:
        experiment: what is compared.
        out: folder of the comparison.
        configs: (peers, data, seed) to the settings that the cells of all methods share.
        variants: (variant, peers, data, seed) to the settings of the variant's cell.

    Raises:
        ConfigError: a method is impossible with these settings, a variant changes what solo has too, or
            there is no such peer as one that is not to count.
    """
    _check_not_counted(experiment.not_counted, configs.values())
    wanted = [method for method in Method if method in _with_teachers(experiment.methods)]
    cells = []
    for seed in experiment.seeds:
        for peers in experiment.peers:
            for data in experiment.data:
                config = configs[peers, data, seed]
                _check(config, experiment.methods)
                for method in wanted:
                    options = experiment.baselines.get(method.value, {})
                    cells += _cells_of(method, peers, data, config, out, options)
                for name in experiment.variants:
                    cells.append(
                        _variant_cell(
                            name, peers, data, config, variants[name, peers, data, seed], out
                        )
                    )
    return cells


def _check_not_counted(names: Sequence[str], configs: Iterable[RunConfig]) -> None:
    known = {peer for config in configs for peer in config.peers}
    strangers = [name for name in names if name not in known]
    if strangers:
        raise ConfigError(
            f"not_counted names {strangers[0]!r}, but the peers are {', '.join(sorted(known))}; type "
            "not_counted=[] if all of them count"
        )


def _with_teachers(methods: Iterable[Method]) -> set[Method]:
    found = set(methods)
    return found | {Method.SOLO} if Method.OFFLINE in found else found


def _cells_of(
    method: Method,
    peers: str,
    data: str,
    config: RunConfig,
    out: Path,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> list[Cell]:
    cell = partial(_cell, Column(method), peers, data, out)
    if method is Method.SOLO:
        return [cell(_exchanging(_without_teachers(config), False))]
    if method is Method.DOGO:
        return [cell(_exchanging(config, True))]
    if method is Method.TEACHER:
        return [cell(_taught_from_outside(config))]
    if method is Method.PRIVATE:
        alone = _exchanging(_without_teachers(config), False)
        return [cell(_loss_on_all(dataclasses.replace(alone, anchor_share=0.0)))]
    if method is Method.CENTRAL:
        return [cell(_in_one_place(_exchanging(_without_teachers(config), False)))]
    if method.is_baseline:
        return [cell(_by_baseline(_without_teachers(config), method, options))]
    if method is Method.SUPERVISED:
        labels = ComponentConfig(name="supervised")
        alone = _without_teachers(config)
        changed = {
            name: dataclasses.replace(peer, objective=labels) for name, peer in alone.peers.items()
        }
        return [cell(_exchanging(dataclasses.replace(alone, peers=changed), False))]
    teachers = _cell_id(SOLO, None, peers, data, config.seed)
    return [
        cell(_taught_by(config, student, str(out / "cells" / teachers)), student, (teachers,))
        for student in _learners(config)
    ]


def _by_baseline(config: RunConfig, method: Method, options: Mapping[str, Any]) -> RunConfig:
    """Returns the settings with a baseline in place of the exchange, and without DoGo's teaching."""
    baseline = ComponentConfig(name=method.value, options=dict(options))
    objective_for = baseline_class(method.value).objective_for
    peers = {
        name: dataclasses.replace(
            peer, objective=objective_for(peer.objective), gate=Gate.NONE, teacher=Teacher.LIVE
        )
        for name, peer in config.peers.items()
    }
    alone = _exchanging(config, False)
    return dataclasses.replace(alone, baseline=baseline, peers=peers, host=Host.LOCAL)


def _learners(config: RunConfig) -> list[str]:
    """Returns the peers that learn, in name order."""
    return sorted(name for name, peer in config.peers.items() if peer.frozen_from is None)


def _without_teachers(config: RunConfig) -> RunConfig:
    """Returns the settings without the teachers that come from outside, in weights files."""
    learners = {name: config.peers[name] for name in _learners(config)}
    if len(learners) == len(config.peers):
        return config
    # Who learns from whom may name them, and where they are left out nobody learns from anybody.
    exchange = dataclasses.replace(config.exchange, graph=None)
    return dataclasses.replace(config, peers=learners, exchange=exchange)


def _taught_from_outside(config: RunConfig) -> RunConfig:
    """Returns the settings with the teachers from outside as the only ones, at the weights they have."""
    exchange, learners = config.exchange, _learners(config)
    outside = [name for name in config.peers if name not in learners]
    weights = exchange.graph
    if weights is None:
        weights = dict.fromkeys(learners, dict.fromkeys(outside, 1.0))
    taught = {
        name: {one: weight for one, weight in weights.get(name, {}).items() if one in outside}
        for name in learners
    }
    graph = {name: teachers for name, teachers in taught.items() if any(teachers.values())}
    if not graph:
        raise ConfigError(
            "teacher is about peers that learn from a public encoder alone; name one by "
            "peers.<name>.frozen_from=<weights file>, or leave out teacher"
        )
    return dataclasses.replace(
        config, exchange=dataclasses.replace(exchange, enabled=True, graph=graph)
    )


def _loss_on_all(config: RunConfig) -> RunConfig:
    """Returns the settings with every peer's own loss on all images of a pass."""
    peers = {
        name: dataclasses.replace(peer, ssl_on=LossOn.BOTH) for name, peer in config.peers.items()
    }
    return dataclasses.replace(config, peers=peers)


def _in_one_place(config: RunConfig) -> RunConfig:
    """Returns the settings without a partition; rounds stay as long as with one."""
    return dataclasses.replace(
        _loss_on_all(config),
        partition=PartitionConfig(),
        anchor_share=None,
        anchors_at=AnchorsAt.EVERY_STEP,
        steps_per_round=config.steps_per_round or USUAL_STEPS_PER_ROUND,
    )


def _variant_cell(
    name: str, peers: str, data: str, shared: RunConfig, config: RunConfig, out: Path
) -> Cell:
    """Returns the cell of DoGo under a variant's settings.

    Raises:
        ConfigError: the variant changes more than the teaching, so that solo is no reference for it;
            or a setting of it has no effect.
    """
    _check(config, [Method.DOGO])
    changed = differing(flat(shared), flat(config))
    others = [key for key in changed if not is_of_teaching(key, shared)]
    if others:
        raise ConfigError(
            f"variant {name!r} changes {', '.join(others)}, which a peer alone has too, so the solo cells "
            f"are no reference for it. A variant may set {teaching_settings()}; for anything else run a "
            "second comparison with its own out="
        )
    dogo = _exchanging(config, True)
    # A sentence begins with its setting. One of the shared settings may be idle in a variant.
    idle = [one for one in without_effect(dogo) if one.partition(" ")[0] in changed]
    if idle:
        raise ConfigError(f"variant {name!r}: {'; '.join(idle)}")
    return _cell(Column(Method.DOGO, name), peers, data, out, dogo)


def _cell(
    column: Column,
    peers: str,
    data: str,
    out: Path,
    settings: RunConfig,
    student: str | None = None,
    needs: tuple[str, ...] = (),
) -> Cell:
    """Returns a cell whose run has these settings, in its own folder."""
    folder = out / "cells" / _cell_id(column, student, peers, data, settings.seed)
    return Cell(
        column=column,
        peers=peers,
        data=data,
        seed=settings.seed,
        student=student,
        config=dataclasses.replace(settings, run_dir=str(folder)),
        needs=needs,
    )


def _taught_by(config: RunConfig, student: str, teachers: str) -> RunConfig:
    """Returns the settings of a cell in which all but the student are frozen."""
    peers: dict[str, PeerConfig] = {
        name: (
            peer
            if name == student or peer.frozen_from is not None
            else dataclasses.replace(peer, init=None, weights_prefix=None, frozen_from=teachers)
        )
        for name, peer in config.peers.items()
    }
    return _exchanging(dataclasses.replace(config, peers=peers), True)


def _exchanging(config: RunConfig, enabled: bool) -> RunConfig:
    return dataclasses.replace(
        config, exchange=dataclasses.replace(config.exchange, enabled=enabled)
    )


def _check(config: RunConfig, methods: Collection[Method]) -> None:
    if config.precision is Precision.AUTO:
        raise ConfigError(
            "precision=auto may choose otherwise in each cell, and cells would not be paired; name fp32 "
            "or bf16"
        )
    if len(config.peers) < 2 and {Method.DOGO, Method.OFFLINE} & set(methods):
        raise ConfigError(
            "dogo and offline need at least 2 peers that teach each other, but there is only "
            f"{', '.join(config.peers)}; choose other peers=, or methods=[solo]"
        )
    if not config.partition.is_private and Method.CENTRAL in methods:
        raise ConfigError(
            "central is about a data set that is cut into anchors and private images, so that all can be "
            "put in one place again; add partition=dirichlet (or iid, classes), or leave out central"
        )
    apart = [name for name, peer in config.peers.items() if peer.data is not None]
    if apart and Method.CENTRAL in methods:
        raise ConfigError(
            f"central puts all images in one place, and those of peer {apart[0]} are of another data set "
            f"(peers.{apart[0]}.data); leave out central"
        )
    without = [name for name in _learners(config) if not config.has_private(name)]
    if without and Method.PRIVATE in methods:
        raise ConfigError(
            f"private trains each peer on its private images alone, and peer {without[0]} has none; name "
            f"them by peers.{without[0]}.data, add partition=dirichlet (or iid, classes), or leave out "
            "private"
        )
    frozen = [
        name
        for name, peer in config.peers.items()
        if peer.frozen_from is not None and not Path(peer.frozen_from).is_file()
    ]
    if frozen:
        place = config.peers[frozen[0]].frozen_from
        assert place is not None, "chosen by it"
        if not Path(place).exists():
            raise ConfigError(f"peers.{frozen[0]}.frozen_from={place}: there is no such file")
        raise ConfigError(
            f"peer {frozen[0]!r} is frozen in the settings that all methods share; methods=[offline] "
            "freezes the peers that have to be. A teacher from outside is a weights file "
            f"(peers.{frozen[0]}.frozen_from=<file>)"
        )


def _cell_id(column: Column, student: str | None, peers: str, data: str, seed: int) -> str:
    name = column.name if student is None else f"{column.name}-{student}"
    return f"{name}/{peers}/{data}/{seed}"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(
        str(value.value if isinstance(value, enum.Enum) else value) for value in values
    )
