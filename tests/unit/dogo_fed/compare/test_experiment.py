"""The cells of a comparison: which there are, what each is, and in which order."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from dogo_fed.baselines.catalog import BASELINES
from dogo_fed.compare.experiment import BASELINE_METHODS, Method
from dogo_fed.config import Gate, Teacher
from dogo_fed.errors import ConfigError
from tests.support.comparison_cells import PEER, made_cells, made_experiment

OUT = Path("/somewhere/out")


def test_a_pair_has_a_solo_a_dogo_and_two_offline_cells_a_seed() -> None:
    cells = made_cells(made_experiment(seeds=[3, 1]), OUT)
    assert [cell.id for cell in cells] == [
        "solo/pair/synthetic/3",
        "offline-big/pair/synthetic/3",
        "offline-small/pair/synthetic/3",
        "dogo/pair/synthetic/3",
        "solo/pair/synthetic/1",
        "offline-big/pair/synthetic/1",
        "offline-small/pair/synthetic/1",
        "dogo/pair/synthetic/1",
    ]
    assert all(cell.folder == OUT / "cells" / cell.id for cell in cells)
    assert [cell.config.seed for cell in cells] == [3] * 4 + [1] * 4


def test_each_cell_comes_after_what_it_needs_and_needs_its_own_seed() -> None:
    experiment = made_experiment(peers=["pair", "other"], data=["synthetic", "more"])
    seen: set[str] = set()
    for cell in made_cells(experiment, OUT):
        assert seen.issuperset(cell.needs)
        if cell.column.method is Method.OFFLINE:
            assert cell.needs == (f"solo/{cell.peers}/{cell.data}/{cell.seed}",)
        else:
            assert cell.needs == ()
        seen.add(cell.id)
    assert len(seen) == 2 * 2 * 3 * 4


def test_a_student_among_three_is_taught_by_the_two_others_as_they_were_alone() -> None:
    cells = made_cells(made_experiment(seeds=[0]), OUT, names=("a", "b", "c"))
    offline = {cell.student: cell for cell in cells if cell.column.method is Method.OFFLINE}
    assert sorted(offline) == ["a", "b", "c"]
    solo = str(OUT / "cells" / "solo" / "pair" / "synthetic" / "0")
    for student, cell in offline.items():
        sources = {name: peer.frozen_from for name, peer in cell.config.peers.items()}
        assert sources == {name: None if name == student else solo for name in "abc"}
        assert cell.config.exchanges
        assert cell.learners == (student,)


def test_a_frozen_peer_needs_no_file_to_start_from() -> None:
    """It comes as it ended alone, where it has started from that file."""
    peers = {"big": {**PEER, "init": "w.pth", "weights_prefix": "module."}, "small": PEER}
    cells = made_cells(made_experiment(methods=[Method.OFFLINE], seeds=[0]), OUT, peers=peers)
    big = {cell.student: cell.config.peers["big"] for cell in cells}
    assert (big[None].init, big["big"].init) == ("w.pth", "w.pth")
    assert (big["small"].init, big["small"].weights_prefix) == (None, None)
    assert big["small"].frozen_from is not None


def test_methods_differ_in_what_they_say_and_in_nothing_else() -> None:
    others = (Method.PRIVATE, Method.CENTRAL, Method.TEACHER)
    methods = [one for one in Method if one not in others]
    methods = [one for one in methods if not one.is_baseline]
    cells = {
        cell.column.method: cell.config
        for cell in made_cells(made_experiment(methods=methods), OUT)
    }
    solo = dataclasses.replace(cells[Method.SOLO], run_dir=None)
    assert not solo.exchanges
    dogo = dataclasses.replace(cells[Method.DOGO], run_dir=None)
    assert dogo.exchanges
    assert dataclasses.replace(dogo, exchange=solo.exchange) == solo
    supervised = dataclasses.replace(cells[Method.SUPERVISED], run_dir=None)
    assert {peer.objective.name for peer in supervised.peers.values()} == {"supervised"}
    objective = solo.peers["big"].objective
    restored = {
        name: dataclasses.replace(peer, objective=objective)
        for name, peer in supervised.peers.items()
    }
    assert dataclasses.replace(supervised, peers=restored) == solo


@pytest.mark.parametrize("method", BASELINE_METHODS)
def test_a_baseline_has_nothing_of_dogos_teaching(method: Method) -> None:
    peers = {name: {**PEER, "gate": "agreement", "teacher": "ema"} for name in ("big", "small")}
    cells = made_cells(made_experiment(methods=[method]), OUT, peers=peers)
    for cell in cells:
        assert cell.config.baseline is not None and cell.config.baseline.name == method.value
        for peer in cell.config.peers.values():
            assert (peer.gate, peer.teacher) == (Gate.NONE, Teacher.LIVE)


def test_offline_brings_its_teachers_and_dogo_does_not() -> None:
    def methods(*wanted: Method) -> set[str]:
        cells = made_cells(made_experiment(methods=list(wanted), seeds=[0]), OUT)
        return {cell.column.method.value for cell in cells}

    assert methods(Method.OFFLINE) == {"solo", "offline"}
    assert methods(Method.DOGO) == {"dogo"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": []}, ["methods", "empty"]),
        ({"seeds": []}, ["seeds", "empty"]),
        ({"seeds": [1, 2, 1]}, ["seeds", "twice", "1, 2, 1"]),
        ({"methods": [Method.SOLO, Method.SOLO]}, ["methods", "twice", "solo"]),
        ({"variants": {"a/b": ["exchange.every_steps=2"]}}, ["a/b", "folder"]),
        ({"data": ["../up"]}, ["'../up'", "folder"]),
        ({"peers": [""]}, ["''", "folder"]),
    ],
)
def test_impossible_experiments_are_refused(changes, words) -> None:
    with pytest.raises(ConfigError) as refusal:
        made_experiment(**changes)
    assert all(word in str(refusal.value) for word in words), refusal.value


def test_one_peer_has_nobody_to_learn_from() -> None:
    with pytest.raises(ConfigError, match=r"need at least 2 peers.*only one"):
        made_cells(made_experiment(), OUT, names=("one",))
    assert len(made_cells(made_experiment(methods=[Method.SOLO]), OUT, names=("one",))) == 3


IN_PARTS = {"partition": {"kind": "dirichlet", "anchors": 0.2}}


def test_with_private_images_methods_differ_in_what_a_peer_sees_and_hears() -> None:
    methods = [Method.PRIVATE, Method.SOLO, Method.DOGO, Method.CENTRAL]
    cells = {
        cell.column.method: dataclasses.replace(cell.config, run_dir=None)
        for cell in made_cells(made_experiment(methods=methods), OUT, **IN_PARTS)
        if cell.seed == 0
    }
    private, solo, dogo, central = (cells[one] for one in methods)
    assert [one.exchanges for one in cells.values()] == [False, False, True, False]
    assert dataclasses.replace(dogo, exchange=solo.exchange) == solo
    assert dataclasses.replace(private, anchor_share=None) == solo
    assert (private.anchors_per_step, solo.anchors_per_step) == (0, 128)
    assert not central.partition.is_private and central.anchors_per_step == 256
    assert dataclasses.replace(central, partition=solo.partition, steps_per_round=None) == solo


def with_own_images(*names: str) -> dict[str, Any]:
    own = {"name": "image_folder", "options": {"root": "/somewhere/own"}}
    return {name: {**PEER, "data": own} if name in names else PEER for name in ("big", "small")}


def test_private_is_possible_where_every_peer_has_images_of_its_own() -> None:
    experiment = made_experiment(methods=[Method.PRIVATE, Method.SOLO], seeds=[0])
    cells = made_cells(experiment, OUT, peers=with_own_images("big", "small"))
    private, solo = (dataclasses.replace(cell.config, run_dir=None) for cell in cells)
    assert (private.anchors_per_step, solo.anchors_per_step) == (0, 128)
    assert dataclasses.replace(private, anchor_share=None) == solo
    with pytest.raises(ConfigError, match=r"peer small has none; name them by peers\.small\.data"):
        made_cells(experiment, OUT, peers=with_own_images("big"))
    central = made_experiment(methods=[Method.CENTRAL])
    with pytest.raises(ConfigError, match="central is about a data set that is cut"):
        made_cells(central, OUT, peers=with_own_images("big", "small"))


def with_public_encoder(folder: Path) -> dict[str, Any]:
    weights = folder / "public.pth"
    weights.touch()
    return {"big": PEER, "small": PEER, "public": {**PEER, "frozen_from": str(weights)}}


@pytest.mark.parametrize(
    ("graph", "left"),
    [
        (None, {"big": {"public": 1.0}, "small": {"public": 1.0}}),
        (
            {"big": {"small": 1.0, "public": 0.3}, "small": {"big": 1.0}},
            {"big": {"public": 0.3}},
        ),
    ],
)
def test_teacher_leaves_the_public_encoder_as_the_only_teacher(graph, left, tmp_path) -> None:
    methods = [Method.SOLO, Method.TEACHER, Method.DOGO]
    settings: dict[str, Any] = {"exchange": {"rows": "features", "graph": graph}}
    solo, teacher, dogo = made_cells(
        made_experiment(methods=methods, seeds=[0]),
        OUT,
        peers=with_public_encoder(tmp_path),
        **settings,
    )
    assert teacher.id == "teacher/pair/synthetic/0"
    assert teacher.learners == dogo.learners == solo.learners == ("big", "small")
    assert teacher.config.exchange.graph == left
    exchange = dataclasses.replace(teacher.config.exchange, graph=dogo.config.exchange.graph)
    assert (
        dataclasses.replace(teacher.config, exchange=exchange, run_dir=dogo.config.run_dir)
        == dogo.config
    ), "all else is the same"
    assert sorted(solo.config.peers) == ["big", "small"]


def test_a_teacher_that_is_not_there_is_named(tmp_path) -> None:
    peers = with_public_encoder(tmp_path)
    (tmp_path / "public.pth").unlink()
    with pytest.raises(ConfigError, match=r"frozen_from=.*public\.pth: there is no such file"):
        made_cells(made_experiment(methods=[Method.SOLO, Method.DOGO]), OUT, peers=peers)
    (tmp_path / "public.pth").mkdir()
    with pytest.raises(ConfigError, match="is frozen in the settings that all methods share"):
        made_cells(made_experiment(methods=[Method.SOLO, Method.DOGO]), OUT, peers=peers)


def test_teacher_without_a_public_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"name one by peers\.<name>\.frozen_from=<weights file>"):
        made_cells(made_experiment(methods=[Method.SOLO, Method.TEACHER]), OUT)


def test_private_and_central_need_a_partition() -> None:
    for method in (Method.PRIVATE, Method.CENTRAL):
        with pytest.raises(ConfigError, match="add partition=dirichlet"):
            made_cells(made_experiment(methods=[Method.SOLO, method]), OUT)


def test_baselines_stand_in_place_of_the_exchange_and_differ_in_nothing_else() -> None:
    methods = [Method.SOLO, *BASELINE_METHODS]
    options = {"fedavg": {"heads": False}}
    experiment = made_experiment(methods=methods, baselines=options, seeds=[0])
    cells = {cell.column.method: cell.config for cell in made_cells(experiment, OUT)}
    solo = cells[Method.SOLO]
    for method in BASELINE_METHODS:
        config = cells[method]
        assert config.baseline is not None and not config.exchanges
        assert config.baseline.name == method.value
        assert dict(config.baseline.options) == options.get(method.value, {})
        if method.has_own_loss:
            assert {one.objective.name for one in config.peers.values()} == {method.value}
            peers = {
                name: dataclasses.replace(one, objective=solo.peers[name].objective)
                for name, one in config.peers.items()
            }
        else:
            peers = dict(config.peers)
        alone = dataclasses.replace(config, baseline=None, run_dir=solo.run_dir, peers=peers)
        assert alone == solo


def test_every_baseline_is_a_method_and_its_own_class_says_what_it_changes() -> None:
    assert sorted(one.value for one in BASELINE_METHODS) == sorted(BASELINES)
    own_loss = {one for one in Method if one.has_own_loss}
    assert own_loss == {Method.FEDX, Method.SUPERVISED}


def test_options_of_a_baseline_that_is_none_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"baselines\.fedprox: there is no such baseline"):
        made_experiment(baselines={"fedprox": {}})


def test_a_peer_that_is_not_to_count_is_one_of_the_peers() -> None:
    made_cells(made_experiment(not_counted=["small"]), OUT)
    with pytest.raises(
        ConfigError, match=r"not_counted names 'middle', .* big, small; type not_cou"
    ):
        made_cells(made_experiment(not_counted=["middle"]), OUT)
