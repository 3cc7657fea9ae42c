"""Makes the schedule and the plan of a run from its settings."""

from __future__ import annotations

import dataclasses

from dogo_fed.config import RunConfig
from dogo_fed.data.schedule import Schedule
from dogo_fed.errors import ConfigError
from dogo_fed.plan import Plan

USUAL_BATCH_SIZE = 256
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
    """Returns the settings of a run with those filled in that follow from the number of images."""
    if config.batch_size is not None:
        return config
    return dataclasses.replace(config, batch_size=usual_batch_size(num_samples))


def _power_of_two(most: int) -> int:
    """Returns the largest power of two up to a number; at least 2."""
    return 1 << max(1, most.bit_length() - 1)


def make_schedule(config: RunConfig, num_samples: int) -> Schedule:
    """Returns the run's schedule: which images each step uses.

    Args:
        config: the run's settings, fitted to its images.
        num_samples: training images.

    Raises:
        ConfigError: the batch is larger than the data set.
    """
    assert config.batch_size is not None, "fitted to the images"
    if config.batch_size > num_samples:
        raise ConfigError(
            f"batch_size={config.batch_size} is larger than the data set {config.data.name}, which "
            f"has {num_samples} training images; batch_size={usual_batch_size(num_samples)} fits, "
            "and is taken if none is named"
        )
    return Schedule(seed=config.seed, num_samples=num_samples, batch_size=config.batch_size)


def make_plan(config: RunConfig, schedule: Schedule) -> Plan:
    """Returns the run's plan; its length is `steps`, else `rounds`, else the data set's default."""
    steps_per_round = config.steps_per_round or schedule.steps_per_epoch
    rounds = config.rounds or config.data.default_rounds
    return Plan(
        total_steps=config.steps or rounds * steps_per_round,
        steps_per_round=steps_per_round,
        exchange_every_steps=config.exchange.every_steps,
    )
