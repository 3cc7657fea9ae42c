"""What people type first: it works as meant, or the answer names the setting to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.compose import compose_run
from configs.shorthand import in_full, with_data_at
from dogo_fed.errors import ConfigError


def run(*arguments):
    return compose_run(in_full(arguments))


def the_error(*arguments):
    with pytest.raises(ConfigError) as caught:
        run(*arguments)
    return str(caught.value)


@pytest.mark.parametrize(
    "place",
    [
        "/data/my images (v1), a=b",
        "/data/a,b",
        "/data/{x}",
        "/data/it's",
        "/data/ünï 写真",
        "/d/#1",
    ],
)
@pytest.mark.parametrize("key", ["data", "root", "data.root", "data.options.root"])
def test_a_folder_is_a_data_set_whatever_its_name(place, key):
    data = run(f"{key}={place}").data
    assert (data.name, data.options["root"]) == ("image_folder", place)


def test_places_that_are_relative_or_at_home_are_made_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    (tmp_path / "photos").mkdir()
    for typed, meant in (
        ("data=photos", f"{tmp_path}/photos"),
        ("data=./photos", f"{tmp_path}/photos"),
        ("data=../x", f"{tmp_path.parent}/x"),
        ("data=~/x", "/home/ada/x"),
        ("data='/with/quotes'", "/with/quotes"),
    ):
        assert run(typed).data.options["root"] == meant
    assert run("run_dir=~/runs/1").run_dir == "/home/ada/runs/1"


def test_a_name_stays_a_name_even_if_there_is_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    assert run("data=digits").data.name == "digits"


def test_other_options_of_the_folder_can_be_named_too():
    config = run("data=/x", "data.options.image_size=32", "data.options.labels=none")
    assert config.data.options["image_size"] == 32 and config.data.options["labels"] == "none"
    assert run("data=imagenet", "data.root=/x").data.options["root"] == "/x"


def test_photographs_have_their_augmentation_and_digits_theirs():
    def names(*arguments):
        return {peer.augmentation.name for peer in run(*arguments).peers.values()}

    assert names("data=/x") == {"simclr"}
    assert names() == names("data=digits_m") == {"digits"}
    assert names("data=/x", "peers=pair") == {"digits"}  # as the preset says
    assert names("peers=[tiny_resnet,small_cnn]") == {"digits"}
    assert names("data=/x", "peers=[tiny_resnet,small_cnn]") == {"simclr"}


@pytest.mark.parametrize("typed", ["resnet18,mobilenet_v2", "[resnet18, mobilenet_v2]"])
def test_peers_are_made_of_backbones(typed):
    peers = run(f"peers={typed}").peers
    assert {name: peer.backbone.name for name, peer in peers.items()} == {
        "resnet18": "resnet18",
        "mobilenet_v2": "mobilenet_v2",
    }
    assert {peer.objective.name for peer in peers.values()} == {"simclr"}
    assert {peer.optimizer.options["lr"] for peer in peers.values()} == {0.0003}


def test_the_same_backbone_twice_and_one_alone():
    assert set(run("peers=[resnet18,resnet18,resnet18]").peers) == {
        "resnet18",
        "resnet18_2",
        "resnet18_3",
    }
    assert set(run("peers=resnet50").peers) == set(run("peers=[resnet50]").peers) == {"resnet50"}
    assert set(run("peers=trio").peers) == {"cnn", "resnet", "wide"}
    assert run("peers=[tiny_resnet]").peers["tiny_resnet"].optimizer.options["lr"] == 0.001


def test_peers_of_backbones_can_be_changed_like_others():
    peers = run("peers=[resnet18,resnet34]", "peers.resnet34.objective=byol").peers
    assert peers["resnet34"].objective.name == "byol"


@pytest.mark.parametrize(
    ("group", "name"),
    [
        ("backbone", "resnet18"),
        ("objective", "byol"),
        ("augmentation", "simsiam"),
        ("optimizer", "sgd"),
    ],
)
def test_a_part_of_a_peer_is_named_as_if_it_were_a_setting(group, name):
    peer = run(f"peers.wide.{group}={name}").peers["wide"]
    assert getattr(peer, group).name == name


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["epochs=3"], "there is no setting 'epochs'; type rounds=3"),
        (["--epochs=3"], "there is no flag --epochs; settings are written rounds=3"),
        (["--epochs", "3"], "there is no flag --epochs; settings are written rounds=<value>"),
        (["--batch-size=3"], "settings are written batch_size=3"),
        (["lr=0.1"], "type peers.<name>.optimizer.options.lr=0.1"),
        (["eval.knn=20"], "there is no setting eval.knn; did you mean eval.knn_k=20"),
        (["sed=4"], "there is no setting sed; did you mean seed=4?"),
        (["data=cifar"], "did you mean cifar10 or cifar100?"),
        (["peers=pairr"], "did you mean pair?"),
        (["peers=[resnet18,resnt50]"], "'resnt50' is no backbone; known are mobilenet_v2"),
        (["peers=[]"], "is no backbone"),
        (["peers.wide.backbone=resnet99"], "there is no backbone 'resnet99'; known are"),
        (["peers.wild.distill_weight=1"], "did you mean peers.wide.distill_weight=1"),
        (["/data/images"], "a folder of images is data=/data/images"),
    ],
)
def test_what_is_no_setting_is_answered_with_one(typed, says):
    message = the_error(*typed)
    assert says in message
    for word in ("ConfigKeyError", "full_key", "object_type", "append", "Hydra", "hydra", "+"):
        assert word not in message


def test_what_is_meant_for_hydra_is_left_alone():
    for arguments in (
        ["--cfg", "job"],
        ["--help"],
        ["-m", "seed=1,2,3", "run_dir=/a,/b"],
        ["seed=3", "~peers.wide", "+peer@peers.x=cnn_simclr", "peers.wide.distill_weight=0.5"],
    ):
        assert in_full(arguments) == arguments


def test_commands_with_settings_of_their_own_know_places_too():
    assert with_data_at(["image_size=3", "data=/a b", "out=x"]) == [
        "image_size=3",
        "data=image_folder",
        "data.options.root=/a b",
        "out=x",
    ]
