"""`dogo-fed data`: what it says about a data set names only settings that there are."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from configs.compose import compose_run
from dogo_fed.data.map_style import dataset_from_arrays
from dogo_fed.data.nearly_black import nearly_black
from server.commands.data import describe, usual_folder


@pytest.mark.parametrize(
    ("data", "is_option"), [("npz", True), ("imagenet", True), ("digits", False), ("own", False)]
)
def test_black_images_get_advice_that_the_loader_can_take(data, is_option):
    black = dataset_from_arrays("black", np.zeros((8, 3, 8, 8), np.uint8), [0, 1] * 4)
    said = "\n".join(describe(black, compose_run([f"data={data}"])))
    assert "the images are nearly black (mean 0.000 of 1, brightest pixel 0 of 255)" in said
    assert ("data.options.value_range=[0,4095]" in said) is is_option


def test_bright_images_of_12_bits_are_nearly_black_in_16():
    """Their mean may be half of their range, and is a thirtieth of that of 16 bits."""
    levels = np.random.default_rng(0).integers(4, 17, (90, 1, 8, 8)).astype(np.uint8)
    data = dataset_from_arrays("cells", levels, [0, 1] * 45)
    assert min(data.mean) > 0.03
    (note,) = nearly_black(data, {"value_range": None})
    assert "brightest pixel 16 of 255" in note and "value_range=[0,4095]" in note
    levels[::2, :, 0, 0] = 32
    assert list(nearly_black(dataset_from_arrays("cells", levels, [0, 1] * 45), {})) == []


def said_of(number, labels, side=8, stored=8):
    images = np.random.default_rng(0).integers(0, 256, (number, 3, stored, stored)).astype(np.uint8)
    data = dataset_from_arrays("mine", images, labels, images[:4], labels[:4])
    return list(
        describe(dataclasses.replace(data, image_size=side), compose_run(["data=imagenet"]))
    )


@pytest.mark.parametrize(
    ("number", "with_class", "k"), [(40, 40, 4), (60, 30, 3), (8, 8, 1), (3000, 3000, 200)]
)
def test_the_neighbours_that_fit_are_those_of_the_images_with_a_class(number, with_class, k):
    labels = [index % 2 if index < with_class else -1 for index in range(number)]
    assert f"fits         eval.knn_k={k}, the default here" in said_of(number, labels)


def test_without_classes_it_is_said_why_there_are_no_accuracies():
    said = said_of(8, [0] * 8)
    assert any(line.startswith("fits         no kNN and no linear probe: all") for line in said)
    assert not any("knn_k" in line for line in said)


@pytest.mark.parametrize(
    ("side", "stored", "advised"), [(8, 8, None), (8, 15, None), (8, 16, 16), (112, 224, 224)]
)
def test_larger_views_are_advised_where_the_images_have_the_pixels(side, stored, advised):
    advice = [
        line for line in said_of(4, [0, 1] * 2, side, stored) if "data.options.image_size=" in line
    ]
    if advised is None:
        assert advice == []
    else:
        assert f"data.options.image_size={advised}, since" in advice[0]


def test_two_folders_have_two_sheets():
    one = dataset_from_arrays("image_folder", np.zeros((8, 3, 8, 8), np.uint8), [0, 1] * 4)
    folders = [dataclasses.replace(one, title=title) for title in ("cats", "dogs", "a:b")]
    assert [usual_folder(data).name for data in folders] == ["cats", "dogs", "a-b"]
    assert next(describe(folders[0], compose_run([]))) == "data set     cats"


def test_one_image_suits_no_setting():
    one = dataset_from_arrays("one", np.zeros((1, 3, 8, 8), np.uint8))
    said = "\n".join(describe(one, compose_run(["data=npz"])))
    assert "compares at least 2 images" in said and "batch_size" not in said
