"""Reads a preset of the group `experiment` and a command line into a checked comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.compose import compose_run
from configs.every_peer import EVERY_PEER
from configs.groups import names_of, place_option
from configs.overrides import key_of
from configs.shorthand import in_full, is_backbone, is_place_of_data, peer_name
from dogo_fed.compare.experiment import Cell, Expected, Experiment, Method, Runner, plan_cells
from dogo_fed.config import Host, RunConfig
from dogo_fed.engine.fit import USUAL_BATCH_SIZE
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.protocols import check_protocol
from dogo_fed.packages import package_folder
from dogo_fed.plain import from_plain
from dogo_fed.storage.run_folder import absolute

OUT = Path("runs") / "compare"
"""The folder for comparisons without `out=`."""

_DECIDED = {
    "seed": "seeds=[...] names them",
    "exchange.enabled": "the methods decide it",
    "run_dir": "out= is the folder of the comparison",
    "resume": "the same command goes on with what is there",
}
"""Settings of a run that the user can't choose in a comparison, with the reason."""


_SAME_METHODS = {"local": "solo", "federated": "dogo"}
"""Other names of methods, which people use where images are private."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareConfig:
    """What a preset and the command line may set; `Experiment` has the settings not listed here.

    Attributes:
        out: folder of the comparison; null is runs/compare/<experiment>.
        jobs: number of cells at a time; null is one a core, or one a GPU.
        runner: null is Ray if ray.address is given, else processes.
        silence_s: a cell that writes nothing for this many seconds is killed.
    """

    methods: Sequence[Method]
    seeds: Sequence[int]
    peers: Sequence[str]
    data: Sequence[str]
    overrides: Sequence[str] = ()
    variants: Mapping[str, Sequence[str]] = field(default_factory=dict)
    protocols: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Any] = field(default_factory=dict)
    not_counted: Sequence[str] = ()
    expected: Expected = field(default_factory=Expected)
    out: str | None = None
    jobs: int | None = None
    runner: Runner | None = None
    silence_s: float = 3600.0

    def __post_init__(self) -> None:
        if self.jobs is not None and self.jobs < 1:
            raise ConfigError(f"jobs must be at least 1, not {self.jobs}")
        if not self.silence_s > 0:
            raise ConfigError(f"silence_s must be greater than 0, not {self.silence_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonRequest:
    """A comparison, ready to be run.

    Attributes:
        out: folder of the comparison, absolute.
        cells: all cells, each after those that it needs.
        run: the settings of one cell; device, threads and Ray are the same for all.
    """

    experiment: Experiment
    out: Path
    cells: tuple[Cell, ...]
    run: RunConfig
    jobs: int | None
    runner: Runner
    silence_s: float


_LISTS = ("methods", "seeds", "peers", "data", "overrides", "not_counted")
_OWN = ("experiment", *(setting.name for setting in dataclasses.fields(CompareConfig)))
_OWN_SECTIONS = ("variants", "protocols", "baselines", "expected")
_WORDS = {**dict(zip(_OWN, _OWN, strict=True)), "seed": "seeds", "run_dir": "out"}
"""What stands here for a setting of a run; the comparison's own stand for themselves."""


def request_comparison(arguments: Sequence[str]) -> ComparisonRequest:
    """Returns the comparison that a command line asks for.

    Args:
        arguments: e.g. ["experiment=digits_m_pair", "seeds=[0,1]", "rounds=5", "out=runs/mine"].
            An argument that is not a setting of the comparison is a setting of all its runs.

    Raises:
        ConfigError: an unknown key, a wrong type or an impossible value.
    """
    arguments = _in_full(arguments)
    name, content, overrides, backbones = _read(arguments)
    settings = from_plain(CompareConfig, content)
    for protocol, options in settings.protocols.items():
        check_protocol(protocol, options)
    experiment = Experiment(
        name=name,
        methods=settings.methods,
        seeds=settings.seeds,
        peers=settings.peers,
        data=settings.data,
        overrides=tuple(_merged(settings.overrides, overrides)),
        variants=settings.variants,
        protocols=settings.protocols,
        baselines=settings.baselines,
        not_counted=settings.not_counted,
        expected=settings.expected,
    )
    out = absolute(str(OUT / name) if settings.out is None else settings.out)
    keys = {key_of(argument) for argument in arguments}
    # The preset has chosen its peers for its own images and not for others.
    compose_runs = partial(
        _compose_runs,
        experiment,
        backbones,
        peers_are_chosen="peers" in keys or "data" not in keys,
    )
    configs = compose_runs(experiment.overrides)
    variants = {
        (variant, *case): config
        for variant, changes in experiment.variants.items()
        for case, config in compose_runs(_merged(experiment.overrides, changes)).items()
    }
    run = next(iter(configs.values()))
    runner = settings.runner
    if runner is None:
        runner = Runner.PROCESSES if run.ray.address is None else Runner.RAY
    return ComparisonRequest(
        experiment=experiment,
        out=out,
        cells=tuple(plan_cells(experiment, out, configs, variants)),
        run=run,
        jobs=settings.jobs,
        runner=runner,
        silence_s=settings.silence_s,
    )


def preset_names() -> list[str]:
    """Returns the names of all presets, sorted."""
    folder = package_folder("configs") / "experiment"
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _in_full(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with the settings of runs as Hydra reads them; see `configs.shorthand`.

    Raises:
        ConfigError: there is a flag among them, or a word that is no setting.
    """
    places_are_options = _preset_is_at_a_place(arguments)

    def is_own(key: str) -> bool:
        """Whether a key is understood later, with the peers and the data set of each cell."""
        if is_place_of_data(key):
            return places_are_options
        return key.startswith(EVERY_PEER) or (_is_own(key) and key != "data")

    full = in_full(
        [_without_brackets(argument) for argument in arguments], is_own=is_own, words=_WORDS
    )
    flags = [argument for argument in full if argument.startswith("-")]
    if flags:
        raise ConfigError(
            f"`dogo-fed compare` has no option {flags[0]}; it takes settings (key=value), "
            "--dry-run and --help"
        )
    return full


def _preset_is_at_a_place(arguments: Sequence[str]) -> bool:
    """Whether a preset names the data set, which is at a place that is to be named.

    Where nothing names a data set, a place is one of images.
    """
    choice = [argument for argument in arguments if key_of(argument) == "experiment"]
    if not choice or any(key_of(argument) == "data" for argument in arguments):
        return False
    _, content = _preset(choice[-1:])
    data = content.get("data")
    names = data if isinstance(data, list) else [data]
    known = names_of("data")
    return all(name in known and place_option(str(name)) is not None for name in names)


def _without_brackets(argument: str) -> str:
    """Returns data=[/one/place] as data=/one/place, and any other argument as it is."""
    key, _, value = argument.partition("=")
    place = value[1:-1].strip()
    is_one = value[:1] + value[-1:] == "[]" and bool(place) and "," not in place
    return f"data={place}" if key == "data" and is_one else argument


def _is_own(key: str) -> bool:
    """Whether a key is of the comparison and not of its runs."""
    return key in _OWN or key.split(".")[0] in _OWN_SECTIONS


def _read(
    arguments: Sequence[str],
) -> tuple[str, dict[str, Any], list[str], dict[str, list[str]]]:
    """Returns the preset's name, the comparison's settings, the overrides of its runs, and backbones.

    The backbones are those of each set of peers that is no preset.
    """
    own, overrides, choice = list[Override](), list[str](), list[str]()
    for argument in arguments:
        key = key_of(argument)
        if key == "experiment":
            choice = [argument]
        elif _is_own(key):
            own.append(_parse(argument))
        else:
            overrides.append(argument)
    name, content = _preset(choice)
    for override in own:
        content["protocols"] = _protocols(content.get("protocols"))
        _put(content, str(override.key_or_group).split("."), override.value())
    if isinstance(variants := content.get("variants"), dict):
        content["variants"] = {
            str(label): settings if isinstance(settings, list) else [settings]
            for label, settings in variants.items()
        }
    for key in _LISTS:
        if key in content and not isinstance(content[key], list):
            content[key] = [content[key]]
    backbones: dict[str, list[str]] = {}
    if isinstance(peers := content.get("peers"), list):
        content["peers"] = _labels(peers, backbones)
    content["protocols"] = _protocols(content.get("protocols"))
    methods = content.get("methods")
    if isinstance(methods, list):
        content["methods"] = [_SAME_METHODS.get(str(method), method) for method in methods]
    return name, content, overrides, backbones


def _labels(peers: list[object], backbones: dict[str, list[str]]) -> list[object]:
    """Returns what each set of peers is called: its preset, or its backbones with hyphens between.

    A list of backbones alone is one set of peers, as it is for `dogo-fed train`.

    Args:
        peers: presets, and lists of backbones.
        backbones: gets those lists, by what they are called.
    """
    presets = names_of("peers")
    if peers and all(is_backbone(str(name)) and name not in presets for name in peers):
        peers = [peers]
    labels: list[object] = []
    for entry in peers:
        if isinstance(entry, list):
            label = "-".join(peer_name(str(name)) for name in entry)
            backbones[label] = [str(name) for name in entry]
            labels.append(label)
        else:
            labels.append(entry)
    return labels


def _put(content: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Sets the value at this path.

    Raises:
        ConfigError: a part of the path is not a mapping.
    """
    for place, part in enumerate(path[:-1]):
        content = content.setdefault(part, {})
        if not isinstance(content, dict):
            raise ConfigError(f"{'.'.join(path[: place + 1])} holds no settings of its own")
    content[path[-1]] = value


def _parse(argument: str) -> Override:
    try:
        override = OverridesParser.create().parse_override(argument)
    except (HydraException, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if override.is_delete() or override.is_add() or override.is_sweep_override():
        raise ConfigError(f"{argument!r} must be key=value, or key=[value,value]")
    return override


def _preset(choice: list[str]) -> tuple[str, dict[str, Any]]:
    try:
        with initialize_config_module(config_module="configs", version_base="1.3"):
            composed = compose(config_name="compare", overrides=choice, return_hydra_config=True)
            name = str(composed.hydra.runtime.choices.experiment)
            keys = [str(key) for key in composed if key != "hydra"]
            content = OmegaConf.to_container(OmegaConf.masked_copy(composed, keys), resolve=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    assert isinstance(content, dict), "a Hydra configuration is a mapping"
    return name, {str(key): value for key, value in content.items()}


def _protocols(content: object) -> dict[str, Any]:
    """Returns protocols with their options; a list or a single name takes the default options."""
    if isinstance(content, Mapping):
        return {str(name): dict(options or {}) for name, options in content.items()}
    names = content if isinstance(content, list) else [] if content is None else [content]
    return {str(name): {} for name in names}


def _merged(preset: Sequence[str], overrides: Sequence[str]) -> list[str]:
    """Returns the preset's overrides; those of the command line replace them or are added.

    Raises:
        ConfigError: the comparison decides one of these settings.
    """
    found: dict[str, str] = {}
    for override in (*preset, *overrides):
        key = key_of(override)
        if key in _DECIDED:
            raise ConfigError(f"{key} can't be set in a comparison: {_DECIDED[key]}")
        if key in ("rounds", "steps"):
            found.pop("steps" if key == "rounds" else "rounds", None)
        found[key] = override
    return list(found.values())


def _compose_runs(
    experiment: Experiment,
    backbones: Mapping[str, Sequence[str]],
    overrides: Sequence[str],
    *,
    peers_are_chosen: bool,
) -> dict[tuple[str, str, int], RunConfig]:
    found = {}
    presets = names_of("peers")
    for peers in experiment.peers:
        chosen = peers if peers in presets else f"[{','.join(backbones.get(peers, [peers]))}]"
        for data in experiment.data:
            settings = [f"peers={chosen}", f"data={data}", *_merged(["host=local"], overrides)]
            config = compose_run(in_full(settings), peers_are_chosen=peers_are_chosen, words=_WORDS)
            if config.host not in (Host.LOCAL, Host.PROCESSES):
                raise ConfigError(
                    f"host={config.host.value} is not for comparisons: the cells run side by "
                    "side, each with all its peers in one process (host=local), with the same "
                    "numbers; runner=ray spreads the cells over a cluster"
                )
            for seed in experiment.seeds:
                found[peers, data, seed] = dataclasses.replace(
                    config, seed=seed, batch_size=config.batch_size or USUAL_BATCH_SIZE
                )
    return found
