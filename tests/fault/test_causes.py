"""What went wrong in a peer reaches the user on every host, and its traceback is in the peer's log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command_line import SMALL_RUN, dogo_fed

CAUSE = "AttributeError: 'Net' object has no attribute 'projector'"

HOSTS = [
    pytest.param("processes", marks=pytest.mark.grpc),
    pytest.param("ray", marks=pytest.mark.ray),
]

pytestmark = [pytest.mark.kill, pytest.mark.slow]


@pytest.mark.parametrize("host", HOSTS)
def test_the_cause_of_a_failure_is_in_terminal_event_and_summary(host: str, tmp_path: Path) -> None:
    (tmp_path / "my_nets.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, image_size, in_channels):\n"
        "        super().__init__()\n"
        "        self.conv = torch.nn.Conv2d(in_channels, 4, 3)\n"
        "    def forward(self, x):\n"
        "        return self.conv(x).mean((2, 3)) if len(x) < 32 else self.projector(x)\n"
    )
    run_dir = tmp_path / "run"
    output = dogo_fed(
        "train", *SMALL_RUN, f"host={host}", "peers=pair", "recovery.max_restarts=0",
        "backbone@peers.wide.backbone=own", "peers.wide.backbone.name=my_nets:Net",
        "eval.batch_size=16", f"run_dir={run_dir}", cwd=tmp_path, expect=1,
    )  # fmt: skip
    assert CAUSE in output.strip().splitlines()[-1]
    summary = json.loads((run_dir / "summary.json").read_text())
    (lost,) = [one for one in summary["events"] if one["kind"] == "peer_lost"]
    assert lost["peer"] == "wide" and CAUSE in lost["message"]
    log = (run_dir / "peers" / "wide" / "peer.log").read_text()
    assert "Traceback" in log and CAUSE in log
    for path in (run_dir / "coordinator.log", run_dir / "summary.json", run_dir / "metrics.jsonl"):
        assert "\x1b" not in path.read_text() and "u001b" not in path.read_text()


@pytest.mark.grpc
def test_numbers_that_went_wrong_are_named_with_what_may_help(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    output = dogo_fed(
        "train", *SMALL_RUN, "host=processes", "peers=pair",
        "peers.wide.optimizer.options.lr=1e30", "eval.linear=false", f"run_dir={run_dir}", expect=1,
    )  # fmt: skip
    said = output.strip().splitlines()[-1]
    assert "of peer 'wide' is nan at step" in said, said
    assert "peers.wide.optimizer.options.lr" in said
    saved = sorted(path.name for path in (run_dir / "peers" / "wide" / "checkpoints").iterdir())
    assert saved == ["step-000000000.pt"]
    assert json.loads((run_dir / "summary.json").read_text())["peers"].keys() == {"resnet"}
