"""Data sets of the same pictures: split alike, or refused."""

from __future__ import annotations

import pytest

from dogo_fed.config import DataConfig
from dogo_fed.data.catalog import DATASETS, KIN
from dogo_fed.data.kin import check_split, kin_of, split_alike
from dogo_fed.errors import ConfigError

HOME = DataConfig(name="digits_m", options={"seed": 7, "train_size": 100})


def test_the_kin_of_a_data_set_is_split_as_it_is() -> None:
    assert split_alike(HOME) == {"name": "digits", "options": {"seed": 7}}
    assert split_alike(DataConfig(name="digits_m")) == {"name": "digits", "options": {"seed": 0}}
    assert split_alike(DataConfig(name="digits", options={"seed": 7})) is None
    assert split_alike(DataConfig(name="my_images:pair")) is None


def test_another_split_of_the_same_pictures_is_refused() -> None:
    check_split(HOME, "fashion_mnist", {})
    check_split(HOME, "digits", {"seed": 7})
    check_split(DataConfig(name="cifar10"), "digits", {})
    told = (
        "digits with seed 0 would test digits that digits_m with seed 7 trained on; set the option"
    )
    with pytest.raises(ConfigError, match=told):
        check_split(HOME, "digits", {})


@pytest.mark.parametrize("name", KIN)
def test_kin_have_short_names(name: str) -> None:
    kin = kin_of(name)
    assert name in DATASETS and kin is not None and kin.name in DATASETS
