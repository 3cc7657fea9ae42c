"""The files of configs/data: each has all options of its function, so that all can be overridden."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import yaml

import configs
from dogo_fed import components
from dogo_fed.data.catalog import DATASETS

FOLDER = Path(configs.__file__).parent / "data"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != "own")
OTHERWISE = {("cifar10_folder", "image_size"), ("cifar10_imbalanced", "base_options")}
"""Options that a file sets to something else than the function does by itself."""


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_all_options_of_its_function_with_their_defaults(name):
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    function = components.resolve("data set", content["name"], DATASETS)
    parameters = inspect.signature(function).parameters
    assert set(content["options"]) == set(parameters)
    for option, one in parameters.items():
        if one.default is not one.empty and (name, option) not in OTHERWISE:
            assert content["options"][option] == one.default, option


def test_every_data_set_with_a_short_name_has_a_file():
    used = {yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["name"] for name in NAMES}
    assert used == set(DATASETS)
