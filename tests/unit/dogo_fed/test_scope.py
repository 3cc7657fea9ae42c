"""The scope of a setting: every one has it, and what it says holds where it is read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

import pytest

from configs.compose import compose_run
from dogo_fed.config import RunConfig
from dogo_fed.config_text import from_mapping, to_mapping
from dogo_fed.scope import (
    DecidedBy,
    Decides,
    changed,
    fixed_changes,
    in_words,
    is_of_teaching,
    paths_of,
    scope,
    scopes_below,
    settings_of,
    with_settings_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    kept: int = field(default=1, metadata=scope(DecidedBy.SITE, Decides.TRAINING))
    taken: int = field(default=1, metadata=scope(DecidedBy.RUN, Decides.NOTHING))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    inner: Inner = Inner()
    forgotten: int = 1


def test_every_setting_of_a_run_has_a_scope() -> None:
    assert [path for path, one in paths_of(RunConfig) if one is None] == []


def test_a_setting_without_a_scope_is_seen() -> None:
    assert [path for path, one in paths_of(Outer) if one is None] == ["forgotten"]


def kinds_in(kind: Any, *, below_scopes: bool) -> set[Any]:
    """Returns a dataclass and those in its fields; without or with those whose field has a scope."""
    found = {kind}
    hints = get_type_hints(kind)
    for one in dataclasses.fields(kind):
        if below_scopes or "scope" not in one.metadata:
            for inner in (hints[one.name], *get_args(hints[one.name])):
                if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                    found |= kinds_in(inner, below_scopes=below_scopes)
    return found


def test_every_scope_that_is_declared_is_read() -> None:
    """A setting whose section has a scope of its own is never asked."""
    read = kinds_in(RunConfig, below_scopes=False)
    unread = kinds_in(RunConfig, below_scopes=True) - read
    assert read and unread
    for kind in unread:
        assert [one.name for one in dataclasses.fields(kind) if "scope" in one.metadata] == [], kind


def test_what_is_agreed_on_and_trained_with_is_decided_once() -> None:
    """Whatever is compared must not depend on where a process runs."""
    for path, one in paths_of(RunConfig):
        assert one is not None
        if one.is_agreed:
            assert one.decided_by is not DecidedBy.PLACE, path
        if one.decides is Decides.NOTHING and one.decided_by is DecidedBy.PLACE:
            assert not one.is_agreed, path


def test_settings_come_with_their_paths_and_values() -> None:
    config = compose_run(["peers=pair", "exchange.every_steps=7", "peers.wide.distill_weight=2"])
    found = {one.path: one.value for one in settings_of(config)}
    assert found["exchange.every_steps"] == 7
    assert found["peers.wide.distill_weight"] == 2.0
    assert found["data.name"] == "digits_m"
    declared = {path for path, _ in paths_of(RunConfig)}
    assert {".".join(["peers", "*", path.split(".")[2]]) if path.startswith("peers.") else path
            for path in found} == declared  # fmt: skip


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("eval.knn_k", {"eval.knn_k"}),
        ("checkpoint", {"checkpoint.every_steps", "checkpoint.keep"}),
        ("data.options.root", {"data.options"}),
        ("peers.wide.kl_temperature", {"peers.wide.kl_temperature"}),
        ("exchange.deadline", set()),
        ("no_such_setting", set()),
    ],
)
def test_scopes_are_found_at_below_and_above_a_path(path: str, found: set[str]) -> None:
    assert set(scopes_below(RunConfig, path)) == found


def test_a_group_is_of_the_teaching_only_if_all_of_it_is() -> None:
    assert is_of_teaching(RunConfig, "exchange.graph.wide.resnet")
    assert not is_of_teaching(RunConfig, "exchange")
    assert not is_of_teaching(RunConfig, "no_such_setting")


def test_only_the_wanted_settings_are_taken_over() -> None:
    own, other = Outer(), Outer(inner=Inner(kept=2, taken=2), forgotten=2)
    merged = with_settings_of(own, other, lambda one: one.decided_by is DecidedBy.RUN)
    assert merged == dataclasses.replace(own, inner=Inner(kept=1, taken=2))


# ---- what differs between two configurations ----


def test_only_what_decides_training_is_fixed() -> None:
    before = compose_run(["peers=pair"])
    after = dataclasses.replace(
        before, seed=9, device="cpu", run_dir="/elsewhere", resume="/first", afresh=True
    )
    assert set(changed(before, after)) == {"seed", "device", "run_dir", "resume", "afresh"}
    assert fixed_changes(before, after) == {"seed": (0, 9)}


def test_a_fixed_change_is_named_as_deep_as_it_lies() -> None:
    before = compose_run(["peers=pair"])
    after = compose_run(
        ["peers=pair", "peers.wide.optimizer.options.lr=7", "+data.options.new=null"]
    )
    assert fixed_changes(before, after) == {
        "peers.wide.optimizer.options.lr": (0.001, 7),
        "data.options.new": (None, None),
    }


def test_peers_that_came_and_went_are_fixed_changes() -> None:
    pair, trio = compose_run(["peers=pair"]), compose_run(["peers=trio"])
    for found in (fixed_changes(pair, trio), fixed_changes(trio, pair)):
        assert [path for path in found if path.startswith("peers.cnn.")]


def test_a_configuration_is_no_other_when_it_is_read_from_its_file() -> None:
    config = compose_run(["peers=pair"])
    wide = config.peers["wide"]
    views = dataclasses.replace(wide.augmentation, options={"range": (0.2, 1.0)})
    given = dataclasses.replace(
        config, peers={**config.peers, "wide": dataclasses.replace(wide, augmentation=views)}
    )
    read = from_mapping(to_mapping(given))
    assert read != given, "a list is no tuple"
    assert changed(given, read) == fixed_changes(given, read) == {}


@pytest.mark.parametrize(
    ("settings", "place"),
    [
        (["data=image_folder"], "data.options.root"),
        (["data=npz"], "data.options.path"),
        (["data=cifar10_imbalanced"], "data.options.base_options.root"),
        (["+data@peers.wide.data=image_folder"], "peers.wide.data.options.root"),
    ],
)
def test_where_images_are_is_not_fixed_and_what_they_are_is(settings, place) -> None:
    before, after = (
        compose_run(["peers=pair", *settings, f"{place}={where}"]) for where in ("/a", "/b")
    )
    assert len(changed(before, after)) == 1
    assert fixed_changes(before, after) == {}
    other = compose_run(["peers=pair", *settings, f"+{place.rpartition('.')[0]}.other=1"])
    assert list(fixed_changes(before, other)) == [f"{place.rpartition('.')[0]}.other"]


def test_people_are_told_some_changes_with_both_values() -> None:
    changes = {"seed": (0, 9), "compile": (None, True), "peers.wide.data": (None, {"a": "x" * 99})}
    told = in_words({**changes, "fourth": (1, 2)})
    assert told.startswith(
        "seed is 0 in the run and 9 now, compile is null in the run and true now, "
    )
    assert told.endswith("... now and 1 more")
