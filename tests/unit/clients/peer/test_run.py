"""A peer from its assignment to its end: what is told, and what is kept where nobody is told."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path
from types import SimpleNamespace

import pytest

from clients.peer import run
from clients.peer.run import PeerEnvironment, run_assignment
from configs.compose import compose_run
from dogo_fed.assignment import Assignment
from dogo_fed.config_text import to_mapping
from dogo_fed.contracts import Outcome
from dogo_fed.errors import (
    ConfigError,
    CoordinatorLost,
    DataError,
    EvaluationError,
    ExchangeTimeout,
    HelperLost,
    MalformedDistribution,
    SchemaMismatch,
    StaleTicket,
    StorageFull,
    TrainingError,
)
from tests.support.tiny_run import TINY


@pytest.fixture
def assignment(tmp_path: Path):
    return Assignment(
        peer="wide",
        run_id=tmp_path.name,
        run_dir=str(tmp_path),
        address="127.0.0.1:1",
        credential="c0ffee",
        checkpoint_step=None,
        config=to_mapping(compose_run([*TINY, "peers=pair"])),
    )


def log_of(tmp_path: Path) -> str:
    return (tmp_path / "peers" / "wide" / "peer.log").read_text()


@pytest.mark.parametrize("where", ["_open", "run_peer"])
def test_an_error_that_nobody_expected_is_in_the_peers_log_whole(
    where, assignment, tmp_path, monkeypatch
) -> None:
    def fail(*arguments, **others):
        raise AttributeError("'Mine' object has no attribute 'projector'")

    monkeypatch.setattr(run, where, fail)
    if where == "run_peer":
        monkeypatch.setattr(run, "_open", lambda *arguments: (None, None, None))
    with pytest.raises(AttributeError):
        run_assignment(assignment)
    log = log_of(tmp_path)
    assert "peer=wide failed" in log and "Traceback" in log
    assert "no attribute 'projector'" in log


@pytest.mark.parametrize(
    ("error", "outcome", "outside"),
    [
        (
            ConfigError("no such head"),
            Outcome.UNFIT,
            "ConfigError (the reason is in the site's log)",
        ),
        (CoordinatorLost("gone"), Outcome.CUT_OFF, "gone"),
    ],
)
def test_an_error_of_ours_is_an_ending_with_its_sentence_and_one_for_outside(
    error, outcome, outside, assignment, tmp_path, monkeypatch
) -> None:
    def fail(*arguments):
        raise error

    monkeypatch.setattr(run, "_open", fail)
    ending = run_assignment(assignment)
    assert (ending.outcome, ending.message, ending.outside) == (outcome, str(error), outside)
    assert "Traceback" not in log_of(tmp_path)


@pytest.mark.parametrize(
    ("is_tls", "certificates", "remedy"),
    [
        (False, b"PEM", "start the run with coordinator.certificate= and coordinator.private_key="),
        (True, None, "start `dogo-fed peer` with root_certificates=<PEM file>"),
    ],
)
def test_where_only_one_side_wants_tls_nothing_is_sent(
    is_tls, certificates, remedy, assignment, monkeypatch
) -> None:
    monkeypatch.setattr(run, "GrpcLink", None)
    around = PeerEnvironment(root_certificates=certificates)
    ending = run_assignment(dataclasses.replace(assignment, is_tls=is_tls), around)
    assert ending.outcome is Outcome.UNFIT and remedy in ending.message
    assert ending.outside == ending.message, "the coordinator's side is told too"


@pytest.mark.parametrize(
    "error",
    [
        StorageFull("no room for checkpoint step-000000009.pt in there"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_full_disk_ends_the_peer_for_good_with_its_sentence(
    error, assignment, monkeypatch
) -> None:
    """Starting it again would not help, wherever it wanted to write."""

    def fail(*arguments):
        raise error

    monkeypatch.setattr(run, "_open", lambda *arguments: (None, None, None))
    monkeypatch.setattr(run, "run_peer", fail)
    ending = run_assignment(assignment)
    assert ending.outcome is Outcome.FAILED and "no room for" in ending.message


@pytest.mark.parametrize(
    ("told", "there", "is_saved"),
    [("ada", "ada", True), ("ada", "bob", False), ("ada", None, True), ("", "bob", True)],
)
def test_a_peer_that_outlives_its_launcher_keeps_out_of_the_next_start(
    told, there, is_saved, assignment, tmp_path, monkeypatch
) -> None:
    def lost(*arguments):
        raise CoordinatorLost("gone")

    saves: list[dict[str, bool]] = []
    session = SimpleNamespace(save=lambda **how: saves.append(how))
    monkeypatch.setattr(run, "_open", lambda *arguments: (session, None, None))
    monkeypatch.setattr(run, "run_peer", lost)
    if there is not None:
        (tmp_path / "run.lock").write_text(there)
    ending = run_assignment(dataclasses.replace(assignment, lock=told))
    assert ending.outcome is Outcome.CUT_OFF
    assert saves == ([{"is_cut_off": True}] if is_saved else []), "nobody is asked any more"
    assert ("another start of the run" in log_of(tmp_path)) != is_saved


@pytest.mark.parametrize(
    ("error", "outcome", "is_saved"),
    [
        (CoordinatorLost("gone"), Outcome.CUT_OFF, True),
        (ExchangeTimeout("frozen"), Outcome.CUT_OFF, True),
        (StaleTicket("another process has joined"), Outcome.CUT_OFF, True),
        (SchemaMismatch("other images"), Outcome.FAILED, True),
        (MalformedDistribution("row 3 adds up to 2"), Outcome.FAILED, True),
        (ConfigError("compile=true can't be done"), Outcome.FAILED, True),
        (
            DataError("an image can't be read now"),
            Outcome.CUT_OFF,
            True,
        ),  # of a drive that may be back
        (TrainingError("the loss is NaN"), Outcome.FAILED, False),
        (HelperLost("part 1 of its passes died"), Outcome.FAILED, False),
        (EvaluationError("features that are not finite"), Outcome.FAILED, False),
    ],
)
def test_only_what_may_be_otherwise_next_time_is_worth_another_start(
    error, outcome, is_saved, assignment, monkeypatch
) -> None:
    """And a state whose numbers went wrong is not kept."""

    def fail(*arguments):
        raise error

    saves: list[dict[str, bool]] = []
    session = SimpleNamespace(save=lambda **how: saves.append(how))
    monkeypatch.setattr(run, "_open", lambda *arguments: (session, None, None))
    monkeypatch.setattr(run, "run_peer", fail)
    ending = run_assignment(assignment)
    assert (ending.outcome, ending.message) == (outcome, str(error))
    assert bool(saves) == is_saved


@pytest.mark.parametrize(
    ("steps_trained", "is_frozen", "outcome"),
    [(0, False, Outcome.FAILED), (1, False, Outcome.FINISHED), (0, True, Outcome.FINISHED)],
)
def test_a_peer_that_made_no_update_has_not_finished(
    steps_trained, is_frozen, outcome, assignment, monkeypatch
) -> None:
    """It died before its first update, and came back when the others had done all steps."""
    session = SimpleNamespace(peer=SimpleNamespace(is_frozen=is_frozen))
    ends = SimpleNamespace(close=lambda: None)
    result = SimpleNamespace(steps_trained=steps_trained)
    monkeypatch.setattr(run, "_open", lambda *arguments: (session, ends, ends))
    monkeypatch.setattr(run, "run_peer", lambda *arguments: result)
    ending = run_assignment(assignment)
    assert ending.outcome is outcome
    assert ("has made no update" in ending.message) == (outcome is Outcome.FAILED)


@pytest.mark.parametrize("is_site", [True, False])
def test_what_there_is_to_know_of_its_weights_is_in_its_log_and_shown_at_a_site(
    is_site, assignment, tmp_path, monkeypatch, caplog
) -> None:
    """Elsewhere whoever started the run has told it."""
    notice = "w.pth: 120 names fit after 'module.'"
    peer = SimpleNamespace(notices=(notice,), is_frozen=False)
    monkeypatch.setattr(run, "open_session", lambda *given, **named: SimpleNamespace(peer=peer))
    monkeypatch.setattr(run, "run_peer", lambda *arguments: None)
    link = SimpleNamespace(close=lambda: None)
    around = PeerEnvironment(open_link=lambda peer_id, config: link, is_site=is_site)
    run_assignment(assignment, around)
    assert f"peer=wide {notice}" in log_of(tmp_path)
    levels = [one.levelname for one in caplog.records if notice in one.getMessage()]
    assert levels == ["WARNING" if is_site else "INFO"], "a site's terminal shows warnings"
