"""From a command line to a comparison: presets compose, what is typed wins, what can't be is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dogo_fed.compare.experiment import Method, Runner
from dogo_fed.errors import ConfigError
from dogo_fed.packages import package_folder
from dogo_fed.plan import Plan
from dogo_fed.wire.traffic import RunTraffic
from server.comparison.request import preset_names, request_comparison

PRESETS = (
    "cifar10_paper",
    "cifar10_small_pairs",
    "digits_m_heterogeneous",
    "digits_m_pair",
    "limited_labels",
    "noisy_labels",
    "ood",
)


def test_the_presets_are_there() -> None:
    assert set(preset_names()) >= set(PRESETS)


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_composes(name: str) -> None:
    request = request_comparison([f"experiment={name}"])
    assert request.experiment.name == name
    assert {Method.SOLO, Method.DOGO} <= set(request.experiment.methods)
    assert Method.OFFLINE in request.experiment.methods or name not in PRESETS
    assert len(request.experiment.seeds) >= 3
    assert request.out == (Path("runs") / "compare" / name).resolve()
    assert request.runner is Runner.PROCESSES
    for cell in request.cells:
        assert cell.config.host.value == "local"
        assert cell.config.rounds is not None or cell.config.steps is not None


def preset(name: str) -> dict[str, Any]:
    """Returns a preset as its file has it, which is faster than its cells are composed."""
    path = package_folder("configs") / "experiment" / f"{name}.yaml"
    content = yaml.safe_load(path.read_text())
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize("name", ["digits_m_sites", "cifar10_sites", "cifar10_six_sites"])
def test_the_budget_is_that_of_a_long_run_over_a_slow_line(name: str) -> None:
    """A peer sends and gets at most 83 MB in 39,000 steps, and leaves little of it unused."""
    asked = request_comparison([f"experiment={name}", "methods=[solo,dogo]", "seeds=[0]"])
    (budget,) = (cell for cell in asked.cells if cell.column.name == "dogo-budget")
    exchange = budget.config.exchange
    plan = Plan(39_000, 100, exchange.every_steps, exchange.dense_steps)
    traffic = RunTraffic.of(budget.config, plan)
    assert traffic is not None
    assert 0.9 * 83e6 < traffic.both_ways < 83e6
    knobs = preset("digits_m_sites_knobs")
    own = [*knobs["variants"]["budget"], *knobs["overrides"]]
    assert set(preset(name)["variants"]["budget"]) <= set(own), "it is the same there"


def test_what_chooses_does_not_judge() -> None:
    judging = {
        seed for name in ("digits_m_sites", "digits_m_pair") for seed in preset(name)["seeds"]
    }
    for chooses in ("digits_m_rows", "digits_m_sites_knobs"):
        assert not judging & set(preset(chooses)["seeds"])


def test_baselines_of_the_four_sites_average_more_often_than_twice() -> None:
    often = {"fedavg": {"every_steps": 20}, "fedx": {"every_steps": 20}}
    assert preset("digits_m_sites")["baselines"] == preset("cifar10_sites")["baselines"] == often


def test_sites_of_one_architecture_are_shipped() -> None:
    asked = request_comparison(["peers=[sites_alike]", "methods=[solo,dogo]", "seeds=[0]"])
    assert len({peer.backbone.name for peer in asked.run.peers.values()}) == 1
    assert len(asked.run.peers) == 4


def test_the_published_recipe() -> None:
    (cell, *_) = request_comparison(["experiment=cifar10_paper", "seeds=3"]).cells
    assert cell.config.batch_size == 256 and cell.config.seed == 3
    assert {name: peer.backbone.name for name, peer in cell.config.peers.items()} == {
        "resnet50": "resnet50",
        "resnet18": "resnet18",
    }
    for peer in cell.config.peers.values():
        assert peer.optimizer.name == "adam"
        assert dict(peer.optimizer.options) == {"lr": 3e-4, "weight_decay": 1e-6}


def test_what_is_typed_wins(tmp_path: Path) -> None:
    request = request_comparison(
        [
            "methods=[solo,dogo]",
            "seeds=[7]",
            "rounds=5",
            f"out={tmp_path}",
            "jobs=3",
            "peers=[pair,trio]",
            "data=synthetic",
            "peers.wide.distill_weight=1",
            "silence_s=9",
        ]
    )
    assert [cell.id for cell in request.cells] == [
        f"{method}/{peers}/synthetic/7" for peers in ("pair", "trio") for method in ("solo", "dogo")
    ]
    assert all(cell.config.rounds == 5 for cell in request.cells)
    assert all(cell.config.peers["wide"].distill_weight == 1 for cell in request.cells)
    assert all(cell.folder.is_relative_to(tmp_path / "cells") for cell in request.cells)
    assert (request.jobs, request.silence_s) == (3, 9.0)
    assert "rounds=5" in request.experiment.overrides
    assert "rounds=10" not in request.experiment.overrides


def test_steps_take_the_place_of_the_presets_rounds() -> None:
    request = request_comparison(["steps=8", "seeds=0"])
    assert {(cell.config.rounds, cell.config.steps) for cell in request.cells} == {(None, 8)}


def test_protocols_come_as_names_or_with_options() -> None:
    def protocols(*arguments: str) -> dict:
        return dict(request_comparison(["seeds=0", *arguments]).experiment.protocols)

    assert protocols() == {}
    assert protocols("protocols=knn") == {"knn": {}}
    assert protocols("protocols=[knn,linear]", "protocols.linear.epochs=3") == {
        "knn": {},
        "linear": {"epochs": 3},
    }
    assert protocols("protocols={knn:{k:5}}") == {"knn": {"k": 5}}
    assert protocols("experiment=ood", "protocols.ood.targets=[digits]") == {
        "ood": {"targets": ["digits"]}
    }


def test_variants_are_dogo_with_other_settings() -> None:
    request = request_comparison(
        [
            "methods=[solo,dogo]",
            "seeds=[3]",
            "variants={late:'exchange.every_steps=4'}",
            "variants.soft=['peers.wide.kl_temperature=0.5','peers.resnet.kl_temperature=0.5']",
        ]
    )
    solo, dogo, late, soft = request.cells
    assert [cell.id for cell in (late, soft)] == [
        "dogo-late/pair/digits_m/3",
        "dogo-soft/pair/digits_m/3",
    ]
    assert late.config.exchanges and soft.config.exchanges and not solo.config.exchanges
    assert (dogo.config.exchange.every_steps, late.config.exchange.every_steps) == (1, 4)
    assert {peer.kl_temperature for peer in soft.config.peers.values()} == {0.5}
    assert {peer.kl_temperature for peer in late.config.peers.values()} == {0.1}
    assert late.config.seed == 3 and late.config.rounds == dogo.config.rounds


def test_a_setting_of_every_peer_is_for_those_of_each_set() -> None:
    request = request_comparison(
        ["methods=[dogo]", "seeds=[0]", "peers=[pair,trio]", "peers.*.optimizer=lars",
         "peers.*.init=/weights (1).pth", "variants={soft:['peers.*.kl_temperature=0.5']}"]
    )  # fmt: skip
    assert len(request.cells) == 4
    for cell in request.cells:
        wanted = 0.5 if "soft" in cell.id else 0.1
        for peer in cell.config.peers.values():
            assert (peer.optimizer.name, peer.kl_temperature) == ("lars", wanted)
            assert peer.init == "/weights (1).pth"


def test_settings_of_runs_may_be_short_as_for_train() -> None:
    request = request_comparison(
        [
            "methods=[solo,dogo]",
            "seeds=[0]",
            "data=/my photos (1)",
            "peers.wide.backbone=resnet34",
            "peers.wide.data=/private",
        ]
    )
    assert list(request.experiment.data) == ["image_folder"]
    for cell in request.cells:
        assert cell.config.data.options["root"] == "/my photos (1)"
        wide = cell.config.peers["wide"]
        assert wide.backbone.name == "resnet34"
        assert wide.data is not None and wide.data.options["root"] == "/private"


@pytest.mark.parametrize("data", ["data=[/photos]", "root=/photos", "data=/photos"])
def test_one_folder_of_images_is_a_data_set(data: str) -> None:
    (cell, *_) = request_comparison(["methods=[solo]", "seeds=0", data]).cells
    assert cell.config.data.options["root"] == "/photos"
    assert {peer.augmentation.name for peer in cell.config.peers.values()} == {"simclr"}


@pytest.mark.parametrize("place", ["data.options.root=/there", "root=/there"])
def test_a_preset_keeps_its_data_set_wherever_that_is(place: str) -> None:
    """It once became a folder of images in silence, with other sizes and views."""
    request = request_comparison(["experiment=cifar10_cpu", place])
    assert list(request.experiment.data) == ["cifar10_folder"]
    for cell in request.cells:
        options = cell.config.data.options
        assert (options["root"], options["image_size"]) == ("/there", 32)
    (cell, *_) = request_comparison(["experiment=digits_m_pair", "root=/photos"]).cells
    assert (cell.data, cell.config.data.options["root"]) == ("image_folder", "/photos")


def test_peers_that_were_chosen_keep_the_views_of_their_preset() -> None:
    def views(*arguments: str) -> set[str]:
        (cell, *_) = request_comparison(["methods=[solo]", "seeds=0", *arguments]).cells
        return {peer.augmentation.name for peer in cell.config.peers.values()}

    assert views("data=/photos", "peers=[pair]") == {"digits"}
    assert views() == {"digits"} and views("experiment=cifar10_cpu") == {"simclr"}
    assert views("data=/photos", "peers=[resnet18]") == {"simclr"}
    assert views("peers=[resnet18]") == {"digits"}


def test_backbones_alone_are_one_set_of_peers() -> None:
    both = ["methods=[solo,dogo]", "seeds=[0]", "data=/photos"]
    one = request_comparison([*both, "peers=[resnet50,resnet18]"])
    assert [cell.peers for cell in one.cells] == ["resnet50-resnet18"] * 2
    assert set(one.cells[0].config.peers) == {"resnet50", "resnet18"}
    several = request_comparison([*both, "peers=[pair,[resnet18,resnet18]]"])
    assert list(several.experiment.peers) == ["pair", "resnet18-resnet18"]
    assert set(several.cells[-1].config.peers) == {"resnet18", "resnet18_2"}


def test_models_of_libraries_are_peers_of_a_comparison() -> None:
    request = request_comparison(
        [
            "methods=[solo]",
            "seeds=0",
            "peers=[[timm:vit_tiny.a-b,resnet18],[torchvision:resnet18,resnet18]]",
        ]
    )
    assert [cell.peers for cell in request.cells] == [
        "timm_vit_tiny_a-b-resnet18",
        "torchvision_resnet18-resnet18",
    ]
    first, second = (
        {peer.backbone.name for peer in cell.config.peers.values()} for cell in request.cells
    )
    assert (first, second) == (
        {"timm:vit_tiny.a-b", "resnet18"},
        {"torchvision:resnet18", "resnet18"},
    )
    one = request_comparison(["methods=[solo]", "seeds=0", "peers=[timm:x,resnet18]"])
    assert [cell.peers for cell in one.cells] == ["timm_x-resnet18"]


def test_a_teacher_from_outside_may_be_named_in_short(tmp_path: Path) -> None:
    teacher = tmp_path / "resnet50.pth"
    teacher.touch()
    request = request_comparison(
        [
            "methods=[solo,dogo]",
            "seeds=[0]",
            "data=/photos",
            "peers=[resnet50,resnet18,resnet34]",
            "exchange.rows=features",
            f"peers.resnet50.frozen_from={teacher}",
        ]
    )
    solo, dogo = request.cells
    assert set(solo.config.peers) == {"resnet18", "resnet34"}
    assert dogo.config.peers["resnet50"].frozen_from == str(teacher)


def test_a_cluster_runs_cells_as_tasks() -> None:
    assert request_comparison(["ray.address=auto", "seeds=0"]).runner is Runner.RAY
    assert request_comparison(["ray.address=auto", "runner=processes"]).runner is Runner.PROCESSES


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["experiment=nothing"], ["nothing", "digits_m_pair"]),
        (
            ["methods=[solo,magic]"],
            ["methods", "solo, offline, teacher, dogo, fedavg", "magic"],
        ),
        (["seeds=[a]"], ["seeds", "a whole number"]),
        (["seeds=[1.5]"], ["seeds", "a whole number"]),
        (["seeds=[]"], ["seeds", "empty"]),
        (["jobs=0"], ["jobs", "0"]),
        (["jobs=many"], ["jobs", "many"]),
        (["protocols.knn.k.l=3", "protocols.knn.k=2", "protocols.knn.k.l=3"], ["protocols.knn.k"]),
        (["runner=moon"], ["runner", "moon"]),
        (["colour=red"], ["colour"]),
        (["peers=nobody"], ["nobody"]),
        (["protocols=[tarot]"], ["tarot", "protocol"]),
        (["protocols=[knn]", "protocols.knn.q=3"], ["knn", "'q'"]),
        (["peers=[pair,resnet18]"], ["resnet18"]),
        (["peers=[resnet18,own]"], ["'own' is no backbone"]),
        (["data=/x", "channels=1"], ["type data.options.channels=1"]),
        (["method=[solo]"], ["type methods=[solo]"]),
        (["protocol=knn"], ["did you mean protocols=knn?"]),
        (["output=x"], ["type out=x"]),
        (["data=/my", "photos"], ["data='/my photos'"]),
        (["--num-workers", "4"], ["no flag --num-workers, and no setting num_workers; none is"]),
        (["data=[]"], ["data", "empty"]),
        (["data=[digits,/photos]"], ["data=[digits,/photos]: a place stands alone"]),
        (["--epochs", "3"], ["there is no flag --epochs", "rounds=3"]),
        (["--seed=3"], ["seeds=3"]),
        (["--output", "x"], ["out=x"]),
        (["-m"], ["`dogo-fed compare` has no option -m"]),
        (["lr=0.1"], ["peers.<name>.optimizer.options.lr=0.1"]),
        (["seed=3"], ["seed", "seeds=[...]"]),
        (
            ["variants={big:'batch_size=128'}"],
            ["'big'", "batch_size", "no reference", "second comparison"],
        ),
        (["variants={fast:'peers.wide.optimizer.options.lr=1'}"], ["'fast'", "no reference"]),
        (["variants={on:'exchange.enabled=true'}"], ["exchange.enabled", "methods"]),
        (["variants={none:[]}"], ["'none'", "changes nothing"]),
        (["variants={typo:'exchange.every_step=2'}"], ["every_step"]),
        (["variants={four:'exchange.top_k=4'}"], ["'four'", "exchange.top_k has no effect"]),
        (["variants=3"], ["variants"]),
        (["exchange.enabled=false"], ["exchange.enabled", "methods"]),
        (["run_dir=x"], ["run_dir", "out="]),
        (["resume=x"], ["resume", "same command"]),
        (["host=ray"], ["host=ray", "runner=ray"]),
        (["peers=solo"], ["at least 2 peers"]),
        (["+seeds=[1]"], ["+seeds=[1]"]),
        (["seeds=0,1"], ["seeds=0,1", "[value,value]"]),
    ],
)
def test_what_can_not_be_is_named_in_one_line(arguments, words) -> None:
    with pytest.raises(ConfigError) as refusal:
        request_comparison(arguments)
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


@pytest.mark.parametrize(
    "settings",
    [
        ["peers.wide.kl_temperature=0.5", "variants={other:'exchange.rows=features'}"],
        [
            "exchange.encoding=top_k",
            "exchange.top_k=9",
            "variants={other:'exchange.encoding=float32'}",
        ],
    ],
)
def test_a_variant_may_leave_a_shared_setting_without_effect(settings) -> None:
    request = request_comparison(["experiment=digits_m_pair", *settings])
    assert "other" in request.experiment.variants


def test_a_folder_whose_name_is_no_text_is_refused_before_anything_runs(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"r\\udcff' has a name that is not UTF-8"):
        request_comparison(["experiment=digits_m_pair", f"out={tmp_path}/r\udcff"])


def test_recordings_of_passes_are_refused_where_the_peers_of_a_cell_share_a_process(
    tmp_path: Path,
) -> None:
    asked = ["experiment=digits_m_pair", "seeds=[0]", f"out={tmp_path}", "compile=true"]
    with pytest.raises(ConfigError, match="peers that share a process"):
        request_comparison([*asked, "cuda_graphs=true"])
    request_comparison([*asked, "cuda_graphs=true", "host=processes"])
