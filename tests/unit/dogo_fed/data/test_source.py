"""What may be said of images, wherever it is read."""

from __future__ import annotations

import math

import pytest

from dogo_fed.data.source import check_image_facts


def test_what_images_are_like_is_taken():
    check_image_facts(1, (0.5,), (0.1,))
    check_image_facts(65536, (0.4, 0.5, 0.6), (0.1, 0.2, 0.3))


@pytest.mark.parametrize(
    ("image_size", "mean", "std", "words"),
    [
        (0, (0.5,), (0.1,), "image_size must be from 1 to 65536, not 0"),
        (65537, (0.5,), (0.1,), "not 65537"),
        (8, (), (), "a number for each channel"),
        (8, (0.5, 0.5), (0.1,), "not 2 and 1"),
        (8, (0.5,) * 4097, (0.1,) * 4097, "not 4097 and 4097"),
        (8, (math.nan,), (0.1,), "mean and std must be finite"),
        (8, (0.5,), (math.inf,), "std above 0"),
        (8, (0.5,), (0.0,), "std above 0"),
    ],
)
def test_what_no_images_are_like_is_refused(image_size, mean, std, words):
    with pytest.raises(ValueError, match=words):
        check_image_facts(image_size, mean, std)
