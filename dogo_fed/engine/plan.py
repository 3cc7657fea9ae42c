"""Makes the schedule and the plan of a run from its settings."""

from __future__ import annotations

from dogo_fed.config import RunConfig
from dogo_fed.data.schedule import Schedule
from dogo_fed.errors import ConfigError
from dogo_fed.plan import Plan


def make_schedule(config: RunConfig, num_samples: int) -> Schedule:
    """Returns the run's schedule: which images each step uses.

    Raises:
        ConfigError: the batch is larger than the data set.
    """
    if config.batch_size > num_samples:
        raise ConfigError(
            f"batch_size={config.batch_size} is larger than the data set {config.data.name}, which "
            f"has {num_samples} training images"
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
