"""Colour jitter: torchvision's formulas, in an order of its own for every image."""

from __future__ import annotations

from collections import Counter

import kornia.enhance
import pytest
import torch
import torchvision.transforms.v2.functional as TF

from dogo_fed import seeding
from dogo_fed.data.jitter import _ADJUSTMENTS, ColourJitter

THEIRS = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)


def test_every_image_gets_torchvisions_adjustments_in_its_own_order():
    images = torch.rand(64, 3, 8, 8)
    by_torchvision = images.clone()
    orders = Counter()
    jitter = ColourJitter(0.8, 0.8, 0.8, 0.2, p=1.0)
    with seeding.stream(7, "jitter"):
        views = jitter(images)
    with seeding.stream(7, "jitter"):
        torch.rand(64)
        factors = [torch.empty(64).uniform_(*ends) for ends in jitter.ranges]
        order = torch.rand(64, 4).argsort(dim=1)
    for index in range(64):
        for which in order[index].tolist():
            factor = float(factors[which][index])
            by_torchvision[index] = THEIRS[which](by_torchvision[index], factor)
        orders[tuple(order[index].tolist())] += 1
    assert len(orders) > 12  # of 24
    # A pixel whose colour is nearly grey has no stable hue, so a few differ between libraries.
    assert ((views - by_torchvision).abs() > 1e-3).float().mean() < 0.002


@pytest.mark.parametrize(
    "jitter", [ColourJitter(0.8, 0.8, 0.8, 0.2, p=0.8), ColourJitter(0.4, 0.0, 0.0, 0.1, p=1.0)]
)
def test_the_numbers_are_those_of_one_selection_after_the_other_to_the_bit(jitter):
    images = torch.rand(32, 3, 8, 8)
    with seeding.stream(7, "jitter"):
        views = jitter(images)
    with seeding.stream(7, "jitter"):
        chosen = torch.rand(32) < jitter.p
        factors = [torch.empty(32).uniform_(*ends) for ends in jitter.ranges]
        order = torch.rand(32, 4).argsort(dim=1)
    expected = images.clone()
    for turn in range(4):
        for which, adjust in enumerate(_ADJUSTMENTS):
            rows = (chosen & (order[:, turn] == which)).nonzero()[:, 0]
            if len(rows) > 0 and jitter.ranges[which] not in ((0.0, 0.0), (1.0, 1.0)):
                expected[rows] = adjust(expected[rows], factors[which][rows])
    assert torch.equal(views, expected)


def test_a_hue_is_moved_as_kornia_moves_it_and_grey_stays_grey():
    images, turns = torch.rand(512, 3, 4, 4), torch.linspace(-0.5, 0.5, 512)
    images[:64, :, 0] = images[:64, :1, 0]  # grey
    images[64:128, 1] = images[64:128, 0]  # two channels are the largest, or the smallest
    images[128:192, 2] = images[128:192, 1]
    moved = _ADJUSTMENTS[3](images, turns)
    theirs = kornia.enhance.adjust_hue(images, turns * (2 * torch.pi))
    torch.testing.assert_close(moved, theirs, atol=1e-4, rtol=0)
    assert torch.equal(moved[:64, :, 0], images[:64, :, 0])
    unmoved = _ADJUSTMENTS[3](images, torch.zeros(512))
    torch.testing.assert_close(unmoved, images, atol=1e-6, rtol=0)


def test_a_stronger_jitter_has_the_range_that_is_documented():
    assert ColourJitter(0.4, 2.0, 0.0, 0.1, p=1.0).ranges == [
        pytest.approx((0.6, 1.4)),
        (0.0, 3.0),
        (1.0, 1.0),
        (-0.1, 0.1),
    ]


def test_images_that_are_not_chosen_stay_as_they_are_and_no_input_is_changed():
    images = torch.rand(400, 3, 4, 4)
    before = images.clone()
    with seeding.stream(7, "jitter"):
        views = ColourJitter(0.8, 0.8, 0.8, 0.2, p=0.25)(images)
    assert torch.equal(images, before)
    same = (views == images).flatten(1).all(dim=1)
    assert same.float().mean() == pytest.approx(0.75, abs=0.09)
    assert views.min() >= 0 and views.max() <= 1
