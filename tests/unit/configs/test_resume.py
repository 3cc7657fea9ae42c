"""What may change when a run goes on: all that decides no trained number, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs.compose import compose_run
from configs.overrides import path_of
from configs.resume import resumable_settings, resumed
from configs.shorthand import in_full
from dogo_fed.config import Host, RunConfig, Transport
from dogo_fed.config_text import load_run_config
from dogo_fed.errors import ConfigError
from dogo_fed.scope import changed, paths_of
from dogo_fed.storage.run_folder import create, reopen

SETTINGS = (
    "data=synthetic",
    "peers=pair",
    "steps=6",
    "exchange.symmetric=true",
    "ray.cpus_per_peer=3",
    "eval.knn_k=9",
)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(create(compose_run([*SETTINGS, f"run_dir={tmp_path}/run"])).path)


def gone_on(folder: str, *overrides: str) -> RunConfig:
    given = [*overrides, f"resume={folder}"]
    return resumed(compose_run(given), given)


@pytest.mark.parametrize(
    "override",
    [
        "exchange.deadline_s=7",
        "exchange.join_deadline_s=7",
        "exchange.reconnect_s=7",
        "eval.knn_k=7",
        "eval.linear=false",
        "checkpoint.keep=7",
        "checkpoint.every_steps=7",
        "recovery.silence_s=7",
        "coordinator.port=7",
        "ray.address=auto",
        "steps=7",
        "device=cpu",
        "threads_per_peer=2",
        "memory_format=channels_last",
        "compile=true",
    ],
)
def test_what_decides_no_trained_number_may_change_alone(folder: str, override: str) -> None:
    before, after = gone_on(folder), gone_on(folder, override)
    path = override.partition("=")[0].split(".")
    old: object = before
    new: object = after
    for name in path:
        old, new = getattr(old, name), getattr(new, name)
    assert new != old
    undone = compose_run([*SETTINGS, override, f"run_dir={before.run_dir}", f"resume={folder}"])
    assert after == undone, "nothing else has changed"


def test_a_choice_of_a_group_changes_what_the_choice_is_about_and_nothing_else(folder: str) -> None:
    config = gone_on(folder, "exchange=flower", "host=flower")
    assert config.exchange.transport is Transport.FLOWER and config.exchange.symmetric
    assert config.host is Host.FLOWER
    assert gone_on(folder, "exchange=grpc").exchange.transport is Transport.GRPC


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("eval.batch_size=256", {"eval.batch_size"}),
        ("eval={batch_size:256}", {"eval.batch_size"}),
        ("eval={batch_size:256,linear:false}", {"eval.batch_size", "eval.linear"}),
        ("coordinator.port=7", {"coordinator.port"}),
        ("coordinator={port:7}", {"coordinator.port"}),
        ("ray={address:auto}", {"ray.address"}),
        ("exchange.deadline_s=7", {"exchange.deadline_s"}),
        ("exchange={deadline_s:7}", {"exchange.deadline_s"}),
        ("~eval.linear_epochs", {"eval.linear_epochs"}),
    ],
)
def test_only_the_settings_that_are_named_change(tmp_path: Path, override, named) -> None:
    everything_else = (
        "eval.knn_k=20", "eval.knn_every_rounds=3", "eval.linear_epochs=7", "ray.cpus_per_peer=3",
        "ray.placement=SPREAD", "coordinator.certificate=chain.pem", "coordinator.private_key=k.pem",
        "coordinator.address=127.0.0.1", "exchange.join_deadline_s=5", "exchange.symmetric=true",
    )  # fmt: skip
    run = create(compose_run(["data=synthetic", f"run_dir={tmp_path}/run", *everything_else]))
    after = gone_on(str(run.path), override)
    assert set(changed(load_run_config(run.path), after)) == {*named, "resume"}


def test_the_views_that_followed_from_the_images_stay(tmp_path: Path) -> None:
    photographs = ["data=image_folder", "data.options.root=/photos", f"run_dir={tmp_path}/run"]
    path = str(create(compose_run(photographs)).path)
    for after in (gone_on(path), gone_on(path, "eval.knn_k=7"), gone_on(path, *photographs[:2])):
        assert {peer.augmentation.name for peer in after.peers.values()} == {"simclr"}


def test_how_one_start_goes_on_is_not_kept(folder: str) -> None:
    config = gone_on(folder, "afresh=true")
    assert config.afresh and config.resume == folder
    reopen(Path(folder), config, 6, lambda step: step)
    kept = load_run_config(folder)
    assert kept.resume is None and not kept.afresh
    assert not gone_on(folder).afresh
    with pytest.raises(ConfigError, match="name its folder by resume="):
        compose_run(["afresh=true"])


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "batch_size=7",
        "steps_per_round=3",
        "precision=bf16",
        "exchange.symmetric=false",
        "exchange.enabled=false",
        "peers=trio",
        "peer@peers.wide=cnn_simclr",
        "peers.wide.distill_weight=7",
        "peers.wide.optimizer.options.lr=7",
        "backbone@peers.wide.backbone=small_cnn",
        "data=digits_m",
        "+data@peers.wide.data=image_folder",
        "+data.options.size=96",
        "run_dir=elsewhere",
    ],
)
def test_what_decides_a_trained_number_may_not(folder: str, override: str) -> None:
    key = path_of(override)
    with pytest.raises(ConfigError, match=rf"^{key}.* can't be changed when a run goes on; only "):
        gone_on(folder, override)


def test_the_refusal_lists_what_may_change() -> None:
    listed = resumable_settings()
    assert {"host", "rounds", "steps", "device", "ray.*", "recovery.*"} <= set(listed)
    assert "eval.* (but not eval.test_share)" in listed
    assert "exchange.deadline_s" in listed and "exchange.symmetric" not in listed
    assert {"data.options.root", "peers.*.data.options.root"} <= set(listed)
    scopes = dict(paths_of(RunConfig))
    assert "partition.anchors_from.options.root" in listed
    named = [path for path in listed if "*" not in path and ".options." not in path]
    assert all(scopes[path].is_resumable for path in named)


def test_the_refusal_names_what_differs_with_both_values(folder: str) -> None:
    with pytest.raises(ConfigError, match=r"^seed is 0 in the run and 9 now, and can't"):
        gone_on(folder, "seed=9")
    said = r"^peers\.wide\.optimizer\.options\.lr is [0-9.]+ in the run and 7 now, and can't"
    with pytest.raises(ConfigError, match=said):
        gone_on(folder, "peers.wide.optimizer.options.lr=7")


def test_an_option_that_is_named_as_it_was_is_no_change(folder: str) -> None:
    same = "+data.options.size=512"
    assert gone_on(folder, same) == gone_on(folder)


# ---- images that were moved ----


@pytest.mark.parametrize(
    ("of_run", "typed", "option", "meant"),
    [
        (["data=/photos"], ["data.options.root=/moved"], "root", "/moved"),
        (["data=/photos"], ["root=/moved to"], "root", "/moved to"),
        (["data=/photos"], ["data=/moved", "data.options.image_size=32"], "root", "/moved"),
        (["data=/photos"], ["+data.options.root=/moved"], "root", "/moved"),
        (["data=/a.npz"], ["data.options.root=/b.npz"], "path", "/b.npz"),
        (["data=/a.npz"], ["data.options.path=/b.npz"], "path", "/b.npz"),
    ],
)
def test_images_that_were_moved_are_named_at_their_new_place(
    tmp_path: Path, of_run, typed, option, meant
) -> None:
    """Nothing else of the data set changes: which one it is stands in the run folder."""
    given = in_full([*of_run, "data.options.image_size=32", f"run_dir={tmp_path}/run"])
    before = create(compose_run(given)).path
    after = gone_on(str(before), *in_full([*typed, f"resume={before}"])[:-1])
    saved = load_run_config(before)
    assert set(changed(saved, after)) == {"data.options", "resume"}
    assert after.data.options == {**saved.data.options, option: meant}


def test_private_images_that_were_moved_are_named_as_they_were_with_their_new_place(
    tmp_path: Path,
) -> None:
    given = in_full(["data=synthetic", "peers.wide.data=/photos", f"run_dir={tmp_path}/run"])
    before = create(compose_run(given)).path
    typed = in_full(["peers.wide.data=/moved", f"resume={before}"])[:-1]
    after = gone_on(str(before), *typed)
    assert set(changed(load_run_config(before), after)) == {"peers.wide.data", "resume"}
    assert after.peers["wide"].data is not None
    assert after.peers["wide"].data.options["root"] == "/moved"


def test_anchors_that_were_moved_are_named_at_their_new_place(tmp_path: Path) -> None:
    cut = ["data=synthetic", "partition=iid"]
    given = in_full([*cut, "partition.anchors_from=/public", f"run_dir={tmp_path}/run"])
    before = create(compose_run(given)).path
    typed = [*cut[1:], "partition.anchors_from=/moved", f"resume={before}"]
    after = gone_on(str(before), *in_full(typed)[:-1])
    assert set(changed(load_run_config(before), after)) == {"partition.anchors_from", "resume"}
    anchors = after.partition.anchors_from
    assert anchors is not None and anchors.options["root"] == "/moved"


def test_other_images_are_no_moved_ones(tmp_path: Path) -> None:
    given = in_full(["data=/photos", "data.options.image_size=32", f"run_dir={tmp_path}/run"])
    before = str(create(compose_run(given)).path)
    with pytest.raises(
        ConfigError, match=r"^data\.options\.image_size is 32 in the run and 64 now"
    ):
        gone_on(before, *in_full(["data=/moved"]))
    with pytest.raises(
        ConfigError, match=r"^data\.options\.image_size is 32 in the run and 64 now"
    ):
        gone_on(before, *in_full(["data.options.image_size=64", f"resume={before}"])[:-1])
    with pytest.raises(ConfigError, match=r'^data\.name is "image_folder" in the run'):
        gone_on(before, "data=cifar10", "data.options.root=/moved")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"resume=.* is no run folder: it has no config\.yaml"):
        gone_on(str(tmp_path))
