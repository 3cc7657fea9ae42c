"""Paths as people type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dogo_fed.errors import ConfigError
from dogo_fed.typed_path import typed_path


def test_a_tilde_is_the_users_folder(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert typed_path("~/x") == Path("/home/ada/x") and typed_path("~") == Path("/home/ada")
    assert typed_path("a/~b") == Path("a/~b") and typed_path("./~b") == Path("~b")


def test_a_user_that_there_is_not_is_answered_with_what_may_be_meant() -> None:
    with pytest.raises(
        ConfigError, match=r"~photos/x: there is no user 'photos' here\. .*\./~photos/x"
    ):
        typed_path("~photos/x")
