"""The images of a pass are the same, wherever they lie and whenever they were gathered."""

from __future__ import annotations

import dataclasses
import threading

import pytest
import torch

from configs.compose import compose_run
from dogo_fed.data.roles import DataRoles
from dogo_fed.data.source import MappedImages, Subset, TensorImages, takes_time
from dogo_fed.engine import feed as feed_module
from dogo_fed.engine.feed import Feed, resident
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.errors import DataError
from tests.support.image_folders import write_folder
from tests.support.tiny_run import TINY

CPU = torch.device("cpu")
SET_BYTES = 96 * 3 * 16 * 16
PRIVATE = ("partition=dirichlet", "partition.alpha=1", "partition.least_images=8")


def passes_of(*settings):
    return load_run(compose_run([*TINY, *settings])).passes["wide"]


def same(one, two):
    if one.labels_P is not None and not torch.equal(one.labels_P, two.labels_P):
        return False
    return torch.equal(one.images_NCHW, two.images_NCHW) and (one.own, one.shared) == (
        two.own,
        two.shared,
    )


@pytest.mark.parametrize("settings", [(), PRIVATE])
def test_a_set_on_the_device_gives_the_same_passes(settings):
    passes = passes_of(*settings)
    there = resident(passes, CPU, 10**9)
    for step in (0, 1, 7):
        given = passes.images(step, with_labels=True)
        assert same(there.images(step, with_labels=True), given)
    for one in (there.data.shared, there.data.own):
        assert isinstance(one.train, TensorImages)
    assert (there.data.own is there.data.shared) == (not settings)


def test_a_set_that_does_not_fit_stays_where_it_is():
    assert resident(passes_of(), CPU, SET_BYTES - 1) is None
    assert resident(passes_of(), CPU, SET_BYTES) is not None


def test_a_set_that_is_there_needs_no_room_for_the_next_peer():
    run = load_run(compose_run(TINY))
    first = resident(run.passes["wide"], CPU, SET_BYTES)
    second = resident(run.passes["resnet"], CPU, 0)
    assert second is not None and second.data.shared.train is first.data.shared.train


def test_a_set_goes_there_in_parts_and_is_there_once(monkeypatch):
    passes = passes_of()
    all_of_them = torch.arange(96)
    expected = passes.data.shared.train.images(all_of_them)
    monkeypatch.setattr(feed_module, "_IMAGES_AT_A_TIME", 10)
    monkeypatch.setattr(torch, "cat", lambda *given: pytest.fail("that needs twice the room"))
    there = resident(passes, CPU, SET_BYTES)
    assert torch.equal(there.data.shared.train.images(all_of_them), expected)


def test_the_next_pass_is_gathered_meanwhile_and_is_the_same(monkeypatch):
    passes = passes_of(*PRIVATE)
    feed = Feed(passes, CPU, with_labels=True, ahead=True)
    gathered = []
    original = Feed._gathered

    def noting(self, step):
        gathered.append((step, threading.current_thread() is threading.main_thread()))
        return original(self, step)

    monkeypatch.setattr(Feed, "_gathered", noting)
    for step in (0, 1, 2, 9, 10):  # a peer that fell behind goes on at step 9
        assert same(feed.take(step), passes.images(step, with_labels=True))
    feed.close()
    assert [step for step, is_here in gathered if is_here] == [0, 9], "the others were there"
    assert {1, 2, 3, 10} <= {step for step, is_here in gathered if not is_here}


def test_what_fails_in_the_thread_is_raised_at_its_step(monkeypatch):
    feed = Feed(passes_of(), CPU, with_labels=False, ahead=True)
    feed.take(0)
    feed.take(1)

    def gone(self, step):
        raise OSError("the disk is gone")

    monkeypatch.setattr(Feed, "_gathered", gone)
    feed.take(2)
    with pytest.raises(OSError, match="the disk is gone"):
        feed.take(3)
    feed.close()


def test_on_a_cpu_only_a_large_set_is_gathered_ahead(monkeypatch):
    """It may be on disk; of a small one nothing would be gained."""
    for least_bytes, is_ahead in ((SET_BYTES + 1, False), (SET_BYTES, True)):
        monkeypatch.setattr(feed_module, "LARGE_BYTES", least_bytes)
        feed = Feed.of(passes_of(), CPU, with_labels=False)
        assert (feed._worker is not None) == is_ahead
        feed.close()


def test_images_that_are_decoded_for_each_pass_are_decoded_ahead(tmp_path):
    """However few they are: decoding takes time on a CPU too."""
    write_folder(tmp_path)
    for settings, is_ahead in (((), False), (("data.options.cache_dir=off",), True)):
        folder = ["data=image_folder", f"data.options.root={tmp_path}", "data.options.image_size=8"]
        config = compose_run([*folder, "batch_size=4", "eval.knn_k=1", "steps=1", *settings])
        feed = Feed.of(load_run(config).passes["wide"], CPU, with_labels=False)
        assert (feed._worker is not None) == is_ahead
        feed.close()


def test_whether_images_are_decoded_is_known_of_parts_and_changed_ones_too():
    class Decoded(TensorImages):
        takes_time = True

    arguments = torch.zeros(4, 3, 2, 2, dtype=torch.uint8), torch.zeros(4)
    for source, expected in ((TensorImages(*arguments), False), (Decoded(*arguments), True)):
        part = Subset(source, torch.arange(2))
        changed = MappedImages(part, lambda images_BCHW, ids_B: images_BCHW)
        assert [takes_time(one) for one in (source, part, changed)] == 3 * [expected]


def test_a_disk_that_hangs_is_told(monkeypatch):
    monkeypatch.setattr(feed_module, "_GATHERED_WITHIN_S", 0.05)
    feed, ends = Feed(passes_of(), CPU, with_labels=False, ahead=True), threading.Event()
    feed._next = (0, feed._worker.submit(ends.wait))
    with pytest.raises(DataError, match="is the disk away"):
        feed.take(0)
    ends.set()
    feed.close()


def test_images_of_a_class_that_can_not_be_watched_are_on_the_device_too():
    """Python can't tell when they are gone, so they stay."""

    class Slotted:
        __slots__ = ("images", "labels")

        def __len__(self):
            return len(self.labels)

    passes = passes_of()
    plain, source = passes.data.shared, Slotted()
    source.images, source.labels = plain.train.images, plain.train.labels
    held = dataclasses.replace(plain, train=source)
    own = dataclasses.replace(passes, data=DataRoles.all_of(held))
    assert same(
        resident(own, CPU, SET_BYTES).images(0, with_labels=True),
        passes.images(0, with_labels=True),
    )
    assert any(one is source for one in feed_module._kept)


def test_who_asks_again_gets_the_same_images():
    feed = Feed(passes_of(), CPU, with_labels=True, ahead=True)
    given = feed.take(0)
    gathered = feed._next
    assert feed.take(0) is given and feed._next is gathered
    assert feed.take(1) is not given
    feed.close()


def test_it_is_known_whether_images_are_there():
    feed = Feed(passes_of(), CPU, with_labels=False, ahead=True)
    assert not feed.is_ready(0)
    feed.take(0)
    feed._next[1].result()
    assert feed.is_ready(1) and not feed.is_ready(2)
    feed.close()
    assert not Feed(passes_of(), CPU, with_labels=False, ahead=False).is_ready(0)
