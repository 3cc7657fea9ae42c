"""Small image folders for the tests of their loaders."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image

from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.source import DataSet


def random_images(number, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8, generator=generator)


def all_images(source):
    return source.images(torch.arange(len(source)))


def levels(source):
    """Returns the mean of every image, which tells those made by `draw` apart."""
    return all_images(source).float().mean((1, 2, 3)).round().int().tolist()


def listing_decoded(monkeypatch: pytest.MonkeyPatch, *modules: ModuleType) -> list[Path]:
    """Returns a list that takes the paths of the files that these modules decode from now on."""
    paths: list[Path] = []
    for module in modules:
        original = module.decode

        def counting(path, how, original=original):
            paths.append(path)
            return original(path, how)

        monkeypatch.setattr(module, "decode", counting)
    return paths


def draw(path: Path, value: int, size: int = 8) -> None:
    """Writes an image of one grey; the ending of the path says in which format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), value, dtype=np.uint8)).save(path)


def write_folder(root: Path, size: int = 8, tests: str = "test") -> torch.Tensor:
    """Writes two classes, four images to train with and two to test; returns all six in order."""
    images = random_images(6, size=size)
    places = [f"train/{name}/{i}.png" for name in ("cat", "dog") for i in range(2)]
    places += [f"{tests}/{name}/0.PNG" for name in ("cat", "dog")]
    for image, place in zip(images, places, strict=True):
        path = root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return images


def load_folder(root: Path, **options) -> DataSet:
    return build_dataset("image_folder", {"root": str(root), "image_size": 8, **options})


def noise_photos(folder: Path, number: int, seed: int, side: int = 24) -> Path:
    """Writes so many images of noise into each of two class folders; returns the folder."""
    draws = np.random.default_rng(seed)
    for kind in ("cat", "dog"):
        (folder / kind).mkdir(parents=True)
        for index in range(number):
            pixels = draws.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{index}.png")
    return folder
