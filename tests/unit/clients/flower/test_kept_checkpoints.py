"""What a site knows of its checkpoints: each is read once, however often and slowly it is asked."""

from __future__ import annotations

import os
import time

import pytest
import torch

from clients.flower.kept_checkpoints import KeptCheckpoints
from dogo_fed.storage.checkpoint import CheckpointStore, Progress
from dogo_fed.storage.going_on import FarCheckpoints


def ask(kept, store):
    return kept.look(store, time.monotonic() + 60.0)


@pytest.fixture
def store(tmp_path):
    made = CheckpointStore(tmp_path / "checkpoints", keep=9)
    model = torch.nn.Linear(2, 2)
    for step in (10, 20, 30):
        made.save(model, torch.optim.SGD(model.parameters(), lr=1.0), Progress(step=step))
    return made


@pytest.fixture
def read(monkeypatch):
    """The steps whose checkpoints were read, in order."""
    steps, problem_with = [], CheckpointStore.problem_with
    monkeypatch.setattr(
        CheckpointStore,
        "problem_with",
        lambda self, step: (steps.append(step), problem_with(self, step))[1],
    )
    return steps


def test_each_checkpoint_is_read_once(store, read):
    torn = store.folder / "step-000000020.pt"
    torn.write_bytes(torn.read_bytes()[:-100])
    kept = KeptCheckpoints()
    for _ in range(3):
        assert ask(kept, store) == FarCheckpoints((10, 30), (20,))
    assert read == [10, 20, 30]


def test_one_that_was_written_anew_is_read_again(store, read):
    kept, path = KeptCheckpoints(), store.folder / "step-000000020.pt"
    ask(kept, store)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    ask(kept, store)
    path.write_bytes(path.read_bytes()[:-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert ask(kept, store) == FarCheckpoints((10, 30), (20,))
    assert read == [10, 20, 30, 20, 20]


def test_who_has_no_time_left_goes_on_where_it_was(store, read):
    kept = KeptCheckpoints()
    all_three = FarCheckpoints((10, 20, 30))
    assert [kept.look(store, 0.0) for _ in range(4)] == [None, None, all_three, all_three]
    assert read == [10, 20, 30]


def test_one_message_waits_for_another_and_not_for_ever(store, read):
    kept = KeptCheckpoints()
    with kept._lock:
        assert kept.look(store, 0.0) is None
    assert read == []


def test_a_folder_without_checkpoints_has_none(tmp_path):
    none = CheckpointStore(tmp_path / "none", keep=1)
    assert KeptCheckpoints().look(none, 0.0) == FarCheckpoints()
