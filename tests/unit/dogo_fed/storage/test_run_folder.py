"""What a run folder says to people who go on with its run."""

from __future__ import annotations

import re

import pytest

from configs.compose import compose_run
from dogo_fed.errors import CheckpointError
from dogo_fed.storage.run_folder import create, reopen


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
