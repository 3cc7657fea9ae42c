"""What is drawn on the CPU is sent in few copies, none of which waits for the device."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch

from dogo_fed import seeding
from dogo_fed.data import augment
from dogo_fed.data.augment import RECIPES, TwoViews
from dogo_fed.data.source import TensorImages
from dogo_fed.data.to_device import arrays_of, packed, shared_with, to_device, unpacked

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
ELSEWHERE = torch.device("meta")
"""A device that every machine has, and that no tensor of the CPU is on."""


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=generator)


@pytest.fixture
def sent(monkeypatch):
    """Keeps what is sent to a device, and by whom."""
    kept = []
    for name in ("jitter", "warp", "source"):

        def noting(given, device, name=name):
            kept.append((name, device))
            return to_device(given, device)

        monkeypatch.setattr(f"dogo_fed.data.{name}.to_device", noting)
    return kept


def test_on_a_cpu_nothing_is_copied():
    here = torch.arange(3)
    assert to_device(here, torch.device("cpu")) is here
    assert to_device(here, ELSEWHERE).device == ELSEWHERE


def test_an_array_that_is_read_only_is_shared_without_a_copy_or_a_word():
    content = np.arange(6, dtype=np.float32).tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            array = np.frombuffer(content, np.float32).reshape(2, 3)
            tensor = shared_with(array)
    assert tensor.data_ptr() == array.ctypes.data
    assert tensor.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]


def test_what_is_read_together_is_what_was_there():
    """Of odd sizes and several types: as on a GPU, by one copy of all bytes."""
    generator = torch.Generator().manual_seed(0)
    entropy, p_NN = torch.tensor(-1.25, dtype=torch.float64), torch.rand(3, 3, generator=generator)
    given = [entropy, p_NN, torch.tensor(float("nan")), p_NN.T]
    for found in (unpacked(packed(given), given), arrays_of(given)):
        assert [one.dtype for one in found] == [np.float64, np.float32, np.float32, np.float32]
        for one, tensor in zip(found, given, strict=True):
            np.testing.assert_array_equal(one, tensor.numpy())
    assert arrays_of([p_NN])[0].ctypes.data == p_NN.data_ptr(), "on a CPU nothing is copied"


def test_a_view_is_sent_in_three_copies(images, sent):
    """The warps, the rows of all adjustments of colour, and their factors."""
    with seeding.stream(7, "a"):
        TwoViews(RECIPES["simclr"], 32, MEAN, STD)(images)
    assert [name for name, _ in sent] == 2 * ["warp", "jitter", "jitter"]


def test_mean_and_deviation_are_sent_once(images):
    augment._by_channel.cache_clear()
    for _ in range(3):
        augment.normalise(images, list(MEAN), STD)
        TwoViews(RECIPES["none"], 32, MEAN, STD)(images)
    assert augment._by_channel.cache_info().misses == 2


def test_the_ids_of_images_are_sent_to_where_they_are(sent):
    there = torch.zeros(4, 3, 2, 2, dtype=torch.uint8, device=ELSEWHERE)
    asked = TensorImages(there, torch.zeros(4)).images(torch.tensor([2, 0, 2]))
    assert asked.shape == (3, 3, 2, 2) and asked.device == ELSEWHERE
    assert sent == [("source", ELSEWHERE)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_views_on_a_gpu_wait_for_nothing(images):
    there, views = images.cuda(), TwoViews(RECIPES["simclr"], 32, MEAN, STD)
    source = TensorImages(there, torch.zeros(len(there)))
    ids = torch.arange(8)
    for mode in ("default", "error"):  # the first time, constants are sent
        torch.cuda.set_sync_debug_mode(mode)
        try:
            views(source.images(ids))
        finally:
            torch.cuda.set_sync_debug_mode("default")
