"""Two random views of every image, made in batches on the images' device.

Crop, flip and rotation are one affine warp (`warp.py`). Colours are jittered by `jitter.py`; grey
and blur are kornia's. All randomness comes from torch's default generators, so inside
`dogo_fed.seeding.stream` the views are a pure function of the stream and the images. The recipes
are SimCLR's (Chen et al. 2020, appendix A), SimSiam's (Chen and He 2021, section 3), and one for
digits. SimSiam's paper crops from a fifth of the image on; DoGo's published code crops from 0.08 on
for it too, and so does the recipe here. `min_scale=0.2` is the paper's.
"""

# B = images in the batch, C = channels, H, W = pixels

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import kornia.augmentation as K
import torch

from dogo_fed import components
from dogo_fed.data.adapt import resized
from dogo_fed.data.jitter import ColourJitter
from dogo_fed.data.warp import random_warps, warp
from dogo_fed.errors import ConfigError

BLUR_FROM_PIXELS = 224
"""simclr and simsiam blur images of this size and above with probability 0.5, and no others."""
LARGEST: Mapping[str, float] = {"jitter_strength": 2.5, "max_rotation_degrees": 180.0}
"""Upper limits of the options that are not probabilities or shares."""
WORDS: Mapping[str, tuple[str, ...]] = {
    "crop_overflow": ("redraw", "clamp"),
    "jitter_order": ("image", "batch"),
}
"""The options that are words, and what they can be."""


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


def _check_word(name: str, value: object) -> None:
    """Raises ConfigError if `value` is none of the option's words."""
    if value not in WORDS[name]:
        offered = " or ".join(WORDS[name])
        raise ConfigError(f"augmentation option {name} must be {offered}, not {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What happens to an image on its way to a view. Probabilities are per image and view, 0 to 1.

    Attributes:
        min_scale: smallest area of a crop as a share of the image; 1 switches cropping off.
        crop_overflow: what becomes of a crop that is longer than the image: `redraw` draws another,
            as published; `clamp` cuts it at the image's side, as this project did until 2026-11.
        flip_probability: of mirroring left and right.
        max_rotation_degrees: the image is turned by up to this much to either side.
        jitter_strength: 1 is 0.8 of brightness, contrast and saturation, and 0.2 of hue.
        jitter_probability: of jittering the colours at all.
        jitter_order: whether every `image` has an order of its own for the four adjustments of its
            colours, as published, or a `batch` shares one, as this project did until 2026-11.
        grey_probability: of dropping the colours.
        blur_probability: of a Gaussian blur.
    """

    min_scale: float = 1.0
    crop_overflow: str = "redraw"
    flip_probability: float = 0.0
    max_rotation_degrees: float = 0.0
    jitter_strength: float = 0.0
    jitter_probability: float = 0.8
    jitter_order: str = "image"
    grey_probability: float = 0.0
    blur_probability: float = 0.0

    def __post_init__(self) -> None:
        """Checks the ranges.

        Raises:
            ConfigError: a value is out of its range, or neither a number nor a word that is known.
        """
        for name in WORDS:
            _check_word(name, getattr(self, name))
        for name in self.__slots__:
            if name in WORDS:
                continue
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
        self._colour = _colour_steps(recipe, image_size, len(self.mean))

    def __call__(self, images_BCHW: torch.Tensor, /) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns two views: float32, normalised, B x C x image_size x image_size.

        Args:
            images_BCHW: uint8, on any device; the views are made there. The images may be larger
                than the views: crops are then taken from them as they are.
        """
        if not self.recipe.warps:
            images_BCHW = resized(images_BCHW, self.image_size)
        scaled_BCHW = images_BCHW.to(torch.float32) / 255.0
        return self._view(scaled_BCHW), self._view(scaled_BCHW)

    @torch.no_grad()
    def _view(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Returns one normalised view of images in 0..1."""
        if self.recipe.warps:
            theta_B23 = random_warps(
                len(images_BCHW),
                images_BCHW.shape[-1],
                min_scale=self.recipe.min_scale,
                redraw=self.recipe.crop_overflow == "redraw",
                flip_probability=self.recipe.flip_probability,
                max_rotation_degrees=self.recipe.max_rotation_degrees,
            )
            images_BCHW = warp(images_BCHW, theta_B23, self.image_size)
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
            Its images are of image_size.
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
    views = cast(Augmentation, made)
    return lambda images_BCHW: views(resized(images_BCHW, image_size))


def normalise(
    images_BCHW: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Returns uint8 images as float32, mean 0 and deviation 1: the evaluation transform."""
    return _standardise(images_BCHW.to(torch.float32) / 255.0, mean, std)


def _standardise(
    images_BCHW: torch.Tensor, mean: Sequence[float], std: Sequence[float]
) -> torch.Tensor:
    """Returns images in 0..1 with the mean taken off and divided by the deviation, per channel."""
    mean_C11 = _by_channel(tuple(mean), images_BCHW.device)
    std_C11 = _by_channel(tuple(std), images_BCHW.device)
    return (images_BCHW - mean_C11) / std_C11


@functools.lru_cache(maxsize=64)
def _by_channel(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """Returns the values as C x 1 x 1, on the device; they are kept there, since to send them waits."""
    return torch.tensor(values, device=device).view(-1, 1, 1)


def _published(name: str, image_size: int) -> Recipe:
    """Returns the recipe called `name` for images of this size."""
    recipe = RECIPES[name]
    if name in ("simclr", "simsiam") and image_size >= BLUR_FROM_PIXELS:
        return dataclasses.replace(recipe, blur_probability=0.5)
    return recipe


def _colour_steps(recipe: Recipe, image_size: int, channels: int) -> list[torch.nn.Module]:
    """Returns the steps that the recipe asks for; steps that would do nothing are left out.

    Images of one channel have no colours: only their brightness and contrast are jittered.
    """
    steps: list[torch.nn.Module] = []
    strength = recipe.jitter_strength
    if strength > 0.0 and recipe.jitter_probability > 0.0:
        most, hue = 0.8 * strength, 0.2 * strength
        saturation, hue = (most, hue) if channels == 3 else (0.0, 0.0)
        by_image = recipe.jitter_order == "image"
        jitter = ColourJitter if by_image else K.ColorJitter
        steps.append(jitter(most, most, saturation, hue, p=recipe.jitter_probability))
    if recipe.grey_probability > 0.0 and channels == 3:
        steps.append(K.RandomGrayscale(p=recipe.grey_probability))
    if recipe.blur_probability > 0.0:
        side = max(3, image_size // 10 | 1)  # a tenth of the image, and odd
        steps.append(K.RandomGaussianBlur((side, side), (0.1, 2.0), p=recipe.blur_probability))
    return steps
