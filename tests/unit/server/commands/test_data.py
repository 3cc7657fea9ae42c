"""`dogo-fed data`: what it says about a data set names only settings that there are."""

from __future__ import annotations

import numpy as np
import pytest

from configs.compose import compose_run
from dogo_fed.data.map_style import dataset_from_arrays
from server.commands.data import describe


@pytest.mark.parametrize(
    ("data", "is_option"), [("npz", True), ("imagenet", True), ("digits", False), ("own", False)]
)
def test_black_images_get_advice_that_the_loader_can_take(data, is_option):
    black = dataset_from_arrays("black", np.zeros((8, 3, 8, 8), np.uint8), [0, 1] * 4)
    said = "\n".join(describe(black, compose_run([f"data={data}"])))
    assert "the images are nearly black (mean 0.000 of 1)" in said
    assert ("data.options.value_range=[0,4095]" in said) is is_option


def test_one_image_suits_no_setting():
    one = dataset_from_arrays("one", np.zeros((1, 3, 8, 8), np.uint8))
    said = "\n".join(describe(one, compose_run(["data=npz"])))
    assert "compares at least 2 images" in said and "batch_size" not in said
