"""Fits the settings of a run to its images, and makes its schedule and its plan from them."""

from __future__ import annotations

import dataclasses

from dogo_fed.config import RunConfig
from dogo_fed.data.schedule import Schedule
from dogo_fed.errors import ConfigError
from dogo_fed.plan import Plan

USUAL_BATCH_SIZE = 256
USUAL_STEPS_PER_ROUND = 100
"""Where passes hold private images, of which each peer has another number."""
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


def make_schedule(config: RunConfig, num_samples: int, title: str | None = None) -> Schedule:
    """Returns the run's schedule: which shared images each step uses.

    Args:
        config: the run's settings, fitted to its images.
        num_samples: training images that are shared.
        title: what people call them; None is the name in the settings.

    Raises:
        ConfigError: a step uses more images than there are.
    """
    number = config.anchors_per_step
    if number > num_samples and config.share_of_anchors == 1.0:
        raise ConfigError(
            f"batch_size={config.batch_size} is larger than the data set {title or config.data.name}, "
            f"which has {num_samples} training images; batch_size={usual_batch_size(num_samples)} fits, "
            "and is taken if none is named"
        )
    if number > num_samples:
        raise ConfigError(
            f"a pass would hold {number} anchors (batch_size={config.batch_size}, "
            f"anchor_share={config.share_of_anchors:g}), but there are only {num_samples}; "
            f"anchor_share={num_samples / (config.batch_size or 1):.2g} or less fits"
        )
    return Schedule(seed=config.seed, num_samples=num_samples, batch_size=max(1, number))


def make_plan(config: RunConfig, schedule: Schedule) -> Plan:
    """Returns the run's plan; its length is `steps`, else `rounds`, else the data set's default."""
    usual = schedule.steps_per_epoch if config.share_of_anchors == 1.0 else USUAL_STEPS_PER_ROUND
    steps_per_round = config.steps_per_round or usual
    rounds = config.rounds or config.data.default_rounds
    return Plan(
        total_steps=config.steps or rounds * steps_per_round,
        steps_per_round=steps_per_round,
        exchange_every_steps=config.exchange.every_steps,
        dense_steps=config.exchange.dense_steps,
    )
