"""What people type first: it works as meant, or the answer names the setting to type."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from configs.compose import compose_named, compose_run
from configs.shorthand import (
    EVALUATION_WORDS,
    in_full,
    in_full_for_evaluation,
    in_full_for_hydra,
)
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
        "/d/a\\b (1)",
        "/d/(1)\\",
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


def test_a_table_of_labels_in_the_current_folder_is_named_by_its_whole_path(tmp_path, monkeypatch):
    """It is read again where the run goes on, or is evaluated, from another folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("my labels.csv", "both.csv", "none", "images/both.csv"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()

    def labels(*typed):
        return run("data=images", *typed).data.options["labels"]

    assert labels("data.options.labels=my labels.csv") == f"{tmp_path}/my labels.csv"
    assert labels("data.options.labels=both.csv") == "both.csv", "that of the images is read"
    assert labels("data.options.labels=none") == "none"
    assert labels("data.options.labels=there.csv") == "there.csv"
    config = run("peers.wide.data=images", "peers.wide.data.options.labels=my labels.csv")
    assert config.peers["wide"].data.options["labels"] == f"{tmp_path}/my labels.csv"


def test_a_place_that_is_named_twice_or_not_at_all_is_answered():
    for key in ("root", "data.options.root"):
        assert "both say where the images are" in the_error("data=/x", f"{key}=/y")
        assert "names nothing" in the_error("data=image_folder", f"{key}=")


def test_the_folder_of_a_user_that_there_is_not_is_answered():
    assert "no user 'photos' here" in the_error("data=~photos")
    assert "no user 'photos' here" in the_error("root=~photos/2024")


def test_a_name_stays_a_name_even_if_there_is_such_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    assert run("data=digits").data.name == "digits"


def test_other_options_of_the_folder_can_be_named_too():
    config = run("data=/x", "data.options.image_size=32", "data.options.labels=none")
    assert config.data.options["image_size"] == 32 and config.data.options["labels"] == "none"
    assert run("data=imagenet", "data.root=/x").data.options["root"] == "/x"


@pytest.mark.parametrize("key", ["root", "path", "data.root", "data.path", "data_dir", "input"])
def test_where_a_data_set_is_has_the_name_that_it_gives_it(key):
    for data, option in (("webdataset", "root"), ("hf_dataset", "path"), ("npz", "path")):
        options = run(f"data={data}", f"{key}=/x").data.options
        assert options[option] == "/x" and len({"root", "path"} & set(options)) == 1
    refusal = the_error("data=digits", f"{key}=/x")
    assert "images at a place are data=/x, without data=digits" in refusal
    assert "both say where the images are" in the_error("data=/y", f"{key}=/x")


@pytest.mark.parametrize("typed", ["data=[/a,/b]", "data=[digits,/b]", "data=s3://bucket/x"])
def test_places_that_can_not_be_read_are_answered_with_one_folder(typed):
    message = the_error(typed)
    assert typed.partition("=")[2] in message and "type data=<" in message


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["data=/my", "photos"], "data='/my photos'"),
        (["seed=3", "data=/my", "photos/2024", "rounds=3"], "data='/my photos/2024'"),
        (["root=my", "old", "photos"], "root='my old photos'"),
        (["run_dir=/a", "b"], "run_dir='/a b'"),
        (["data=/ada's", "photos"], """data='/ada'"'"'s photos'"""),
    ],
)
def test_a_blank_that_the_shell_has_cut_at_is_answered_with_quotes(typed, meant):
    assert the_error(*typed).endswith(f"a place with blanks goes in quotes: {meant}")


def test_code_of_ones_own_in_place_of_a_data_set_has_no_options_of_another():
    for typed in (["data.name=mine:load"], ["data=mine:load"], ["data=own", "data.name=mine:load"]):
        data = run(*typed).data
        assert (data.name, data.options, data.default_rounds) == ("mine:load", {}, 10)
        assert run(*typed, "data.options.size=3").data.options == {"size": 3}
    assert run("peers.wide.data=mine:load").peers["wide"].data.name == "mine:load"


def test_code_of_ones_own_in_place_of_a_part_has_no_options_of_another():
    for key in ("peers.wide.backbone", "peers.wide.backbone.name"):
        peer = run(f"{key}=mine:Net", "peers.wide.backbone.options.size=3").peers["wide"]
        assert (peer.backbone.name, peer.backbone.options) == ("mine:Net", {"size": 3})
    assert run("peers.wide.objective=mine:Loss").peers["wide"].objective.name == "mine:Loss"
    assert run("peers.wide.augmentation=mine:make").peers["wide"].augmentation.name == "mine:make"


@pytest.mark.parametrize(
    "model", ["timm:vit_tiny_patch16_224.augreg_in21k", "torchvision:resnet18"]
)
def test_models_of_libraries_are_backbones_wherever_one_is_named(model):
    assert run(f"peers.wide.backbone={model}").peers["wide"].backbone.name == model
    dropped = run(f"peers.wide.backbone={model}", "peers.wide.backbone.options.drop_rate=0.1")
    assert dropped.peers["wide"].backbone.options == {"drop_rate": 0.1}
    for typed in (f"[{model},resnet18,{model}]", f"{model},resnet18,{model}"):
        peers = run(f"peers={typed}").peers
        assert [peer.backbone.name for peer in peers.values()].count(model) == 2
        assert set(peers) >= {"resnet18", model.replace(":", "_").replace(".", "_")}
    (alone,) = run(f"peers={model}").peers.values()
    assert alone.backbone.name == model
    assert in_full_for_evaluation([f"backbone={model}"]) == [
        f"backbone={model.partition(':')[0]}",
        f"backbone.name={model}",
    ]


@pytest.mark.parametrize("backbone", ["timm:" + "x" * 90, "a.b:c", "timm:__x__", "timm:x/y-z"])
def test_peers_have_names_of_folders_whatever_they_are_made_of(backbone):
    assert len(run(f"peers=[{backbone},{backbone}]").peers) == 2


@pytest.mark.parametrize(
    ("typed", "says"),
    [("[timm,resnet18]", "timm:<model>"), ("[own]", "<package.module>:<name>")],
)
def test_a_library_alone_is_no_backbone(typed, says):
    assert the_error(f"peers={typed}").endswith(f"; type {says} in its place")


def test_presets_may_be_swept_over():
    assert in_full(["-m", "peers=pair,trio"]) == ["-m", "peers=pair,trio"]
    assert "-m peers=pair,trio" in the_error("peers=pair,trio")


def views(*arguments):
    return {peer.augmentation.name for peer in run(*arguments).peers.values()}


def test_photographs_have_their_augmentation_and_digits_theirs():
    assert views("data=/x") == {"simclr"}
    assert views() == views("data=digits_m") == views("data=digits") == {"digits"}
    assert views("data=/x", "peers=pair") == {"digits"}  # as the preset says
    assert views("peers=[tiny_resnet,small_cnn]") == {"digits"}
    assert views("data=/x", "peers=[tiny_resnet,small_cnn]") == {"simclr"}
    assert views("data=synthetic") == {"digits"}
    assert views("data=synthetic", "peers=[tiny_resnet]") == {"simclr"}


@pytest.mark.parametrize(
    "photographs",
    [
        ["data=/x"],
        ["root=/x"],
        ["data.root=/x"],
        ["data.options.root=/x"],
        ["data=image_folder", "data.options.root=/x"],
        ["data=/x.npz"],
        ["data=npz", "data.options.path=/x.npz"],
        ["data=webdataset", "data.options.root=/x"],
        ["data=hf_dataset", "data.options.path=/x"],
        ["data=cifar10"],
        ["data=cifar10_imbalanced"],
        ["data=own", "data.name=mine:load"],
    ],
)
def test_however_photographs_are_named_their_views_are_the_same(photographs):
    assert views(*photographs, "peers.wide.distill_weight=1") == {"simclr"}


@pytest.mark.parametrize(
    "peers",
    [
        ["peers.wide.backbone=resnet18"],
        ["peers=[resnet18,mobilenet_v2]"],
        ["~peers.wide"],
        ["+peers.wide.augmentation.options.crop_overflow=clamp"],
    ],
)
def test_whatever_else_is_said_of_peers_photographs_have_their_views(peers):
    assert views("root=/x", *peers) == views(*peers, "data=/x") == {"simclr"}


@pytest.mark.parametrize(
    "named",
    [
        ["peers.wide.augmentation=digits"],
        ["augmentation@peers.wide.augmentation=digits"],
        ["peers.wide.augmentation.name=digits"],
        ["peers.wide.augmentation={name: digits}"],
        ["peers.wide={augmentation: {name: digits}}"],
        ["peers={wide: {augmentation: {name: digits}}}"],
        ["peer@peers.wide=wide_simclr"],
    ],
)
def test_an_augmentation_that_is_named_stays_and_that_of_the_others_does_not(named):
    peers = compose_run(in_full(["data=/x", *named])).peers
    assert (peers["wide"].augmentation.name, peers["resnet"].augmentation.name) == (
        "digits",
        "simclr",
    )


def test_options_of_the_views_are_kept():
    peers = run("data=/x", "+peers.wide.augmentation.options.min_scale=0.2").peers
    assert (peers["wide"].augmentation.name, peers["wide"].augmentation.options) == (
        "simclr",
        {"min_scale": 0.2},
    )


def test_private_photographs_have_their_augmentation_too():
    peers = run("peers.wide.data=/photos").peers
    assert {name: peer.augmentation.name for name, peer in peers.items()} == {
        "resnet": "digits",
        "wide": "simclr",
    }


def test_what_hydra_prints_has_the_views_in_it():
    photographs = ["data=/x", "peers.wide.distill_weight=1"]
    printed = in_full_for_hydra([*photographs, "--cfg", "job"])
    assert printed[: len(photographs) + 3] == [*in_full(photographs), "--cfg", "job"]
    assert sorted(printed[len(photographs) + 3 :]) == [
        "augmentation@peers.resnet.augmentation=simclr",
        "augmentation@peers.wide.augmentation=simclr",
    ]
    assert in_full_for_hydra(photographs) == in_full(photographs)
    for nothing in (["--cfg", "job"], ["-m", "data=/x,/y", "--cfg", "job"]):
        assert in_full_for_hydra(nothing) == in_full(nothing)


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
        (["epochs=3"], "there is no setting epochs; type rounds=3"),
        (["--epochs=3"], "there is no flag --epochs; settings are written rounds=3"),
        (["--epochs", "3"], "there is no flag --epochs; settings are written rounds=3"),
        (["--batch-size=3"], "settings are written batch_size=3"),
        (["--data", "/a/b"], "settings are written data=/a/b"),
        (["--lr", "0.1"], "settings are written peers.<name>.optimizer.options.lr=0.1, with the"),
        (["--lr=0.1"], "settings are written peers.<name>.optimizer.options.lr=0.1, with the"),
        (["-lr", "0.1"], "there is no flag -lr; settings are written peers.<name>.optimizer"),
        (["--seed", "-1"], "settings are written seed=-1"),
        (["--symmetric", "seed=3"], "settings are written exchange.symmetric=true"),
        (["--symmetric", "--cfg", "job"], "settings are written exchange.symmetric=true"),
        (["lr=0.1"], "type peers.<name>.optimizer.options.lr=0.1"),
        (["eval.knn=20"], "there is no setting eval.knn; did you mean eval.knn_k=20"),
        (["sed=4"], "there is no setting sed; did you mean seed=4?"),
        (["lr=1", "seed=3", "epochs=3"], "wide. There is no setting epochs; type rounds=3"),
        (["sed=4", "roundz=3"], "mean seed=4? There is no setting roundz; did you mean rounds=3?"),
        (["data=cifar"], "did you mean cifar10 or cifar100?"),
        (["peers=pairr"], "did you mean pair?"),
        (["peers=[resnet18,resnt50]"], "'resnt50' is no backbone; known are mobilenet_v2"),
        (["peers=[]"], "is no backbone"),
        (["peers.wide.backbone=resnet99"], "there is no backbone 'resnet99'; known are"),
        (["peers.wild.distill_weight=1"], "did you mean peers.wide.distill_weight=1"),
        (["peers.wild.backbone=resnet18"], "did you mean peers.wide.backbone=resnet18"),
        (["peers=[resnet18]", "peers.wide.lr=1"], "no peer 'wide', the peers are resnet18"),
        (
            ["peers=trio", "backbone@peers.north.backbone=resnet34"],
            "no setting peers.north.backbone; did you mean peers.cnn.backbone=resnet34",
        ),
        (["peers=[resnet18]", "lr=1"], "type peers.resnet18.optimizer.options.lr=1"),
        (["data=/x", "channels=1"], "type data.options.channels=1"),
        (["root=/x", "data.image_size=96"], "type data.options.image_size=96"),
        (["--image-size", "96", "data=/x"], "settings are written data.options.image_size=96"),
        (["data.options.labels=none"], "the data set digits_m has none"),
        (
            ["data=/x", "--num-workers", "4"],
            "no flag --num-workers, and no setting num_workers; none",
        ),
        (["--colour"], "there is no flag --colour, and no setting colour"),
        (["colour=red"], "`dogo-fed train --help` lists the settings"),
        (["checkpoint=/w.pth"], "type peers.<name>.init=/w.pth"),
        (["eval=5"], "eval must be a mapping of settings (knn_every_rounds, "),
        (["+seed=3"], "seed is a setting already"),
        (["~peers.wild"], "there is no peers.wild that could be left out"),
        (["seed=1,2"], "seed takes one value, not 1,2"),
        (["peers.wide.optimizer=5"], "a name is wanted"),
        (["trio"], "did you mean peers=trio?"),
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


def test_a_command_may_have_keys_and_words_of_its_own():
    arguments = ["peers=[pair,trio]", "out=/a", "epochs=3", "data=[digits,cifar10]"]
    own = in_full(arguments, is_own=lambda key: key in ("peers", "out", "epochs"))
    assert own == arguments
    with pytest.raises(ConfigError, match="settings are written out=/x"):
        in_full(["--output", "/x"], words={"run_dir": "out"})


@pytest.mark.parametrize("typed", ["data=./x", "data=x.npz/..", "root=x", "peers.ada.data=../x"])
def test_a_command_that_works_elsewhere_takes_absolute_places_only(typed):
    key = typed.partition("=")[0]
    with pytest.raises(ConfigError, match=r"=.*x.* must be an absolute path") as refusal:
        in_full([typed], is_elsewhere=True)
    assert str(refusal.value).startswith("data=" if key == "root" else f"{key}=")
    assert in_full(["data=/x"], is_elsewhere=True) == in_full(["data=/x"])


def test_an_evaluation_knows_places_too():
    assert in_full_for_evaluation(["image_size=3", "data=/a b", "out=x"]) == [
        "image_size=3",
        "data=image_folder",
        "data.options.root=/a b",
        "out=x",
    ]
    assert in_full_for_evaluation(["root=/a"]) == ["data=image_folder", "data.options.root=/a"]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (
            ["--num-workers", "4"],
            "no flag --num-workers, and no setting num_workers; none is needed",
        ),
        (["--run", "runs/x"], "settings are written run=runs/x"),
        (["--peer", "wide"], "settings are written peer=wide"),
        (["runs/x"], "a finished run is run=runs/x"),
        (["run=/my", "runs"], "run='/my runs'"),
        (["model=resnet18"], "type backbone=resnet18"),
        (["data=/x", "channels=1"], "type data.options.channels=1"),
        (["data.image_size=96"], "no data set is named. With data=/path/to/images"),
        (
            ["data.options.domain=sketch"],
            "named. With one of data=domainnet, it is data.options.",
        ),
        (["data=photoz"], "a folder is named by its path, such as data=./photos"),
        (["root="], "= names nothing; type the path of a folder"),
        (["protocols=knn"], "did you mean protocol=knn?"),
        (["resume=runs/x"], "type run=runs/x"),
        (["colour=red"], "`dogo-fed evaluate --help` lists the settings"),
    ],
)
def test_an_evaluation_answers_words_with_its_own_settings(typed, says):
    with pytest.raises(ConfigError) as refusal:
        compose_named("evaluate", in_full_for_evaluation(typed), EVALUATION_WORDS)
    assert says in str(refusal.value)


def test_a_setting_of_every_peer_is_one_for_each():
    typed = [
        "peers=trio",
        "peers.*.optimizer=lars",
        "peers.*.teacher=ema",
        "peers.wide.teacher=live",
    ]
    peers = run(*typed).peers
    assert {peer.optimizer.name for peer in peers.values()} == {"lars"}
    assert {name: peer.teacher.value for name, peer in peers.items()} == {
        "cnn": "ema",
        "resnet": "ema",
        "wide": "live",
    }
    made_here = run("peers=[resnet18,resnet18]", "data=cifar10", "peers.*.chunk_size=64")
    assert [peer.chunk_size for peer in made_here.peers.values()] == [64, 64]


@pytest.mark.parametrize(
    "typed, says",
    [
        (["peers.*.heat=2"], "there is no setting peers.resnet.heat"),
        (["resume=runs/one", "peers.*.teacher=ema"], "name each: peers.<name>.teacher=ema"),
        (["-m", "peers=pair,trio", "peers.*.teacher=ema"], "name each: peers.<name>.teacher=ema"),
    ],
)
def test_a_setting_of_every_peer_is_refused_where_it_has_no_meaning(typed, says):
    with pytest.raises(ConfigError, match=re.escape(says)) as refused:
        in_full(typed)
    assert str(refused.value).count("there is no setting") <= 1


def test_anchors_may_be_named_like_any_images(tmp_path):
    for typed, name in ((str(tmp_path), "image_folder"), ("digits", "digits")):
        config = run("partition=iid", f"partition.anchors_from={typed}", "partition.anchors=1")
        assert config.partition.anchors_from.name == name
    assert "partition=shared cuts nothing" in the_error("partition.anchors_from=digits")
    assert "at most 1, not 1.5" in the_error(
        "partition=iid", "partition.anchors_from=digits", "partition.anchors=1.5"
    )
