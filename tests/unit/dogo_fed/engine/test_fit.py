"""From settings and the number of images to a run's schedule and plan."""

from __future__ import annotations

import pytest
import torch

from dogo_fed.config_text import from_mapping
from dogo_fed.data.map_style import dataset_from_arrays
from dogo_fed.engine.fit import (
    fitted,
    make_plan,
    make_schedule,
    share_holding,
    usual_batch_size,
)
from dogo_fed.engine.loaded_run import load_run
from dogo_fed.errors import ConfigError
from dogo_fed.plan import Plan

PEER = {
    "backbone": {"name": "small_cnn", "options": {"width": 2}},
    "objective": {"name": "simclr", "options": {"hidden_dim": 8, "output_dim": 4}},
    "augmentation": {"name": "none", "options": {}},
    "optimizer": {"name": "adam", "options": {"lr": 0.001}},
}


def run_config(**others):
    return from_mapping({"peers": {"cnn": PEER}, "data": {"name": "synthetic"}, **others})


def test_a_batch_larger_than_the_data_set_is_refused():
    with pytest.raises(ConfigError, match=r"batch_size=33 .* 32 training images of synthetic"):
        make_schedule(run_config(batch_size=33), 32)
    assert make_schedule(run_config(batch_size=32), 32).steps_per_epoch == 1


@pytest.mark.parametrize("number", [*range(2, 300), 511, 512, 1000, 1023, 1024, 5000, 10**6])
def test_the_usual_batch_is_a_power_of_two_that_fits_and_gives_steps(number):
    size = usual_batch_size(number)
    assert 2 <= size <= min(number, 256) and size & (size - 1) == 0
    assert number // size >= (8 if number < 1024 else 4) or size <= 16
    assert 2 * size > min(
        number // 8, 255
    )  # the next one would give too few steps, or is too large
    assert size >= 16 or 2 * size > number


def test_only_a_batch_that_is_not_named_is_fitted():
    assert fitted(run_config(), 60).batch_size == 16
    assert fitted(run_config(batch_size=7), 60).batch_size == 7
    assert fitted(run_config(anchor_share=0.5), 5000).batch_size == 256


def loaded(number, **others):
    pixels = torch.zeros(number, 3, 8, 8, dtype=torch.uint8)
    few = dataset_from_arrays("few", pixels, [one % 2 for one in range(number)])
    return load_run(run_config(**others), few, is_to_start=True)


def test_what_too_few_images_are_for_is_said_at_once_with_values_that_fit():
    wanted = {"batch_size": 512, "eval": {"knn_k": 200}}
    with pytest.raises(ConfigError) as refusal:
        loaded(60, **wanted)
    message = str(refusal.value)
    assert message.startswith(
        "batch_size=512 is more than the 54 training images of few, and eval.knn_k=200 is more than "
        "the 54 labelled training images of few; type batch_size=16 eval.knn_k=5."
    )
    assert message.endswith("a run takes what fits, and a comparison batch_size=256")
    assert loaded(60, batch_size=16, eval={"knn_k": 5}).schedule.steps_per_epoch == 3


def test_neighbours_alone_are_refused_without_a_word_about_the_batch():
    with pytest.raises(ConfigError, match=r"knn_k=55 .* 54 labelled .*; type eval.knn_k=5$"):
        loaded(60, eval={"knn_k": 55})
    assert loaded(60, eval={"knn_k": 54}).config.eval.knn_k == 54


@pytest.mark.parametrize("others", [{}, {"batch_size": 2}, {"batch_size": 64}])
def test_one_image_is_too_few_whatever_the_batch(others):
    with pytest.raises(
        ConfigError, match="few has 1 training image, and a step compares at least 2"
    ):
        loaded(1, **others)
    assert loaded(2).config.batch_size == 2


@pytest.mark.parametrize("batch_size", [2, 16, 64, 100, 128, 256, 4096])
def test_a_share_of_anchors_that_is_advised_fits(batch_size):
    for number in range(2, batch_size + 1):
        share = float(f"{share_holding(number, batch_size):g}")
        config = run_config(batch_size=batch_size, anchor_share=share)
        assert 2 <= config.anchors_per_step <= number
        assert config.anchors_per_step > number - max(1, batch_size / 100) - 1


def test_too_few_anchors_are_refused_with_a_share_that_is_taken():
    with pytest.raises(ConfigError, match=r"128 anchors .* only 50; type anchor_share=0\.19$"):
        make_schedule(run_config(batch_size=256, anchor_share=0.5), 50)
    assert make_schedule(run_config(batch_size=256, anchor_share=0.19), 50)
    with pytest.raises(ConfigError, match=r"only 1 in .*; add more anchors"):
        make_schedule(run_config(batch_size=256, anchor_share=0.5), 1)


def test_the_schedule_is_that_of_the_runs_seed():
    first, second, other = (
        make_schedule(run_config(batch_size=8, seed=seed), 32) for seed in (1, 1, 2)
    )
    assert first.digest(3) == second.digest(3) != other.digest(3)


@pytest.mark.parametrize(
    ("others", "total_steps", "steps_per_round"),
    [
        ({}, 40, 4),  # the data set's default of 10 rounds, an epoch each
        ({"rounds": 3}, 12, 4),
        ({"steps": 7}, 7, 4),
        ({"steps": 7, "steps_per_round": 5}, 7, 5),
        ({"rounds": 3, "steps_per_round": 5}, 15, 5),
    ],
)
def test_the_plan_is_as_long_as_asked_for(others, total_steps, steps_per_round):
    config = run_config(batch_size=8, **others)
    assert make_plan(config, make_schedule(config, 32)) == Plan(total_steps, steps_per_round)


@pytest.mark.parametrize("every_steps", [1, 2, 3, 7])
def test_every_kth_step_from_the_first_on_exchanges(every_steps):
    config = run_config(batch_size=8, exchange={"every_steps": every_steps})
    plan = make_plan(config, make_schedule(config, 32))
    exchanging = [step for step in range(30) if plan.exchanges_at(step)]
    assert exchanging == list(range(0, 30, every_steps))
    for step in range(20):
        assert plan.next_exchange(step) == min(one for one in exchanging if one >= step)
