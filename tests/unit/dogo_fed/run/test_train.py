"""A run that goes on: what an earlier start has reached is never lost to one that could not start."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dogo_fed
from configs.compose import compose_run
from configs.resume import resumed
from dogo_fed import agreement
from dogo_fed.atomic import atomic_path
from dogo_fed.config import Precision, RunConfig
from dogo_fed.contracts import Event, EventKind, PeerId, RoundReport, StepReport
from dogo_fed.data import synthetic as synthetic_module
from dogo_fed.engine import session
from dogo_fed.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DogoError,
    ExchangeError,
    StartError,
    StorageFull,
)
from dogo_fed.exit_status import EXIT_UNUSABLE, status_of
from dogo_fed.reporting.sinks.metrics import MetricsLog, read_records
from dogo_fed.reporting.sinks.totals import RunTotals
from dogo_fed.run import train as train_module
from dogo_fed.run.local import run_local
from dogo_fed.run.prepare import prepare
from dogo_fed.run.train import conduct
from dogo_fed.storage.checkpoint import CheckpointStore
from dogo_fed.storage.going_on import FarCheckpoints
from dogo_fed.storage.provenance_file import read_starts
from dogo_fed.storage.run_folder import RunFolder, reopen
from tests.support.command_line import REPOSITORY, run_python
from tests.support.run_watch import records
from tests.support.tiny_run import TINY, run_here


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A finished run of three steps."""
    run_here(compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/run"]))
    return tmp_path / "run"


def gone_on(folder: Path, *overrides: str) -> RunConfig:
    given = [f"resume={folder}", *overrides]
    return resumed(compose_run(given), given)


def read_summary(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text())


def contents(folder: Path, *names: str) -> list[str]:
    return [(folder / name).read_text() for name in names]


def fails_with(error: DogoError):
    def host(run, folder, sink, stop_requested):
        raise error

    return host


@pytest.mark.parametrize(
    "error",
    [StartError("no Ray here"), ConfigError("port is taken"), DataError("images are missing")],
)
def test_a_start_that_fails_leaves_settings_and_summary_as_they_were(folder, error) -> None:
    before = contents(folder, "summary.json", "config.yaml")
    with pytest.raises(type(error), match=str(error)):
        conduct(prepare(gone_on(folder, "ray.address=nowhere:1", "steps=9")), fails_with(error))
    assert contents(folder, "summary.json", "config.yaml") == before
    assert run_here(gone_on(folder, "host=local"))["peers"], "and it goes on as if nothing was"


@pytest.mark.parametrize("setting", ["afresh=true", "steps=9"])
def test_a_start_that_fails_leaves_every_record(folder, setting) -> None:
    """Without its steps nobody could tell that a peer whose checkpoints are missing has trained."""
    before = records(folder)
    with pytest.raises(StartError):
        conduct(prepare(gone_on(folder, setting)), fails_with(StartError("no Ray here")))
    after = records(folder)
    assert after[: len(before)] == before
    assert after[len(before)]["kind"] == "resumed"
    assert {one["type"] for one in after[len(before) :]} == {"event"}
    assert not (folder / "metrics.jsonl.before").exists()


def test_a_start_that_is_killed_before_a_peer_reports_leaves_every_record(
    folder, monkeypatch
) -> None:
    before = records(folder)
    with monkeypatch.context() as killed:
        killed.setattr(RunFolder, "put_records_back", lambda self: None)
        with pytest.raises(StartError):
            conduct(prepare(gone_on(folder, "afresh=true")), fails_with(StartError("killed")))
    cut_back = records(folder)
    assert not [one for one in cut_back if one["type"] == "step"]
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"type":"event","ki')
    for name, at_s in (("summary.json", 1000), ("config.yaml", 2000), ("metrics.jsonl", 2007)):
        os.utime(folder / name, (at_s, at_s))
    earlier_s = [one["at_s"] for one in cut_back if one["type"] == "event"][-1]
    run_here(gone_on(folder, "host=local", "steps=4"))
    assert [one["at_s"] for one in records(folder) if one.get("kind") == "resumed"][-1] == (
        earlier_s + 7.0
    ), "how long it took is told by the times of its files, which stay"
    events = [one for one in before + cut_back if one["type"] == "event"]
    assert [one for one in records(folder) if one in events] == [
        *(one for one in before if one["type"] == "event"),
        *(one for one in cut_back if one not in before),
    ]
    steps = [(one["peer"], one["step"]) for one in records(folder) if one["type"] == "step"]
    assert sorted(steps) == [(name, step) for name in ("resnet", "wide") for step in range(4)]


def test_a_peer_that_reports_makes_the_earlier_records_past(folder) -> None:
    def host(run, folder, sink, stop_requested):
        sink.emit(StepReport(PeerId("wide"), 1, 0, 1.0, 1.0, 1, 1.0, 1.0, 1.0, 1, 1))
        raise DataError("image 7 is torn")

    with pytest.raises(DataError):
        conduct(prepare(gone_on(folder, "afresh=true")), host)
    steps = [(one["peer"], one["step"]) for one in records(folder) if one["type"] == "step"]
    assert steps == [("wide", 0)]


def test_a_start_that_fails_leaves_the_cut_of_the_data_as_it_was(folder) -> None:
    (folder / "partition.csv").write_text("index,peer\n")
    run = prepare(gone_on(folder, "afresh=true"))
    run = dataclasses.replace(
        run, cut=SimpleNamespace(to_csv=lambda: "another\n", anchors_from=None)
    )
    with pytest.raises(StartError):
        conduct(run, fails_with(StartError("no Ray here")))
    assert (folder / "partition.csv").read_text() == "index,peer\n"


def test_a_disk_that_is_full_at_once_leaves_settings_and_summary_as_they_were(
    folder, monkeypatch
) -> None:
    before = contents(folder, "summary.json", "config.yaml")

    def refuse(self, steps):
        self.close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MetricsLog, "truncate_after", refuse)
    with pytest.raises(StorageFull):
        run_here(gone_on(folder, "steps=9"))
    assert contents(folder, "summary.json", "config.yaml") == before


def test_a_run_that_could_start_and_failed_has_a_summary_of_that(folder) -> None:
    with pytest.raises(ExchangeError):
        conduct(prepare(gone_on(folder, "steps=9")), fails_with(ExchangeError("peer wide died")))
    assert json.loads((folder / "summary.json").read_text())["steps"] == 9
    assert "steps: 9" in (folder / "config.yaml").read_text()


def test_private_images_that_have_changed_leave_settings_and_summary_as_they_were(
    tmp_path, monkeypatch
) -> None:
    """Only the peer's own folder knows them, so they are compared when the peer is opened."""
    options = "peers.wide.data.options"
    private = [
        "+data@peers.wide.data=synthetic", f"{options}.size=40", f"{options}.test_size=16",
        f"{options}.seed=1",
    ]  # fmt: skip
    folder = tmp_path / "run"
    run_here(compose_run([*TINY, "peers=pair", *private, f"run_dir={folder}"]))
    before = contents(folder, "summary.json", "config.yaml", "provenance.json")
    original = synthetic_module.synthetic

    def swapped(**options):
        return original(**{**options, "seed": 2 * options.get("seed", 0)})

    monkeypatch.setattr(synthetic_module, "synthetic", swapped)
    with pytest.raises(DataError, match="the images are not those of peer wide") as caught:
        run_here(gone_on(folder, "steps=9"))
    assert status_of(caught.value) == EXIT_UNUSABLE
    assert contents(folder, "summary.json", "config.yaml", "provenance.json") == before


@pytest.mark.parametrize(
    "report",
    [
        StepReport(PeerId("wide"), 2, 3, 1.0, 1.0, 1, 1.0, 1.0, 1.0, 1, 1),
        RoundReport(PeerId("wide"), 5, 3, 0.5, 1.0),
    ],
)
def test_a_run_that_fails_on_its_way_has_a_summary_of_that_whatever_the_error(
    folder, report
) -> None:
    def host(run, folder, sink, stop_requested):
        sink.emit(report)
        raise DataError("image 7 is torn")

    with pytest.raises(DataError):
        conduct(prepare(gone_on(folder, "steps=9")), host)
    assert read_summary(folder)["steps"] == 9
    assert "steps: 9" in (folder / "config.yaml").read_text()
    assert report in read_records(folder / "metrics.jsonl")


def test_a_new_run_that_can_not_start_still_leaves_a_folder_that_says_so(tmp_path) -> None:
    config = compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/new"])
    with pytest.raises(StartError):
        conduct(prepare(config), fails_with(StartError("no room")))
    assert {"config.yaml", "summary.json"} <= {path.name for path in (tmp_path / "new").iterdir()}


@pytest.mark.parametrize("setting", ["run_dir", "resume"])
def test_a_folder_whose_name_is_no_text_is_refused(setting, tmp_path) -> None:
    config = compose_run([*TINY, "peers=pair"])
    with pytest.raises(ConfigError, match=r"r\\udcff' has a name that is not UTF-8"):
        run_here(dataclasses.replace(config, **{setting: f"{tmp_path}/r\udcff"}))
    assert list(tmp_path.iterdir()) == []


def test_a_run_can_not_end_before_what_it_has_done(folder) -> None:
    before = contents(folder, "summary.json", "config.yaml")
    with pytest.raises(
        ConfigError,
        match=r"has done 3 steps already, by what peer \w+ has, so it can't end after 2; give steps=3",
    ):
        run_here(gone_on(folder, "steps=2"))
    assert contents(folder, "summary.json", "config.yaml") == before
    assert run_here(gone_on(folder, "steps=3"))["steps"] == 3


def kinds(folder: Path) -> dict[str, str]:
    return {one["kind"]: one["message"] for one in records(folder) if one["type"] == "event"}


def files(folder: Path) -> dict[str, bytes]:
    return {str(one): one.read_bytes() for one in folder.rglob("*.pt")}


def test_what_changed_is_recorded_with_old_and_new_value(folder) -> None:
    run_here(gone_on(folder, "eval.knn_k=4", "steps=4"))
    assert kinds(folder)["settings_changed"] == (
        "settings changed for the steps from 3 on: steps 3 -> 4, eval.knn_k 5 -> 4"
    )


def test_where_nothing_changed_nothing_is_said(folder) -> None:
    run_here(gone_on(folder))
    assert not {"settings_changed", "provenance_changed"} & set(kinds(folder))
    assert len(read_starts(folder)) == len(read_summary(folder)["provenance"]) == 1


def test_a_run_does_not_go_on_with_other_images_unless_it_begins_again(folder, monkeypatch) -> None:
    before = contents(folder, "summary.json", "config.yaml", "provenance.json")
    original = synthetic_module.synthetic

    def swapped(**options):
        return original(**{**options, "seed": 1})

    monkeypatch.setattr(synthetic_module, "synthetic", swapped)
    with pytest.raises(DataError, match=r"fingerprint was \w{32} and is \w{32}.*afresh=true"):
        run_here(gone_on(folder, "steps=4"))
    assert contents(folder, "summary.json", "config.yaml", "provenance.json") == before
    (then,) = read_starts(folder)
    run_here(gone_on(folder, "steps=1", "afresh=true"))
    (now,) = read_starts(folder)
    assert now.provenance.data.differences(then.provenance.data)


def test_images_that_were_moved_are_taken_and_others_at_their_place_are_not(tmp_path) -> None:
    def written(place: str, seed: int) -> Path:
        draw = np.random.default_rng(seed)
        arrays = {
            f"{part}_images": draw.integers(0, 256, (number, 16, 16, 3), dtype=np.uint8)
            for part, number in (("train", 96), ("test", 32))
        }
        labels = {
            f"{part}_labels": np.arange(len(arrays[f"{part}_images"])) % 4
            for part in ("train", "test")
        }
        (tmp_path / place).mkdir()
        np.savez(tmp_path / place / "photos.npz", **arrays, **labels)
        return tmp_path / place / "photos.npz"

    before, moved, others = written("before", 0), written("moved", 0), written("others", 1)
    settings = [setting for setting in TINY if not setting.startswith("data")]
    folder = tmp_path / "run"
    run_here(
        compose_run(
            [
                *settings,
                "data=npz",
                f"data.options.path={before}",
                "peers=pair",
                f"run_dir={folder}",
            ]
        )
    )
    before.unlink()
    with pytest.raises(DataError, match=r"fingerprint was \w{32} and is \w{32}"):
        run_here(gone_on(folder, f"+data.options.path={others}", "steps=4"))
    assert run_here(gone_on(folder, f"+data.options.path={moved}", "steps=4"))["steps_done"] == 4
    assert dogo_fed.load_run_config(folder).data.options["path"] == str(moved)


def from_python(folder: Path, **changes: Any) -> RunConfig:
    saved = dogo_fed.load_run_config(folder)
    return dataclasses.replace(saved, resume=str(folder), **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 9}, "seed is 0 in the run and 9 now"),
        ({"seed": 9, "afresh": True}, "seed is 0 in the run and 9 now"),
        ({"batch_size": 8}, "batch_size is 16 in the run and 8 now"),
        ({"precision": Precision.AUTO}, 'precision is "fp32" in the run and "auto" now'),
    ],
)
def test_from_python_too_no_run_goes_on_with_other_trained_numbers(
    folder, monkeypatch, changes, said
) -> None:
    monkeypatch.setattr("dogo_fed.run.prepare.with_fastest", lambda run: run)
    before = contents(folder, "summary.json", "config.yaml", "metrics.jsonl")
    goes_on = r"can't be changed when a run goes on\. .*load_run_config.* or begin a new run"
    with pytest.raises(ConfigError, match=rf"^resume=.*: {said}, and {goes_on}"):
        dogo_fed.train(from_python(folder, **changes))
    assert contents(folder, "summary.json", "config.yaml", "metrics.jsonl") == before


def test_from_python_what_follows_from_the_images_need_not_be_named_again(
    folder, monkeypatch
) -> None:
    """And what decides no trained number may be another."""
    monkeypatch.setattr(train_module, "draw_curves", lambda *arguments: None)
    again = from_python(folder, batch_size=None, steps=4, threads_per_peer=2)
    assert dogo_fed.train(again)["steps_done"] == 4
    said = kinds(folder)["settings_changed"]
    assert said.endswith("steps from 3 on: steps 3 -> 4, threads_per_peer 1 -> 2")


def test_other_code_is_an_event_and_stays_in_folder_and_summary(folder, monkeypatch) -> None:
    monkeypatch.setattr(agreement, "source_digest", lambda: "0" * 32)
    run_here(gone_on(folder, "steps=4"))
    message = kinds(folder)["provenance_changed"]
    assert message.startswith("the steps from 3 on are made with something else: source was ")
    assert message.endswith(f"and is {'0' * 32}")
    assert [one.step for one in read_starts(folder)] == [0, 3]
    assert [one["step"] for one in read_summary(folder)["provenance"]] == [0, 3]


def test_a_start_that_fails_leaves_the_provenance_as_it_was(folder, monkeypatch) -> None:
    before = contents(folder, "provenance.json")
    monkeypatch.setattr(agreement, "source_digest", lambda: "0" * 32)
    with pytest.raises(StartError):
        conduct(prepare(gone_on(folder, "steps=4")), fails_with(StartError("no room")))
    assert contents(folder, "provenance.json") == before


def test_checkpoints_that_are_missing_end_nothing_but_this_start(folder) -> None:
    """Not the others' checkpoints either, and not what the run has reached."""
    for path in (folder / "peers" / "wide" / "checkpoints").iterdir():
        path.unlink()
    before, texts = files(folder), contents(folder, "summary.json", "config.yaml", "metrics.jsonl")
    with pytest.raises(CheckpointError, match=r"peer wide has no checkpoint in .*afresh=true"):
        run_here(gone_on(folder))
    assert files(folder) == before
    assert contents(folder, "summary.json", "config.yaml", "metrics.jsonl") == texts


def test_a_run_begins_again_if_that_is_asked_for_and_sets_aside_what_was_there(folder) -> None:
    digests = {name: one["state_digest"] for name, one in read_summary(folder)["peers"].items()}
    before = {Path(path).name for path in files(folder)}
    assert run_here(gone_on(folder, "afresh=true", "steps=1"))["steps"] == 1
    assert {one["step"] for one in records(folder) if one["type"] == "step"} == {0}
    aside = {Path(path).name for path in files(folder) if "ahead" in path}
    assert aside == {name for name in before if name > "step-000000001.pt"}
    assert "begins again at step 0" in kinds(folder)["resumed"]
    again = run_here(gone_on(folder, "steps=3"))
    assert {name: one["state_digest"] for name, one in again["peers"].items()} == digests
    assert not [path for path in files(folder) if "ahead" in path]


def test_a_flipped_bit_is_noticed_said_and_costs_one_checkpoint(folder) -> None:
    newest = max((folder / "peers" / "wide" / "checkpoints").iterdir())
    digests = {name: one["state_digest"] for name, one in read_summary(folder)["peers"].items()}
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 4
    newest.write_bytes(content)
    again = run_here(gone_on(folder))
    assert newest.name in kinds(folder)["checkpoint_passed_over"]
    assert {name: one["state_digest"] for name, one in again["peers"].items()} == digests


def without_later_checkpoints(folder: Path) -> None:
    """A run of 6 steps, of which one peer has no checkpoint after step 2."""
    run_here(gone_on(folder, "steps=6", "checkpoint.every_steps=1", "checkpoint.keep=9"))
    for step in (3, 4, 5, 6):
        (folder / "peers" / "wide" / "checkpoints" / f"step-{step:09d}.pt").unlink()


def test_a_peer_that_was_lost_for_good_joins_late(folder) -> None:
    """As one that comes back to a run that still goes on; the others go on where they are."""
    without_later_checkpoints(folder)
    with closing(MetricsLog(folder / "metrics.jsonl")) as log:
        log.emit(Event(EventKind.PEER_LOST, "peer wide died", PeerId("wide"), step=4))
    summary = run_here(gone_on(folder, "steps=8"))
    assert {name: one["steps_trained"] for name, one in summary["peers"].items()} == {
        "resnet": 8,
        "wide": 4,
    }
    assert "peer wide joins late" in kinds(folder)["peer_late"]


def test_a_peer_that_nobody_went_on_without_misses_no_step(folder) -> None:
    """It had no room for its later checkpoints, or somebody has removed them."""
    without_later_checkpoints(folder)
    summary = run_here(gone_on(folder, "steps=8"))
    assert [one["steps_trained"] for one in summary["peers"].values()] == [8, 8]
    assert "peer_late" not in kinds(folder)


def test_without_an_exchange_each_peer_goes_on_from_its_own(tmp_path) -> None:
    settings = [
        *TINY, "peers=pair", "exchange.enabled=false", "checkpoint.every_steps=1", "checkpoint.keep=9",
    ]  # fmt: skip
    whole = run_here(compose_run([*settings, f"run_dir={tmp_path}/whole"]))
    run_here(compose_run([*settings, f"run_dir={tmp_path}/run"]))
    for step in (2, 3):
        path = f"peers/wide/checkpoints/step-{step:09d}.pt"
        (tmp_path / "run" / path).unlink()
    run_here(gone_on(tmp_path / "run"))
    again = read_summary(tmp_path / "run")
    for name, one in whole["peers"].items():
        assert again["peers"][name]["state_digest"] == one["state_digest"]
    done = [
        (one["peer"], one["step"]) for one in records(tmp_path / "run") if one["type"] == "step"
    ]
    assert sorted(done) == [(name, step) for name in ("resnet", "wide") for step in range(3)]


def test_a_run_that_goes_on_already_is_not_joined_by_a_second_start(folder) -> None:
    def host(run, folder, sink, stop_requested):
        for again in (gone_on(folder.path), dataclasses.replace(run.config, resume=None)):
            again = dataclasses.replace(again, run_dir=str(folder.path))
            with pytest.raises(ConfigError, match=r"a run goes on in .* writes there"):
                run_here(again)

    before = files(folder)
    conduct(prepare(gone_on(folder)), host)
    assert files(folder) == before
    assert not (folder / "run.lock").exists()


def test_what_a_killed_save_has_left_is_removed_and_what_others_write_is_not(folder) -> None:
    store = folder / "peers" / "wide" / "checkpoints"
    left = run_python(
        [
            "-c",
            "import sys, os\n"
            "from dogo_fed.atomic import atomic_path\n"
            "with atomic_path(sys.argv[1]) as partial:\n"
            "    partial.write_bytes(b'half')\n"
            "    print(partial, flush=True)\n"
            "    os._exit(0)",
            str(store / "step-000000009.pt"),
        ],
        REPOSITORY,
    ).strip()
    assert Path(left).exists() and Path(left).parent == store
    with atomic_path(store / "step-000000008.pt") as lives:
        lives.write_bytes(b"half")
        foreign = [
            store / ".mine.partial.pt",
            store / re.sub(r"\.[0-9a-f]{8}-", ".00000000-", Path(left).name),
        ]
        for path in foreign:
            path.write_bytes(b"somebody's")
        run_here(gone_on(folder))
        assert not Path(left).exists()
        assert lives.exists() and all(path.exists() for path in foreign)
    (store / "step-000000008.pt").unlink()


class FullDisk:
    """Says that the disk is full whenever one of these files is written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
        self.is_full, self.num_refused = True, 0
        write_bytes = Path.write_bytes

        def write(path: Path, content: bytes) -> int:
            if self.is_full and path.match(pattern):
                self.num_refused += 1
                raise OSError(errno.ENOSPC, "No space left on device")
            return write_bytes(path, content)

        monkeypatch.setattr(Path, "write_bytes", write)


def test_a_full_disk_is_one_sentence_and_training_goes_on(tmp_path, monkeypatch, caplog) -> None:
    disk = FullDisk(monkeypatch, "wide/checkpoints/.step-*")
    monkeypatch.setattr(session, "_SAVE_AGAIN_S", 0.0)
    settings = [*TINY, "peers=pair", "steps=6", "checkpoint.every_steps=3", "checkpoint.keep=9"]
    config = compose_run([*settings, f"run_dir={tmp_path}/run"])
    store = tmp_path / "run" / "peers" / "wide" / "checkpoints"

    def make_room_after_step_4(record) -> None:
        if isinstance(record, StepReport) and (record.peer, record.step) == ("wide", 4):
            assert list(store.iterdir()) == [], "and no half-written file is left"
            disk.is_full = False

    emit = RunTotals.emit
    monkeypatch.setattr(
        RunTotals,
        "emit",
        lambda self, record: (make_room_after_step_4(record), emit(self, record))[1],
    )
    summary = run_here(config)
    assert summary["peers"]["wide"]["steps_trained"] == 6
    said = [one.message for one in caplog.records if "no room for" in one.message]
    assert len(said) == 1 and str(store) in said[0] and "MiB are free" in said[0]
    assert disk.num_refused == 5, "at the start, and then after each step"
    assert sorted(path.name for path in store.iterdir()) == [
        "step-000000005.pt",
        "step-000000006.pt",
    ]


def test_a_disk_that_stays_full_fails_the_run_in_one_sentence(tmp_path, monkeypatch) -> None:
    FullDisk(monkeypatch, "wide/checkpoints/.step-*")
    with pytest.raises(StorageFull, match=r"no room for checkpoint step-000000003\.pt in .*wide"):
        run_here(compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/run"]))
    assert read_summary(tmp_path / "run")["steps_done"] == 3


def test_the_time_of_all_starts_counts(folder) -> None:
    first_s = read_summary(folder)["wall_s"]
    again_s = run_here(gone_on(folder, "steps=4"))["wall_s"]
    assert again_s > first_s
    # As if a later start had been killed 100 s after its beginning.
    begun_s = (folder / "config.yaml").stat().st_mtime
    os.utime(folder / "config.yaml", (begun_s + 1000, begun_s + 1000))
    os.utime(folder / "metrics.jsonl", (begun_s + 1100, begun_s + 1100))
    assert first_s + 100 < run_here(gone_on(folder, "steps=5"))["wall_s"] < first_s + 1000


def test_a_stopped_run_has_a_summary_of_what_was_done(tmp_path) -> None:
    turns = iter(range(9))
    config = compose_run([*TINY, "peers=pair", "steps=9", f"run_dir={tmp_path}/run"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "draw_curves", lambda *arguments: None)
        summary = conduct(
            prepare(config),
            lambda run, folder, sink, stop: run_local(run, folder, sink, lambda: next(turns) >= 4),
            sites=lambda: {"resnet"},
        )
    assert (summary["steps_done"], summary["steps"], summary["peers"]) == (5, 9, {})
    wide = summary["unfinished"]["wide"]
    assert wide["steps_trained"] == 5 and wide["knn_top1"] is not None
    assert (wide["backbone"], wide["objective"]) == (
        str(config.peers["wide"].backbone),
        config.peers["wide"].objective.name,
    )
    # The settings of a peer at a site are the site's own, so its network is not known here.
    far = summary["unfinished"]["resnet"]
    assert far["steps_trained"] == 5 and (far["backbone"], far["objective"]) == (None, None)


def test_a_run_whose_peers_are_elsewhere_goes_on_where_they_say(folder) -> None:
    """As in a deployment: the checkpoints are at the sites, and the run folder has none."""
    config = gone_on(folder, "steps=9")
    (folder / "peers").rename(folder.parent / "sites")

    def reopened(**far):
        far = {PeerId(name): FarCheckpoints(steps) for name, steps in far.items()}
        return reopen(folder, config, 9, lambda step: step, lambda run_id: far)

    found = reopened(resnet=(2, 3), wide=(1, 2))
    assert (found.first_step, dict(found.checkpoints)) == (2, {"resnet": 2, "wide": 2})
    lying = reopened(resnet=(2, 3), wide=(2, 3, 10, 10**4000))
    assert dict(lying.checkpoints) == {"resnet": 3, "wide": 3} and lying.first_step == 3
    (said,) = lying.events
    assert (said.kind, said.peer) == (EventKind.CHECKPOINT_PASSED_OVER, "wide")
    assert "later steps than 9" in said.message and "2 of them" in said.message
    with pytest.raises(CheckpointError, match=r"peer wide has no checkpoint in .* at its site"):
        reopened(resnet=(2, 3), wide=())
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*peers/resnet/checkpoints"):
        reopen(folder, config, 9, lambda step: step)


def test_a_picture_that_can_not_be_drawn_is_said_and_fails_no_run(
    tmp_path, monkeypatch, caplog
) -> None:
    def fail(*arguments):
        raise ValueError("\\frac{ is no formula")

    monkeypatch.setattr("dogo_fed.run.train.draw_curves", fail)
    config = compose_run([*TINY, "peers=pair", f"run_dir={tmp_path}/run"])
    summary = conduct(prepare(config), run_local)
    assert summary["peers"] and (tmp_path / "run" / "summary.json").exists()
    assert "curves.png could not be drawn: ValueError" in caplog.text


SETTINGS = {
    "peers": {
        "cnn": {
            "backbone": {"name": "small_cnn", "options": {"width": 4}},
            "objective": {"name": "simclr"},
            "augmentation": {"name": "simclr"},
            "optimizer": {"name": "adam", "options": {"lr": 0.001}},
        }
    },
    "data": {"name": "mine"},
    "steps": 2,
    "batch_size": 8,
}


class Photos:
    """Images without a class, as a torch data set has them."""

    def __len__(self):
        return 30

    def __getitem__(self, index):
        return np.full((8, 8, 3), index, dtype=np.uint8)


def test_a_notebook_may_pass_plain_mappings_and_its_own_data(tmp_path):
    summary = dogo_fed.train({**SETTINGS, "run_dir": str(tmp_path / "run")}, dataset=Photos())
    (peer,) = summary["peers"].values()
    assert peer["steps_trained"] == 2 and peer["knn_top1"] is None and peer["rankme"] > 0
    assert summary["provenance"][0]["data"]["num_train"] == 27


@pytest.mark.parametrize(
    ("config", "dataset", "says"),
    [
        (["steps=2"], None, r"takes a dogo_fed\.RunConfig, or a mapping like a run's config"),
        ({**SETTINGS, "epochs": 3}, None, "unknown setting 'epochs'"),
        (SETTINGS, [1, 2], "returned a list, not a DataSet, a map-style data set or a pair"),
        (SETTINGS, {"train": 1}, "returned a dict"),
    ],
)
def test_what_a_notebook_may_not_pass_is_said(config, dataset, says):
    with pytest.raises(ConfigError, match=says):
        dogo_fed.train(config, dataset=dataset)


# ---- a report that was written, but whose receiver was killed before it answered ----


def test_a_step_that_was_told_before_the_kill_is_not_told_again(folder: Path, monkeypatch) -> None:
    """The peer has kept the reports with its checkpoint, since it does not know that they arrived."""
    told = [one for one in records(folder) if one["type"] in ("step", "round")]
    load = CheckpointStore.load

    def load_with_kept_reports(self, *arguments):
        progress = load(self, *arguments)
        peer = self.folder.parent.name
        progress.undelivered = [one for one in told if one["peer"] == peer][-3:]
        assert len(progress.undelivered) == 3
        return progress

    monkeypatch.setattr(CheckpointStore, "load", load_with_kept_reports)
    run_here(gone_on(folder, "steps=5"))
    again = [one for one in records(folder) if one["type"] in ("step", "round")]
    keys = [(one["peer"], one["type"], one["round"], one["step"]) for one in again]
    assert len(set(keys)) == len(keys)
    for peer in ("resnet", "wide"):
        steps = [step for name, kind, _, step in keys if (name, kind) == (peer, "step")]
        assert steps == [0, 1, 2, 3, 4]
    assert all(one["steps_trained"] == 5 for one in read_summary(folder)["peers"].values())
