"""The scope of a setting: every one has it, and what it says holds where it is read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

import pytest

from configs.compose import compose_run
from dogo_fed.config import RunConfig
from dogo_fed.scope import (
    DecidedBy,
    Decides,
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
