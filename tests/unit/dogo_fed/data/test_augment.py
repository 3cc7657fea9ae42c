"""Two views: determinism inside named streams, and each step against what it promises."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from dogo_fed import seeding
from dogo_fed.data.augment import (
    RECIPES,
    Recipe,
    TwoViews,
    build_augmentation,
    normalise,
)
from dogo_fed.errors import ConfigError

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=generator)


def views_in_stream(augment, images, *names):
    with seeding.stream(7, *names):
        return augment(images)


@pytest.mark.parametrize("name", list(RECIPES))
def test_views_are_normalised_floats_of_the_right_size(name, images):
    view_a, view_b = build_augmentation(name, {}, 32, MEAN, STD)(images)
    for view in (view_a, view_b):
        assert view.shape == images.shape
        assert view.dtype == torch.float32
        assert torch.isfinite(view).all() and not view.requires_grad


@pytest.mark.parametrize("name", ["simclr", "simsiam", "digits"])
def test_a_stream_decides_the_views(name, images):
    augment = build_augmentation(name, {}, 32, MEAN, STD)
    first = views_in_stream(augment, images, "peer", 1, "augment")
    other = views_in_stream(augment, images, "peer", 2, "augment")
    torch.rand(5)
    fresh = build_augmentation(name, {}, 32, MEAN, STD)
    for maker in (augment, fresh):  # neither what ran before nor the object matters
        again = views_in_stream(maker, images, "peer", 1, "augment")
        assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[1])


def test_blur_is_decided_by_the_stream_too(images):
    augment = build_augmentation("simclr", {"blur_probability": 0.5}, 32, MEAN, STD)
    first = views_in_stream(augment, images, "a")
    assert torch.equal(first[1], views_in_stream(augment, images, "a")[1])


def test_views_leave_the_images_alone(images):
    before = images.clone()
    build_augmentation("simclr", {}, 32, MEAN, STD)(images)
    assert torch.equal(images, before)


def test_without_augmentation_both_views_are_the_evaluation_transform(images):
    view_a, view_b = build_augmentation("none", {}, 32, MEAN, STD)(images)
    assert torch.equal(view_a, normalise(images, MEAN, STD))
    assert torch.equal(view_b, view_a)


def test_normalise_is_the_textbook_formula(images):
    expected = (images.double() / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(
        3, 1, 1
    )
    assert torch.allclose(normalise(images, MEAN, STD).double(), expected, atol=1e-6)


def test_certain_flip_mirrors_every_image(images):
    view_a, _ = TwoViews(Recipe(flip_probability=1.0), 32, **PLAIN)(images)
    assert torch.allclose(view_a, images.flip(-1) / 255, atol=1e-5)


def test_certain_grey_has_three_equal_channels(images):
    view_a, _ = TwoViews(Recipe(grey_probability=1.0), 32, **PLAIN)(images)
    assert torch.allclose(view_a[:, 0], view_a[:, 1]) and torch.allclose(view_a[:, 1], view_a[:, 2])


def test_jitter_probability_counts_images(images):
    view_a, _ = TwoViews(Recipe(jitter_strength=1.0, jitter_probability=0.5), 32, **PLAIN)(
        images.repeat(50, 1, 1, 1)
    )
    same = (view_a - images.repeat(50, 1, 1, 1) / 255).abs().amax((1, 2, 3)) < 1e-5
    assert same.float().mean() == pytest.approx(0.5, abs=0.07)


@pytest.mark.parametrize(
    ("name", "sums"),
    [
        ("simclr", (-7584.92, -5906.54)),
        ("simsiam", (-4081.22, -4114.17)),
        ("digits", (-4042.93, -3353.19)),
    ],
)
def test_the_rules_used_until_november_2026_are_still_to_be_had(name, sums, images):
    """Weighted sums over the views that the source made before the change."""
    old = {"crop_overflow": "clamp", "jitter_order": "batch"}
    views = views_in_stream(build_augmentation(name, old, 32, MEAN, STD), images, "old")
    weights = torch.linspace(-1, 1, images.numel())
    for view, expected in zip(views, sums, strict=True):
        assert float(view.flatten() @ weights) == pytest.approx(expected, abs=0.5)


def test_large_images_are_blurred_small_ones_are_not():
    assert build_augmentation("simclr", {}, 96, MEAN, STD).recipe.blur_probability == 0.0
    assert build_augmentation("simclr", {}, 224, MEAN, STD).recipe.blur_probability == 0.5
    assert build_augmentation("digits", {}, 224, MEAN, STD).recipe.blur_probability == 0.0
    without = build_augmentation("simclr", {"blur_probability": 0.0}, 224, MEAN, STD)
    assert without.recipe.blur_probability == 0.0


def test_options_change_the_recipe():
    options = {
        "min_scale": 0.3,
        "flip_probability": 0.0,
        "jitter_strength": 0.25,
        "grey_probability": 0,
    }
    recipe = build_augmentation("simclr", options, 32, MEAN, STD).recipe
    assert recipe == dataclasses.replace(RECIPES["simclr"], **options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"min_scael": 0.5}, "no option 'min_scael'.*did you mean 'min_scale'"),
        ({"min_scale": 0}, "min_scale must be above 0"),
        ({"flip_probability": 1.5}, "flip_probability must be a number from 0 to 1, not 1.5"),
        (
            {"grey_probability": "often"},
            "option 'grey_probability' of augmentation 'simclr' must be a number, not 'often'",
        ),
        ({"jitter_strength": True}, "option 'jitter_strength' .* must be a number, not"),
        ({"max_rotation_degrees": float("nan")}, "max_rotation_degrees must be a number"),
        ({"crop_overflow": "cut"}, "crop_overflow must be redraw or clamp, not 'cut'"),
        ({"jitter_order": "none"}, "jitter_order must be image or batch, not 'none'"),
    ],
)
def test_impossible_options_are_refused(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        build_augmentation("simclr", options, 32, MEAN, STD)


def test_unknown_augmentation_lists_the_known_ones():
    with pytest.raises(ConfigError, match=r"unknown augmentation 'simclear'.*digits.*'simclr'"):
        build_augmentation("simclear", {}, 32, MEAN, STD)


def test_augmentation_of_ones_own(monkeypatch, tmp_path, images):
    (tmp_path / "my_views.py").write_text(
        "def twice(image_size, mean, std, factor):\n"
        "    return lambda images: (images * factor, images)\n"
        "def wrong(image_size, mean, std):\n"
        "    return None\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    view_a, view_b = build_augmentation("my_views:twice", {"factor": 0}, 32, MEAN, STD)(images)
    assert view_a.max() == 0 and torch.equal(view_b, images)
    with pytest.raises(ConfigError, match="no option 'mean'"):
        build_augmentation("my_views:twice", {"factor": 0, "mean": 1}, 32, MEAN, STD)
    with pytest.raises(ConfigError, match="returned a NoneType, not a callable"):
        build_augmentation("my_views:wrong", {}, 32, MEAN, STD)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_views_are_made_where_the_images_are(images):
    device = torch.device("cuda")
    augment = build_augmentation("simclr", {}, 32, MEAN, STD)
    with seeding.stream(7, "a", device=device):
        view_a, view_b = augment(images.to(device))
    assert view_a.device.type == view_b.device.type == "cuda"
    expected, _ = views_in_stream(augment, images, "a")
    assert torch.allclose(view_a.cpu(), expected, atol=1e-3)
