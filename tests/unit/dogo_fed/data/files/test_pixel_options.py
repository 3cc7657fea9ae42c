"""The options that all loaders of images have in common, and how a loader gets them."""

from __future__ import annotations

import dataclasses
import inspect

import pytest

from dogo_fed import components
from dogo_fed.data.catalog import DATASETS
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.files.pixel_options import PixelOptions, with_pixel_options
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError

LOADERS = sorted(name for name, path in DATASETS.items() if ".data.files." in path)


@pytest.mark.parametrize("name", LOADERS)
def test_every_loader_of_images_has_the_options_and_their_defaults(name):
    loader = components.resolve("data set", name, DATASETS)
    parameters = inspect.signature(loader).parameters
    for field in dataclasses.fields(PixelOptions):
        assert parameters[field.name].default == field.default
    assert "pixels" not in parameters
    given = {key: "x" for key, one in parameters.items() if one.default is one.empty}
    components.check_options("data set", name, loader, {**given, "value_range": [0, 1]})
    with pytest.raises(ConfigError, match=r"'skip_broken' .* must be true or false, not 'no'"):
        components.check_options("data set", name, loader, {**given, "skip_broken": "no"})
    with pytest.raises(ConfigError, match=r"has no option 'pixels'; its options are: .*channels"):
        build_dataset(name, {**given, "pixels": 1})


def test_impossible_options_are_refused_before_anything_is_looked_for():
    with pytest.raises(ConfigError, match="channels must be 1 or 3, not 2"):
        build_dataset("npz", {"path": "nowhere.npz", "channels": 2})


def test_a_loader_gets_its_own_options_as_they_are_and_the_others_as_one():
    got = []

    @with_pixel_options
    def loader(root: str, size: int = 4, *, pixels: PixelOptions) -> DataSet:
        got.append((root, size, pixels))

    loader("a", channels=1, size=8)
    loader(root="b")
    assert got == [("a", 8, PixelOptions(channels=1)), ("b", 4, PixelOptions())]
    assert loader.__name__ == "loader"
