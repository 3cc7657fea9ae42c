"""A host that has a command of its own is refused, with what to type, before anything is made."""

from __future__ import annotations

import dataclasses
import re

import pytest

from configs.compose import compose_run
from dogo_fed.errors import ConfigError
from dogo_fed.storage.run_folder import create
from server.hosts.launch import launch


def flower_run(run_dir):
    config = compose_run(["host=flower", "data=synthetic"])
    return dataclasses.replace(config, run_dir=str(run_dir))


def test_a_new_run_is_told_the_command_of_its_host(tmp_path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"host=flower .*; type `dogo-fed flower` and the same settings without host",
    ):
        launch(flower_run(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_goes_on_is_told_the_command_with_its_folder(tmp_path) -> None:
    """The host is one of the settings that the folder keeps."""
    config = flower_run(tmp_path / "a run")
    folder = create(config).path
    before = sorted(folder.iterdir())
    typed = f"type `dogo-fed flower 'resume={folder}'`"
    with pytest.raises(ConfigError, match=re.escape(typed)):
        launch(dataclasses.replace(config, run_dir=None, resume=str(folder)))
    assert sorted(folder.iterdir()) == before
