"""`dogo-fed data`: what it says about a data set names only settings that there are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from configs.compose import compose_run
from dogo_fed.data.map_style import dataset_from_arrays
from server.commands.data import describe, usual_folder


@pytest.mark.parametrize(
    ("data", "is_option"), [("npz", True), ("imagenet", True), ("digits", False), ("own", False)]
)
def test_black_images_get_advice_that_the_loader_can_take(data, is_option):
    black = dataset_from_arrays("black", np.zeros((8, 3, 8, 8), np.uint8), [0, 1] * 4)
    said = "\n".join(describe(black, compose_run([f"data={data}"])))
    assert "the images are nearly black (mean 0.000 of 1)" in said
    assert ("data.options.value_range=[0,4095]" in said) is is_option


def test_two_folders_have_two_sheets():
    one = dataset_from_arrays("image_folder", np.zeros((8, 3, 8, 8), np.uint8), [0, 1] * 4)
    folders = [dataclasses.replace(one, title=title) for title in ("cats", "dogs", "a:b")]
    assert [usual_folder(data).name for data in folders] == ["cats", "dogs", "a-b"]
    assert next(describe(folders[0], compose_run([]))) == "data set     cats"
