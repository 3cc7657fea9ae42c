"""Random warps: the distribution of torchvision's crops, and the pixels that it would cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.v2.functional as TF
from torchvision.transforms.v2 import RandomResizedCrop

from dogo_fed import seeding
from dogo_fed.data.warp import MAX_LOG_RATIO, random_warps, warp


@pytest.fixture(autouse=True)
def _one_stream():
    with seeding.stream(7, "warp"):
        yield


def test_half_the_images_are_mirrored():
    theta = random_warps(4000, 32, flip_probability=0.5)
    assert (theta[:, 0, 0] < 0).float().mean() == pytest.approx(0.5, abs=0.03)


def test_without_a_crop_the_whole_image_is_seen():
    for redraw in (True, False):
        theta = random_warps(100, 33, redraw=redraw)
        assert torch.equal(theta, torch.eye(2, 3).expand(100, 2, 3))


@pytest.mark.parametrize("redraw", [True, False])
def test_crops_stay_inside(redraw):
    theta = random_warps(4000, 32, min_scale=0.2, redraw=redraw)
    width, height = theta[:, 0, 0], theta[:, 1, 1]
    assert width.min() > 0 and width.max() <= 1 and height.min() > 0 and height.max() <= 1
    assert (theta[:, 0, 2].abs() + width <= 1 + 1e-6).all()
    assert (theta[:, 1, 2].abs() + height <= 1 + 1e-6).all()


@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("min_scale", [0.08, 0.8])
def test_crops_are_distributed_as_torchvisions(side, min_scale):
    """Mean area, share of crops that span a side, and mean place, against 4,000 of torchvision's."""
    theta = random_warps(40_000, side, min_scale=min_scale)
    width, height = theta[:, 0, 0], theta[:, 1, 1]
    area, spans = width * height, (width == 1) | (height == 1)
    image = torch.zeros(3, side, side)
    theirs = RandomResizedCrop(side, scale=(min_scale, 1.0))
    drawn = [theirs.make_params([image]) for _ in range(4000)]
    their_area = torch.tensor([one["height"] * one["width"] / side**2 for one in drawn])
    their_spans = torch.tensor([side in (one["height"], one["width"]) for one in drawn])
    left = (theta[:, 0, 2] - width + 1) / 2 * side
    their_left = torch.tensor([one["left"] for one in drawn], dtype=torch.float32)
    for ours, other in (
        (area, their_area),
        (spans.float(), their_spans.float()),
        (left, their_left),
    ):
        error = float(other.std()) / 4000**0.5
        assert float(ours.mean()) == pytest.approx(float(other.mean()), abs=4 * error + 1e-6)


def test_at_224_pixels_the_mean_crop_is_the_published_one():
    """0.48 of the area, and one crop in a hundred spans a side; 0.53 and 14 % when clamped."""
    published = random_warps(40_000, 224, min_scale=0.08)
    clamped = random_warps(40_000, 224, min_scale=0.08, redraw=False)
    for theta, area, spans in ((published, 0.4805, 0.010), (clamped, 0.5345, 0.143)):
        width, height = theta[:, 0, 0], theta[:, 1, 1]
        assert float((width * height).mean()) == pytest.approx(area, abs=0.006)
        assert float(((width == 1) | (height == 1)).float().mean()) == pytest.approx(
            spans, abs=0.008
        )


def test_ratios_are_between_three_to_four_and_four_to_three():
    theta = random_warps(4000, 1000, min_scale=0.2)
    assert ((theta[:, 0, 0] / theta[:, 1, 1]).log().abs() <= MAX_LOG_RATIO + 0.005).all()


def test_a_crop_is_the_one_that_torchvision_cuts():
    """Inside the view; at its edge torchvision repeats a pixel where we see the image's next."""
    images = torch.rand(50, 3, 32, 32)
    theta = random_warps(50, 32, min_scale=0.2)
    views = warp(images, theta, 32)
    for image, matrix, view in zip(images, theta, views, strict=True):
        width, height = (matrix[0, 0] * 32).round(), (matrix[1, 1] * 32).round()
        left = ((matrix[0, 2] + 1) * 32 - width) / 2
        top = ((matrix[1, 2] + 1) * 32 - height) / 2
        assert abs(left - left.round()) < 1e-3 and abs(top - top.round()) < 1e-3
        box = [int(value.round()) for value in (top, left, height, width)]
        expected = TF.resized_crop(image, *box, [32, 32], antialias=False)
        edge = 3  # a pixel of the crop is up to 2.3 pixels of the view
        inside = (slice(None), slice(edge, -edge), slice(edge, -edge))
        assert torch.allclose(view[inside], expected[inside], atol=1e-4)


def test_rotation_turns_and_does_not_stretch():
    theta = random_warps(1000, 32, max_rotation_degrees=20.0)
    turn = theta[:, :, :2]
    assert torch.allclose(turn @ turn.transpose(1, 2), torch.eye(2).expand(1000, 2, 2), atol=1e-5)
    degrees = torch.rad2deg(torch.atan2(turn[:, 1, 0], turn[:, 0, 0]))
    assert 18 < degrees.max() <= 20.001 and -20.001 <= degrees.min() < -18
    assert theta[:, :, 2].abs().max() == 0


@pytest.mark.parametrize(("side", "image_size"), [(32, 32), (96, 32), (40, 33)])
def test_places_are_those_of_torchs_grid(side, image_size):
    images = torch.rand(16, 3, side, side)
    theta = random_warps(16, side, min_scale=0.2, flip_probability=0.5, max_rotation_degrees=90.0)
    finer = -(-side // image_size)
    grid = F.affine_grid(
        theta, [16, 3, image_size * finer, image_size * finer], align_corners=False
    )
    seen = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    expected = F.avg_pool2d(seen, finer)
    torch.testing.assert_close(warp(images, theta, image_size), expected, atol=1e-4, rtol=0)
