"""The attacks of `make attack`, each against a live run; fewer mutated messages than there."""

from __future__ import annotations

import pytest

from tests.attack import cells
from tests.attack.cells import MIB, Outcome

pytestmark = [pytest.mark.slow, pytest.mark.grpc, pytest.mark.timeout(900)]


def assert_bounded(row: Outcome) -> None:
    assert row.on_in_s < 30.0, row
    assert row.log_lines < 300, row
    assert row.written_bytes < 20 * MIB, row
    assert "taken" not in row.answers or row.attack.startswith(
        ("a formula", "joining and", "512 step")
    ), row
    if "none of them finished" in row.attack:
        assert row.answers == "2048 of 2048 refused", row


def test_strangers_and_insiders_stop_nothing_and_fill_nothing(tmp_path):
    rows = cells.strangers_and_insiders(tmp_path / "run")
    assert len(rows) == len(cells.CALLS) + len(cells.DEEDS)
    for row in rows:
        assert_bounded(row)


@pytest.mark.ray
def test_strangers_and_insiders_stop_no_run_on_ray_either(tmp_path):
    pytest.importorskip("ray", reason="without Ray there is no run with host=ray to attack")
    rows = cells.on_ray(tmp_path / "run")
    assert len(rows) == len(cells.CALLS) + len(cells.DEEDS) + 1
    for row in rows:
        assert_bounded(row)


def test_100000_mutated_messages_crash_nothing_and_cost_little(tmp_path):
    row, resident = cells.mutated(tmp_path / "run", 100_000)
    assert row.log_lines < 1000 and row.written_bytes < 200 * MIB, row
    assert resident["after all"] - resident["after a tenth"] < 32 * MIB, resident


def test_more_idle_connections_than_descriptors_stop_nothing(tmp_path):
    row = cells.idle(tmp_path / "run")
    assert row.on_in_s < 30.0, row
