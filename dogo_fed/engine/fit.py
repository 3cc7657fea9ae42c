"""Fits the settings of a run to its images, and makes its schedule and its plan from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from dogo_fed.config import RunConfig
from dogo_fed.data.labels import num_labelled, why_no_accuracy
from dogo_fed.data.schedule import Schedule
from dogo_fed.data.source import DataSet
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.knn import usual_k
from dogo_fed.plan import Plan

FEWEST_IMAGES = 2
"""Of a step: with one there is nothing to compare it with."""
USUAL_BATCH_SIZE = 256
USUAL_STEPS_PER_ROUND = 100
"""Where passes have room for private images, of which each peer has another number."""
_ENOUGH_IMAGES = 4 * USUAL_BATCH_SIZE
_FEW_STEPS = 8
_SMALL_BATCH = 16


def usual_batch_size(num_samples: int) -> int:
    """Returns the batch size of a run that names none.

    256, the published one, from 1,024 images on. Below, it is the power of two that gives at least
    8 steps an epoch, but 16 as long as there are so many images.
    """
    if num_samples >= _ENOUGH_IMAGES:
        return USUAL_BATCH_SIZE
    for_steps = _power_of_two(num_samples // _FEW_STEPS)
    return max(for_steps, min(_SMALL_BATCH, _power_of_two(num_samples)))


def fitted(config: RunConfig, num_samples: int) -> RunConfig:
    """Returns the settings of a run with those filled in that follow from what is there.

    Args:
        config: the run's settings.
        num_samples: training images that are shared.
    """
    if config.batch_size is not None:
        return config
    batch_size, share = usual_batch_size(num_samples), config.share_of_anchors
    if 0.0 < share < 1.0:  # then the anchors of a pass are to fit, not the whole pass
        batch_size = min(USUAL_BATCH_SIZE, round(batch_size / share))
    return dataclasses.replace(config, batch_size=batch_size)


def _power_of_two(most: int) -> int:
    """Returns the largest power of two up to a number; at least 2."""
    return 1 << max(1, most.bit_length() - 1)


def check_enough_images(config: RunConfig, shared: DataSet, evaluated: Iterable[DataSet]) -> None:
    """Checks that there are as many images as a step and kNN take.

    Args:
        config: the run's settings, fitted to its images.
        shared: the data set that all peers see.
        evaluated: the data sets on which encoders are evaluated.

    Raises:
        ConfigError: there are too few. The message has all settings to change, with values that fit.
    """
    number = len(shared.train)
    if number < FEWEST_IMAGES and config.share_of_anchors == 1.0:
        raise ConfigError(
            f"the data set {shared.title} has {number} training image{'s' * (number != 1)}, and a step "
            f"compares at least {FEWEST_IMAGES} with each other; add more images"
        )
    faults = {
        **_fault_of_batch(config, shared.title, number),
        **_fault_of_neighbours(config, evaluated),
    }
    if faults:
        raise ConfigError(_too_few(faults))


def _fault_of_batch(config: RunConfig, name: str, number: int) -> dict[str, str]:
    """Returns why a step can't have its images, by what to type instead; else nothing.

    Raises:
        ConfigError: there are too few anchors for any step.
    """
    wanted = config.anchors_per_step
    if wanted <= number:
        return {}
    if config.share_of_anchors == 1.0:
        why = f"batch_size={config.batch_size} is more than the {number} training images of {name}"
        return {f"batch_size={usual_batch_size(number)}": why}
    why = (
        f"a pass would hold {wanted} anchors (batch_size={config.batch_size}, "
        f"anchor_share={config.share_of_anchors:g}), but there are only {number}"
    )
    if number < FEWEST_IMAGES:
        raise ConfigError(
            f"{why} in {name}, and a step compares at least {FEWEST_IMAGES} with each other; add more "
            "anchors"
        )
    assert config.batch_size is not None, "fitted to the images"
    return {f"anchor_share={share_holding(number, config.batch_size):g}": why}


def share_holding(most: int, batch_size: int) -> float:
    """Returns a share of a batch, in few digits, that is at most so many images, and not nothing."""
    assert 0 < most <= batch_size
    parts = 100
    while (whole := parts * most // batch_size) == 0:
        parts *= 10
    return whole / parts


def _fault_of_neighbours(config: RunConfig, evaluated: Iterable[DataSet]) -> dict[str, str]:
    """Returns why kNN can't have its neighbours, by what to type instead; else nothing."""
    k = config.eval.knn_k
    numbers = {
        num_labelled(one.train.labels): one.title
        for one in evaluated
        if why_no_accuracy(one) is None
    }
    fewest = min(numbers, default=None)
    if k is None or fewest is None or k <= fewest:
        return {}
    why = f"eval.knn_k={k} is more than the {fewest} labelled training images of {numbers[fewest]}"
    return {f"eval.knn_k={usual_k(fewest)}": why}


def _too_few(faults: Mapping[str, str]) -> str:
    """Returns the sentence about settings that there are too few images for."""
    text = f"{', and '.join(faults.values())}; type {' '.join(faults)}"
    if not any(typed.startswith("batch_size") for typed in faults):
        return text
    return (
        f"{text}. Where none is named, a run takes what fits, and a comparison "
        f"batch_size={USUAL_BATCH_SIZE}"
    )


def make_schedule(config: RunConfig, num_samples: int) -> Schedule:
    """Returns the run's schedule: which shared images each step uses.

    Args:
        config: the run's settings, fitted to its images.
        num_samples: training images that are shared.

    Raises:
        ConfigError: a step uses more images than there are.
    """
    fault = _fault_of_batch(config, config.data.name, num_samples)
    if fault:
        raise ConfigError(_too_few(fault))
    number = max(1, config.anchors_per_step)
    return Schedule(seed=config.seed, num_samples=num_samples, batch_size=number)


def make_plan(config: RunConfig, schedule: Schedule) -> Plan:
    """Returns the run's plan; its length is `steps`, else `rounds`, else the data set's default."""
    usual = USUAL_STEPS_PER_ROUND if config.expects_private else schedule.steps_per_epoch
    steps_per_round = config.steps_per_round or usual
    rounds = config.rounds or config.data.default_rounds
    return Plan(
        total_steps=config.steps or rounds * steps_per_round,
        steps_per_round=steps_per_round,
        exchange_every_steps=config.exchange.every_steps,
        dense_steps=config.exchange.dense_steps,
    )
