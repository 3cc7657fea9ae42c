"""Corruptions: nothing at severity 0, more at every severity, the same every time; and health meters."""

# N = images, F = features

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch

from dogo_fed.data.digits_m import digits_m
from dogo_fed.data.source import TensorImages
from dogo_fed.errors import ConfigError, DataError
from dogo_fed.evaluation.corruptions import (
    CORRUPTIONS,
    SEVERITIES,
    corrupt,
    corrupted,
)
from dogo_fed.evaluation.corruptions.digital import _cosine_transform
from dogo_fed.evaluation.representation import alignment, feature_std, rankme, uniformity

NUMBER = 24


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return digits_m(train_size=1, test_size=NUMBER).test.images(torch.arange(NUMBER))


def distortion(images: torch.Tensor, name: str, severity: int) -> float:
    changed = corrupt(images, torch.arange(len(images)), name, severity, seed=0)
    return float((changed.float() - images.float()).square().mean())


def test_there_are_fifteen_in_four_families() -> None:
    families = Counter(one.__module__.rpartition(".")[2] for one in CORRUPTIONS.values())
    assert families == {"noise": 3, "blur": 4, "weather": 4, "digital": 4}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_distortion_grows_from_nothing_with_severity(images: torch.Tensor, name: str) -> None:
    found = [distortion(images, name, severity) for severity in (0, *SEVERITIES)]
    assert found[0] == 0.0
    assert all(low < high for low, high in itertools.pairwise(found)), found


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("size, channels", [(32, 3), (21, 1)])
def test_shape_type_and_repeatability(name: str, size: int, channels: int) -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, channels, size, size), generator=draw, dtype=torch.uint8)
    ids = torch.tensor([3, 1, 4, 15, 9, 2])
    random_before = torch.get_rng_state()
    once = corrupt(images, ids, name, 3, seed=1)
    assert once.dtype == torch.uint8 and once.shape == images.shape
    assert torch.equal(once, corrupt(images, ids, name, 3, seed=1))
    assert torch.equal(torch.get_rng_state(), random_before)
    # Each image by itself: its neighbours in the batch do not matter, up to rounding.
    alone = torch.cat(
        [corrupt(images[i : i + 1], ids[i : i + 1], name, 3, seed=1) for i in range(6)]
    )
    assert (alone.int() - once.int()).abs().max() <= 1


@pytest.mark.parametrize("name", ["gaussian_noise", "snow", "motion_blur", "elastic_transform"])
def test_another_seed_or_id_is_another_draw(images: torch.Tensor, name: str) -> None:
    ids = torch.arange(NUMBER)
    first = corrupt(images, ids, name, 3, seed=0)
    assert not torch.equal(first, corrupt(images, ids, name, 3, seed=1))
    assert not torch.equal(first, corrupt(images, ids + 1, name, 3, seed=0))


def test_a_source_of_corrupted_images_goes_by_id(images: torch.Tensor) -> None:
    source = TensorImages(images, torch.arange(NUMBER))
    snowy = corrupted(source, "snow", 2, seed=4)
    some = torch.tensor([7, 2])
    assert torch.equal(snowy.images(some), corrupt(images[some], some, "snow", 2, seed=4))
    assert len(snowy) == NUMBER and torch.equal(snowy.labels, source.labels)


def test_noise_has_the_size_it_should() -> None:
    grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    ids = torch.arange(40)
    noisy = corrupt(grey, ids, "gaussian_noise", 2, seed=0).float() / 255
    assert float(noisy.std()) == pytest.approx(0.06, rel=0.03)
    shot = corrupt(grey, ids, "shot_noise", 1, seed=0).float() / 255
    assert float(shot.std()) == pytest.approx(math.sqrt(128 / 255 / 250), rel=0.03)
    broken = corrupt(grey, ids, "impulse_noise", 5, seed=0)
    assert float((broken != 128).float().mean()) == pytest.approx(0.17, rel=0.03)
    assert float((broken == 0).float().mean()) == pytest.approx(0.085, rel=0.06)


@pytest.mark.parametrize(
    "name", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate"]
)
def test_a_flat_picture_can_not_be_blurred(name: str) -> None:
    flat = torch.full((3, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(corrupt(flat, torch.arange(3), name, 5, seed=0), flat)


def test_brightness_keeps_hue_and_saturation() -> None:
    pixel = torch.tensor([40, 80, 120], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    bright = corrupt(pixel, torch.tensor([0]), "brightness", 2, seed=0)[0, :, 0, 0].float()
    assert (bright / bright.max()).tolist() == pytest.approx([1 / 3, 2 / 3, 1.0], abs=0.01)
    assert float(bright.max()) == pytest.approx(120 + 0.17 * 255, abs=1)


def test_the_cosine_transform_is_orthonormal() -> None:
    matrix = _cosine_transform().double()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(8).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(matrix[0], torch.full((8,), 8**-0.5).double(), atol=1e-6, rtol=0)


def test_jpeg_is_close_to_what_a_real_encoder_does(images: torch.Tensor) -> None:
    """Same tables, so pillow's decoded file without subsampled colours differs by rounding only."""
    import io

    import numpy as np
    from PIL import Image

    ours = corrupt(images, torch.arange(NUMBER), "jpeg_compression", 1, seed=0)
    for image, mine in zip(images, ours, strict=True):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(
            file, "jpeg", quality=50, subsampling=0
        )
        theirs = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert (theirs.float() - mine.float()).abs().mean() < 2.0


def test_what_can_not_be() -> None:
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="unknown corruption 'rain'"):
        corrupt(images, torch.tensor([0]), "rain", 1, seed=0)
    with pytest.raises(ConfigError, match="severity"):
        corrupted(TensorImages(images, torch.tensor([0])), "fog", 7, seed=0)


# ---- health ----


def features(number: int, width: int, rank: int | None = None) -> torch.Tensor:
    draw = torch.Generator().manual_seed(width)
    if rank is None:
        return torch.randn(number, width, generator=draw)
    basis, _ = torch.linalg.qr(torch.randn(number, rank, generator=draw))
    frame, _ = torch.linalg.qr(torch.randn(width, rank, generator=draw))
    return basis @ frame.T


@pytest.mark.parametrize("rank", [1, 3, 10, 32])
def test_rankme_of_equal_singular_values_is_the_rank(rank: int) -> None:
    assert rankme(5.0 * features(200, 32, rank)) == pytest.approx(rank, rel=0.01)


def test_rankme_of_uneven_singular_values_is_less() -> None:
    scaled = features(200, 32, 4) @ torch.eye(32)
    u, _, v = torch.linalg.svd(scaled, full_matrices=False)
    shares = torch.tensor([0.7, 0.1, 0.1, 0.1])
    uneven = u[:, :4] @ torch.diag(shares) @ v[:4]
    entropy = -(shares * shares.log()).sum()
    assert rankme(uneven) == pytest.approx(float(entropy.exp()), rel=0.01)


def test_alignment_and_uniformity_as_loops() -> None:
    a, b = features(40, 8), features(40, 8) + 0.3 * features(40, 8).flip(0)
    unit_a = [row / row.norm() for row in a]
    unit_b = [row / row.norm() for row in b]
    aligned = sum(float((x - y).square().sum()) for x, y in zip(unit_a, unit_b, strict=True)) / 40
    assert alignment(a, b) == pytest.approx(aligned, rel=1e-5)
    pairs = [
        math.exp(-2 * float((unit_a[i] - unit_a[j]).square().sum()))
        for i in range(40) for j in range(i)
    ]  # fmt: skip
    assert uniformity(a) == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)
    assert alignment(a, 3 * a) == pytest.approx(0, abs=1e-6)


def test_meters_tell_collapse_from_spread() -> None:
    spread, collapsed = features(500, 16), torch.ones(500, 16) + 1e-5 * features(500, 16)
    assert float(feature_std(spread).mean()) == pytest.approx(1, abs=0.05)
    assert float(feature_std(collapsed).max()) < 1e-4
    assert uniformity(collapsed) == pytest.approx(0, abs=1e-6)
    assert uniformity(spread) < -2.5
    with pytest.raises(DataError, match="pairs of images"):
        uniformity(spread[:1])
