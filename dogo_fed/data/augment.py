"""Two random views of every image, made in batches on the images' device.

Crop, flip and rotation are one affine warp; colour, grey and blur are kornia's. All randomness
comes from torch's default generators, so inside `dogo_fed.seeding.stream` the views are a pure
function of the stream and the images. The recipes are SimCLR's (Chen et al. 2020, appendix A),
SimSiam's (Chen and He 2021, section 3), and one for digits.
"""

# B = images in the batch, C = channels, H, W = pixels

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import kornia.augmentation as K
import torch
import torch.nn.functional as F

from dogo_fed import components
from dogo_fed.errors import ConfigError

BLUR_FROM_PIXELS = 224
"""simclr and simsiam blur images of this size and above with probability 0.5, and no others."""
MAX_LOG_RATIO = math.log(4.0 / 3.0)
"""Crops have aspect ratios between 3:4 and 4:3."""
LARGEST: Mapping[str, float] = {"jitter_strength": 2.5, "max_rotation_degrees": 180.0}
"""Upper limits of the options that are not probabilities or shares."""


class Augmentation(Protocol):
    """Makes two views of every image; what `build_augmentation` returns."""

    def __call__(self, images_BCHW: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns two views, float32 and normalised, of uint8 images."""
        ...


def _check_number(name: str, value: object, most: float) -> None:
    """Raises ConfigError if `value` is not a number from 0 to `most`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0.0 <= cast(float, value) <= most:
        raise ConfigError(
            f"augmentation option {name} must be a number from 0 to {most:g}, not {value!r}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What happens to an image on its way to a view. Probabilities are per image and view, 0 to 1.

    Attributes:
        min_scale: smallest area of a crop as a share of the image; 1 switches cropping off.
        flip_probability: of mirroring left and right.
        max_rotation_degrees: the image is turned by up to this much to either side.
        jitter_strength: 1 is 0.8 of brightness, contrast and saturation, and 0.2 of hue.
        jitter_probability: of jittering the colours at all.
        grey_probability: of dropping the colours.
        blur_probability: of a Gaussian blur.
    """

    min_scale: float = 1.0
    flip_probability: float = 0.0
    max_rotation_degrees: float = 0.0
    jitter_strength: float = 0.0
    jitter_probability: float = 0.8
    grey_probability: float = 0.0
    blur_probability: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a value is not a number or out of its range.
        """
        for name in self.__slots__:
            _check_number(name, getattr(self, name), LARGEST.get(name, 1.0))
        if self.min_scale == 0.0:
            raise ConfigError("augmentation option min_scale must be above 0")

    @property
    def warps(self) -> bool:
        """Whether pixels move at all."""
        return (
            self.min_scale < 1.0 or self.flip_probability > 0.0 or self.max_rotation_degrees > 0.0
        )


RECIPES: Mapping[str, Recipe] = {
    "simclr": Recipe(
        min_scale=0.08, flip_probability=0.5, jitter_strength=1.0, grey_probability=0.2
    ),
    "simsiam": Recipe(
        min_scale=0.08, flip_probability=0.5, jitter_strength=0.5, grey_probability=0.2
    ),
    "digits": Recipe(min_scale=0.8, jitter_strength=0.5, grey_probability=0.5),
    "none": Recipe(),
}


class TwoViews:
    """Makes two independently drawn views of every image of a batch."""

    def __init__(
        self, recipe: Recipe, image_size: int, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        self.recipe = recipe
        self.image_size = image_size
        self.mean = tuple(mean)
        self.std = tuple(std)
        self._colour = _colour_steps(recipe, image_size)

    def __call__(self, images_BCHW: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns two views: float32, normalised, B x C x image_size x image_size.

        Args:
            images_BCHW: uint8, on any device; the views are made there.
        """
        scaled_BCHW = images_BCHW.to(torch.float32) / 255.0
        return self._view(scaled_BCHW), self._view(scaled_BCHW)

    @torch.no_grad()
    def _view(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Returns one normalised view of images in 0..1."""
        if self.recipe.warps:
            theta_B23 = random_warps(len(images_BCHW), self.recipe)
            images_BCHW = _warp(images_BCHW, theta_B23, self.image_size)
        for step in self._colour:
            images_BCHW = step(images_BCHW)
        return _standardise(images_BCHW, self.mean, self.std)


def build_augmentation(
    name: str,
    options: Mapping[str, object],
    image_size: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Augmentation:
    """Returns the augmentation called `name`.

    Args:
        name: a key of `RECIPES`, or the import path "package.module:callable" of a function that
            gets image_size, mean, std and the options as keywords and returns an `Augmentation`.
        options: changes to the recipe: fields of `Recipe`.
        image_size: side of the views in pixels.
        mean: per channel, of pixel values scaled to 0..1.
        std: per channel, of pixel values scaled to 0..1.

    Raises:
        ConfigError: the name or an option is unknown, or a value is out of range.
    """
    if name in RECIPES:
        components.check_options("augmentation", name, Recipe, options)
        recipe = dataclasses.replace(_published(name, image_size), **cast(Any, options))
        return TwoViews(recipe, image_size, mean, std)
    made = components.build(
        "augmentation",
        name,
        dict.fromkeys(RECIPES, ""),
        options,
        image_size=image_size,
        mean=mean,
        std=std,
    )
    if not callable(made):
        raise ConfigError(f"augmentation {name!r} returned a {type(made).__name__}, not a callable")
    return cast(Augmentation, made)


def normalise(
    images_BCHW: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Returns uint8 images as float32, mean 0 and deviation 1: the evaluation transform."""
    return _standardise(images_BCHW.to(torch.float32) / 255.0, mean, std)


def random_warps(batch: int, recipe: Recipe) -> torch.Tensor:
    """Returns a random crop, flip and rotation for every image, as affine matrices B x 2 x 3.

    A matrix maps places in the view to places in the image, both spanning -1..1. The crop's area is
    uniform in [min_scale, 1] of the image's, its aspect ratio log-uniform in [3/4, 4/3], a side
    never longer than the image's. Drawn on the CPU, so the same for any device.
    """
    area_B = torch.empty(batch).uniform_(recipe.min_scale, 1.0)
    ratio_B = torch.empty(batch).uniform_(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    mirror_B = torch.where(torch.rand(batch) < recipe.flip_probability, -1.0, 1.0)
    angle_B = torch.empty(batch).uniform_(-1.0, 1.0) * math.radians(recipe.max_rotation_degrees)
    place_2B = torch.empty(2, batch).uniform_(-1.0, 1.0)
    if recipe.min_scale == 1.0:  # no crop, so nothing is squeezed either
        ratio_B.fill_(1.0)
    width_B = (area_B * ratio_B).sqrt().clamp(max=1.0)
    height_B = (area_B / ratio_B).sqrt().clamp(max=1.0)
    across_B = width_B * mirror_B
    x_3B = [angle_B.cos() * across_B, -angle_B.sin() * height_B, place_2B[0] * (1.0 - width_B)]
    y_3B = [angle_B.sin() * across_B, angle_B.cos() * height_B, place_2B[1] * (1.0 - height_B)]
    return torch.stack([torch.stack(x_3B, dim=1), torch.stack(y_3B, dim=1)], dim=1)


def _warp(images_BCHW: torch.Tensor, theta_B23: torch.Tensor, image_size: int) -> torch.Tensor:
    """Returns the images seen through the matrices, bilinearly; outside, the border continues."""
    size = [*images_BCHW.shape[:2], image_size, image_size]
    grid_BHW2 = F.affine_grid(theta_B23.to(images_BCHW.device), size, align_corners=False)
    return F.grid_sample(images_BCHW, grid_BHW2, padding_mode="border", align_corners=False)


def _standardise(
    images_BCHW: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Returns images in 0..1 with the mean taken off and divided by the deviation, per channel."""
    mean_C11 = torch.tensor(mean, device=images_BCHW.device).view(-1, 1, 1)
    std_C11 = torch.tensor(std, device=images_BCHW.device).view(-1, 1, 1)
    return (images_BCHW - mean_C11) / std_C11


def _published(name: str, image_size: int) -> Recipe:
    """Returns the recipe called `name` for images of this size."""
    recipe = RECIPES[name]
    if name in ("simclr", "simsiam") and image_size >= BLUR_FROM_PIXELS:
        return dataclasses.replace(recipe, blur_probability=0.5)
    return recipe


def _colour_steps(recipe: Recipe, image_size: int) -> list[torch.nn.Module]:
    """Returns kornia's steps for what the recipe asks; steps that would do nothing are left out."""
    steps: list[torch.nn.Module] = []
    strength = recipe.jitter_strength
    if strength > 0.0 and recipe.jitter_probability > 0.0:
        most, hue = 0.8 * strength, 0.2 * strength
        steps.append(K.ColorJitter(most, most, most, hue, p=recipe.jitter_probability))
    if recipe.grey_probability > 0.0:
        steps.append(K.RandomGrayscale(p=recipe.grey_probability))
    if recipe.blur_probability > 0.0:
        side = max(3, image_size // 10 | 1)  # a tenth of the image, and odd
        steps.append(K.RandomGaussianBlur((side, side), (0.1, 2.0), p=recipe.blur_probability))
    return steps
