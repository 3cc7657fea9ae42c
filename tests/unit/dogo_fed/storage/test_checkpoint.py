"""Checkpoints: complete, atomic, never trusted further than weights; and the exported encoder."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from dogo_fed import atomic
from dogo_fed.contracts import PeerId
from dogo_fed.data.roles import StepImages
from dogo_fed.engine.step import absorb, propose
from dogo_fed.errors import CheckpointError, StorageFull
from dogo_fed.storage import checkpoint
from dogo_fed.storage.checkpoint import CheckpointStore, Progress
from dogo_fed.storage.peer_folder import PeerFolder
from tests.support.toy_peers import (
    WITH_TARGET,
    ToyBackbone,
    same_bits,
    state_of,
    toy_images,
    toy_peer,
)

ALL_SAVED = [0, 2, 4, 6, 8, 9, 10]


@pytest.fixture
def store(tmp_path):
    return CheckpointStore(tmp_path / "checkpoints", keep=2)


def train(peer, steps):
    return [
        absorb(peer, propose(peer, StepImages(toy_images(seed=step)), step), None) for step in steps
    ]


def save(store, peer, step, **progress):
    return store.save(peer.objective, peer.optimizer, Progress(step=step, **progress))


def load(store, peer, step):
    return store.load(step, peer.objective, peer.optimizer)


def load_latest(store, peer):
    return store.load_latest(peer.objective, peer.optimizer)


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "checkpoints").iterdir())


def sgd(objective):
    return torch.optim.SGD(objective.parameters(), lr=0.1, momentum=0.9)


@pytest.mark.parametrize("kind", ["simsiam", *WITH_TARGET])
@pytest.mark.parametrize("optimizer", [None, sgd])
def test_going_on_from_a_checkpoint_gives_the_same_bits_as_never_stopping(store, kind, optimizer):
    peer = toy_peer(kind, dropout=0.2, optimizer=optimizer)
    train(peer, range(3))
    save(store, peer, 3)
    losses = train(peer, range(3, 6))
    resumed = toy_peer(kind, dropout=0.2, optimizer=optimizer)
    assert load(store, resumed, 3).step == 3
    assert train(resumed, range(3, 6)) == losses
    assert same_bits(state_of(peer), state_of(resumed))


def test_without_the_optimizers_state_the_bits_would_differ(store):
    """The test above can fail: Adam's moments matter."""
    peer = toy_peer("simclr")
    train(peer, range(3))
    save(store, peer, 3)
    fresh = toy_peer("simclr")
    store.load(3, fresh.objective, toy_peer("simclr").optimizer)
    train(peer, [3])
    train(fresh, [3])
    assert not same_bits(state_of(peer), state_of(fresh))


@pytest.mark.parametrize(
    "name", ["target.backbone.conv.weight", "queue_KD", "queue_position", "target.num_updates"]
)
def test_without_an_objectives_own_state_the_bits_would_differ(store, name):
    """Target, queue and counters matter, and are in the file."""
    peer = toy_peer("moco_v2")
    peer.objective.target.total_updates = 9
    train(peer, range(3))
    path = save(store, peer, 3)
    content = torch.load(path, weights_only=True)
    content["objective"][name] = toy_peer("moco_v2").objective.state_dict()[name]
    torch.save(content, path)
    resumed = toy_peer("moco_v2")
    resumed.objective.target.total_updates = 9
    load(store, resumed, 3)
    train(peer, range(3, 5))
    train(resumed, range(3, 5))
    assert not same_bits(state_of(peer), state_of(resumed))


def test_the_progress_comes_back_whole(store):
    peer = toy_peer("simclr")
    progress = Progress(
        step=7,
        steps_trained=5,
        knn_top1_untrained=0.25,
        knn_top1=0.5,
        rankme_untrained=3.5,
        round=2,
        round_steps=3,
        ssl_loss_sum=1.5,
        mutual_kl_sum=0.125,
        round_exchanges=2,
        evaluation_due=2,
        evaluation_s=61.5,
        undelivered=[{"type": "step", "step": 6, "ssl_loss": 1.5, "mutual_kl": None}],
    )
    fresh = Progress()
    assert all(
        getattr(progress, item.name) != getattr(fresh, item.name)
        for item in dataclasses.fields(progress)
    ), "every field has a value of its own here"
    store.save(peer.objective, peer.optimizer, progress)
    assert load_latest(store, peer) == progress


def test_a_checkpoint_from_before_every_steps_has_exchanged_at_every_step(store):
    peer = toy_peer("simclr")
    path = save(store, peer, 5, round_steps=3, mutual_kl_sum=0.75)
    content = torch.load(path, weights_only=True)
    del content["progress"]["round_exchanges"]
    torch.save(content, path)
    assert load_latest(store, peer).round_exchanges == 3


def test_a_new_folder_has_no_checkpoints(store):
    assert store.steps() == []
    assert load_latest(store, toy_peer("simclr")) is None


@pytest.mark.parametrize("keep", [3, 4])
def test_only_the_latest_are_kept(tmp_path, keep):
    store = CheckpointStore(tmp_path / "checkpoints", keep=keep)
    peer = toy_peer("simclr")
    for step in (0, 5, 10, 100, 1000):
        assert save(store, peer, step).is_file()
    assert store.steps() == [0, 5, 10, 100, 1000][-keep:]
    assert len(files(tmp_path)) == keep


def test_the_newest_is_loaded(store):
    peer = toy_peer("simclr")
    save(store, peer, 9)
    train(peer, [0])
    save(store, peer, 10)
    newest = state_of(peer)
    train(peer, [1])
    assert load_latest(store, peer).step == 10
    assert same_bits(state_of(peer), newest)


def spoil(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes(
        {
            "torn": content[: len(content) // 2],
            "empty": b"",
            "no checkpoint": b"hello\n" * 50,
            "flipped": content[:-20] + bytes(20),
        }[how]
    )


@pytest.mark.parametrize("how", ["torn", "empty", "no checkpoint", "flipped"])
def test_a_broken_file_is_named_and_the_older_one_is_taken(store, how, caplog):
    peer = toy_peer("simclr")
    save(store, peer, 1, knn_top1=0.5)
    older = state_of(peer)
    train(peer, [0])
    path = save(store, peer, 2)
    spoil(path, how)
    with pytest.raises(CheckpointError, match="step-000000002") as caught:
        load(store, peer, 2)
    assert caught.value.__cause__ is not None
    progress = load_latest(store, peer)
    assert (progress.step, progress.knn_top1) == (1, 0.5)
    assert same_bits(state_of(peer), older)
    assert "step-000000002.pt" in caplog.text


def test_a_broken_file_is_not_in_the_way_of_the_one_that_is_written_again(store, tmp_path):
    """Who comes to a step that has a checkpoint does not save: see `PeerSession.save`."""
    peer = toy_peer("simclr")
    save(store, peer, 1)
    spoil(save(store, peer, 2), "torn")
    assert load_latest(store, peer).step == 1
    assert store.steps() == [1]
    assert (tmp_path / "checkpoints" / "ahead" / "step-000000002.pt").is_file()
    save(store, peer, 2)
    assert load_latest(store, peer).step == 2
    assert not list((tmp_path / "checkpoints" / "ahead").iterdir())


def test_where_all_are_broken_it_is_an_error_and_not_a_fresh_start(store):
    peer = toy_peer("simclr")
    for step in (1, 2):
        spoil(save(store, peer, step), "torn")
    with pytest.raises(CheckpointError):
        load_latest(store, peer)
    assert store.steps() == [1, 2]


def test_a_missing_step_is_an_error(store):
    save(store, toy_peer("simclr"), 1)
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        load(store, toy_peer("simclr"), 2)


def test_another_models_checkpoint_is_refused(store):
    save(store, toy_peer("simclr"), 1)
    with pytest.raises(CheckpointError, match="another model"):
        load(store, toy_peer("simsiam"), 1)
    with pytest.raises(CheckpointError, match="another model"):
        load_latest(store, toy_peer("simsiam"))


def test_another_optimizers_groups_are_refused(store):
    save(store, toy_peer("simclr"), 1)

    def fewer(objective):
        return torch.optim.Adam(objective.backbone.parameters(), lr=1e-3)

    with pytest.raises(CheckpointError):
        load(store, toy_peer("simclr", optimizer=fewer), 1)


def test_another_format_version_is_refused(store):
    path = save(store, toy_peer("simclr"), 1)
    content = torch.load(path, weights_only=True)
    torch.save({**content, "format_version": 99}, path)
    with pytest.raises(CheckpointError, match="format version 99"):
        load(store, toy_peer("simclr"), 1)


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self):
        return os.mkdir, (self.mark,)


@pytest.mark.parametrize("write", [torch.save, lambda it, path: path.write_bytes(pickle.dumps(it))])
def test_code_in_a_checkpoint_is_never_run(store, tmp_path, write):
    path = save(store, toy_peer("simclr"), 1)
    content = torch.load(path, weights_only=True)
    mark = tmp_path / "mark"
    write({**content, "extra": Evil(mark)}, path)
    with pytest.raises(CheckpointError, match="can't be used"):
        load(store, toy_peer("simclr"), 1)
    assert not mark.exists()
    torch.load(path, weights_only=False) if write is torch.save else pickle.loads(path.read_bytes())
    assert mark.exists(), "the file would have run code"


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["while writing", "before the rename"])
def test_an_interrupted_save_leaves_the_folder_as_it_was(
    store, tmp_path, monkeypatch, error, moment
):
    peer = toy_peer("simclr")
    save(store, peer, 1)
    save(store, peer, 2)
    before = {name: (tmp_path / "checkpoints" / name).read_bytes() for name in files(tmp_path)}

    write_bytes = Path.write_bytes

    def half_written(path, content):
        write_bytes(path, b"half")
        raise error

    def no_rename(source, target):
        assert Path(source).stat().st_size > 0
        raise error

    with monkeypatch.context() as patch:
        if moment == "while writing":
            patch.setattr(Path, "write_bytes", half_written)
        else:
            patch.setattr(os, "replace", no_rename)
        for step in (2, 3):
            with pytest.raises(type(error)):
                save(store, peer, step)
    assert {
        name: (tmp_path / "checkpoints" / name).read_bytes() for name in files(tmp_path)
    } == before


@pytest.mark.parametrize(
    ("lag_steps", "kept"),
    [
        (1, [8, 9, 10]),
        (2, [6, 8, 9, 10]),
        (3, [4, 6, 8, 9, 10]),
        (5, [2, 4, 6, 8, 9, 10]),
        (99, ALL_SAVED),
    ],
)
def test_what_a_peer_further_behind_may_have_is_kept(tmp_path, lag_steps, kept):
    """Of 3 steps behind 10, a peer has done at least 7, and its newest checkpoint may be of step 6.

    That may be broken, so the one of step 4 is kept as well.
    """
    store = CheckpointStore(tmp_path / "checkpoints", keep=2, lag_steps=lag_steps)
    peer = toy_peer("simclr")
    for step in ALL_SAVED:
        save(store, peer, step)
    assert store.steps() == kept


@pytest.mark.parametrize("every_steps", [1, 2, 3, 5])
@pytest.mark.parametrize("between_saves", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("total_steps", [11, 12])
def test_peers_killed_at_any_moment_have_a_step_in_common(
    tmp_path, monkeypatch, every_steps, between_saves, total_steps
):
    """Every pair of positions that two peers may have when they are killed, and the saves until then."""
    monkeypatch.setattr(torch, "save", lambda content, file: file.write(b"saved"))
    monkeypatch.setattr(checkpoint, "seal", lambda file: None)
    peer = toy_peer("simclr")
    due = sorted({*range(0, total_steps, between_saves), total_steps})
    store = CheckpointStore(tmp_path / "checkpoints", keep=2, lag_steps=every_steps)
    kept = []
    for position in range(total_steps + 1):
        if position in due:
            save(store, peer, position)
        kept.append(set(store.steps()))
    for slow in range(total_steps + 1):
        # Who is slow has shown what is due at this step, so the fast one may go to the next exchange.
        next_exchange = (slow // every_steps + 1) * every_steps
        for fast in range(slow, min(next_exchange, total_steps) + 1):
            common = [step for step in due if step <= slow]
            assert max(kept[slow] & kept[fast]) == common[-1]
            readable = (kept[slow] - {max(kept[slow])}) & (kept[fast] - {max(kept[fast])})
            assert not common[1:] or max(readable) == common[-2], "after a power cut, both torn"


def with_two(store):
    """Saves a peer at steps 0 and 10; returns it."""
    peer = toy_peer("simclr")
    for step in (0, 10):
        save(store, peer, step)
    return peer


def full(*given):
    """Stands for what writes to a disk that is full."""
    raise OSError(errno.ENOSPC, "No space left on device")


def test_on_a_full_disk_the_oldest_gives_its_room_and_peers_of_unlike_size_stay_in_step(
    store, tmp_path, monkeypatch
):
    """A peer that could save itself would else go on without the states that the other has."""
    peer = with_two(store)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        for step in (20, 30, 40):
            save(store, peer, step)
            assert store.steps() == [step - 10, step], "and none is lost on the way"
            assert [store.problem_with(one) for one in store.steps()] == [None, None]
    assert files(tmp_path) == ["step-000000030.pt", "step-000000040.pt"], "no partial file"
    fresh = CheckpointStore(tmp_path / "fresh", keep=2)
    save(fresh, peer, 0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(StorageFull):
            save(fresh, peer, 10)
    assert fresh.steps() == [0], "the only one is never written over"


def test_what_does_not_fit_into_the_room_of_the_oldest_is_an_error_and_the_others_stay(
    store, monkeypatch
):
    peer = with_two(store)
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(checkpoint, "room_of", lambda path: 10)
    with pytest.raises(StorageFull):
        save(store, peer, 20)
    assert store.steps() == [0, 10], "it is not even tried"
    monkeypatch.undo()
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(checkpoint, "write_over", lambda old, path, content: (old.unlink(), full()))
    with pytest.raises(StorageFull):
        save(store, peer, 20)
    assert store.steps() == [10] and store.problem_with(10) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps room")
def test_the_first_checkpoint_has_room_for_the_state_that_its_optimizer_will_get(store):
    """Else that of a later step would not fit into its place on a full disk."""
    peer = toy_peer("simclr", optimizer=lambda objective: torch.optim.Adam(objective.parameters()))
    first = save(store, peer, 0)
    train(peer, range(2))
    later = save(store, peer, 2)
    assert later.stat().st_size > first.stat().st_size
    if atomic.room_of(first) == first.stat().st_size:
        pytest.skip("this disk keeps no room")
    assert atomic.room_of(first) >= later.stat().st_size


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps room")
def test_whose_optimizer_never_gets_a_state_keeps_no_more_room_later(store):
    peer = toy_peer(
        "simclr", optimizer=lambda objective: torch.optim.SGD(objective.parameters(), lr=0.1)
    )
    train(peer, range(2))
    later = save(store, peer, 2)
    assert not peer.optimizer.state
    assert atomic.room_of(later) < later.stat().st_size + 2 * 4096


def test_other_files_in_the_folder_are_not_checkpoints(store, tmp_path):
    save(store, toy_peer("simclr"), 4)
    for name in (".step-000000009.ab.partial.pt", "step-9.pt", "step-000000009.pt.bak", "notes"):
        (tmp_path / "checkpoints" / name).write_text("x")
    assert store.steps() == [4]


def test_later_checkpoints_can_be_set_aside(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", keep=9)
    peer = toy_peer("simclr")
    for step in (1, 2, 3, 4):
        save(store, peer, step)
    later = store._path(4).read_bytes()
    store.set_aside_after(2)
    assert store.steps() == [1, 2]
    assert (tmp_path / "checkpoints" / "ahead" / "step-000000004.pt").read_bytes() == later


def test_the_exported_encoder_loads_into_the_plain_backbone(tmp_path):
    peer = toy_peer("simclr")
    train(peer, range(2))
    folder = PeerFolder(tmp_path, PeerId("cnn"))
    path = folder.export_encoder(peer.objective.backbone, {"peer": "cnn"})
    assert path == tmp_path / "peers" / "cnn" / "encoder.safetensors"
    plain = ToyBackbone()
    plain.load_state_dict(load_file(path))
    assert same_bits(dict(plain.state_dict()), dict(peer.objective.backbone.state_dict()))
    with safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["dogo_fed"])
    assert described["peer"] == "cnn" and described.keys() == {"peer", "tensors"}
    assert [item.name for item in path.parent.iterdir()] == ["encoder.safetensors"]


@pytest.mark.parametrize("place", [-1, -50, -100])
def test_a_bit_that_has_flipped_in_an_encoder_is_noticed(place, tmp_path):
    folder = PeerFolder(tmp_path, PeerId("cnn"))
    path = folder.export_encoder(ToyBackbone(), {"peer": "cnn"})
    folder.load_encoder(ToyBackbone())
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{path} is damaged"):
        folder.load_encoder(ToyBackbone())


def test_an_encoder_with_shared_tensors_is_exported_too(tmp_path):
    backbone = ToyBackbone()
    backbone.again = backbone.conv
    path = PeerFolder(tmp_path, PeerId("cnn")).export_encoder(backbone, {})
    assert load_file(path).keys() == backbone.state_dict().keys()
