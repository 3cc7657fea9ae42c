"""What a run folder says to people who go on with its run."""

from __future__ import annotations

import re

import pytest
from torch import nn

from configs.compose import compose_run
from dogo_fed import layout
from dogo_fed.contracts import PeerId
from dogo_fed.errors import CheckpointError, ConfigError
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.storage.run_folder import create, reopen
from dogo_fed.storage.run_lock import run_lock


@pytest.mark.parametrize(
    ("host", "command"), [("flower", "flower"), ("processes", "train"), ("local", "train")]
)
def test_the_way_out_of_missing_checkpoints_is_a_command_that_takes_the_run(
    host, command, tmp_path
) -> None:
    config = compose_run([f"host={host}", "data=synthetic", f"run_dir={tmp_path}/run"])
    folder = create(config).path
    checkpoints = folder / "peers" / "wide" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "step-000000003.pt").write_bytes(b"torn")
    typed = f"begin the run again at step 0 by: dogo-fed {command} resume={folder} afresh=true"
    with pytest.raises(CheckpointError, match=re.escape(typed)):
        reopen(folder, config, 9, lambda step: step)


def test_what_a_start_leaves_that_is_killed_before_it_has_begun_is_no_run(tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with run_lock(folder):
        left = (folder / layout.LOCK).read_bytes()
    (folder / layout.LOCK).write_bytes(left)
    (folder / ".config.00000000-1-1-00000000.partial.yaml").write_text("steps: ")
    config = compose_run(["data=synthetic", f"run_dir={folder}"])
    assert create(config).path == folder
    with pytest.raises(ConfigError, match="exists already"):
        create(config)


@pytest.mark.parametrize("name", ["notes.txt", "config.yaml", ".hidden"])
def test_a_folder_with_anything_else_in_it_is_not_taken(name, tmp_path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        create(compose_run(["data=synthetic", f"run_dir={folder}"]))
    assert (folder / name).read_text() == "mine"


def test_the_way_to_an_encoder_is_the_run_s_own_end_whatever_its_host(tmp_path) -> None:
    """`dogo-fed train` does not go on with a run of `dogo-fed flower`."""
    typed = rf"finish the run first by resume='{tmp_path}/my run'$"
    with pytest.raises(CheckpointError, match=typed):
        PeerFolder(tmp_path / "my run", PeerId("wide")).load_encoder(nn.Linear(2, 2))
