"""Digests of single images: those that are kept are those that would be made."""

from __future__ import annotations

import hashlib
import logging

import pytest
import torch

from dogo_fed.data import digests
from dogo_fed.data.adapt import resized
from dogo_fed.data.digests import DigestedImages, image_digests, stored_side
from dogo_fed.data.source import Subset, TensorImages
from dogo_fed.data.synthetic import synthetic
from tests.support.image_folders import random_images

IMAGES = random_images(12, size=8)


def source_of(images_NCHW=IMAGES):
    return TensorImages(images_NCHW, torch.zeros(len(images_NCHW), dtype=torch.int64))


class InMemory:
    """Digests that are kept as long as the test runs."""

    def __init__(self):
        self.content, self.writes = None, 0

    def read(self):
        return self.content

    def write(self, content):
        self.content, self.writes = content, self.writes + 1


class NotRead(TensorImages):
    """Images that nobody may read."""

    def images(self, ids):
        raise AssertionError("an image was read")


def test_a_digest_knows_an_image_again_and_no_other():
    anchors = synthetic(size=40, test_size=8, seed=1).train
    found = image_digests(anchors, 16)
    assert len(set(found)) == 40
    assert image_digests(anchors, 16) == found
    assert set(image_digests(anchors, 8)).isdisjoint(found)


@pytest.mark.parametrize("side", [8, 5, 16])
def test_a_digest_is_of_the_pixels_at_that_side_whether_it_is_kept_or_not(side, monkeypatch):
    monkeypatch.setattr(digests, "_PIXELS_AT_A_TIME", 5 * 64)  # some at a time
    expected = [
        hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest()
        for image in resized(IMAGES, side)
    ]
    kept = DigestedImages(source_of(), 8, InMemory())
    for source in (source_of(), kept, kept):
        assert image_digests(source, side) == expected
    rows = torch.tensor([7, 0, 3])
    some = Subset(Subset(kept, torch.arange(11).flip(0)), rows)
    assert image_digests(some, side) == [expected[10 - row] for row in rows.tolist()]


def test_what_is_kept_is_made_once_for_all_parts_and_starts():
    kept = InMemory()
    first = DigestedImages(source_of(), 8, kept)
    parts = [Subset(first, torch.arange(start, 12, 2)) for start in (0, 1)]
    found = [image_digests(part, 8) for part in parts]
    assert kept.writes == 1
    second = DigestedImages(NotRead(IMAGES, torch.zeros(12)), 8, kept)
    assert [image_digests(Subset(second, part.ids), 8) for part in parts] == found
    assert stored_side(Subset(second, torch.tensor([4]))) == 8
    assert kept.writes == 1


def test_no_images_have_no_digests_and_no_side():
    for empty in (source_of(IMAGES[:0]), Subset(source_of(), torch.arange(0))):
        kept = DigestedImages(empty, 8, InMemory())
        assert image_digests(empty, 16) == image_digests(kept, 8) == image_digests(kept, 8) == []
        assert stored_side(empty) == stored_side(kept) == 0


def test_the_log_says_how_many_are_done_while_digests_are_made(monkeypatch, caplog):
    monkeypatch.setattr(digests, "_PIXELS_AT_A_TIME", 5 * 64)
    kept = DigestedImages(source_of(), 8, InMemory())
    with caplog.at_level(logging.INFO):
        image_digests(source_of(), 8, "the anchors")
        assert not caplog.messages, "quick ones are not spoken of"
        monkeypatch.setattr(digests, "_TOLD_EVERY_S", 0.0)
        for _ in range(2):
            image_digests(kept, 8, "the anchors")
    told = [f"digests of the anchors: {number} of 12 images are done" for number in (0, 5, 10)]
    assert caplog.messages == told
