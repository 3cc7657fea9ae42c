"""The linear probe at the end of every run, with an interval."""

from __future__ import annotations

from dogo_fed import seeding
from dogo_fed.contracts import Score
from dogo_fed.evaluation.intervals import wilson
from dogo_fed.evaluation.linear_probe import linear_probe
from dogo_fed.evaluation.protocols.probing import TOP1
from dogo_fed.evaluation.subject import Subject


def linear(subject: Subject, *, epochs: int = 50) -> list[Score]:
    """Returns one score; for a run's own peers it is the number in summary.json.

    Args:
        subject: the encoder on a data set.
        epochs: passes over the training images; the default is that of training runs.

    Raises:
        ConfigError: epochs is below 1.
    """
    result = linear_probe(
        subject.train,
        subject.test,
        subject.num_classes,
        seeding.generator(subject.seed, *subject.encoder.linear_stream),
        epochs=epochs,
    )
    interval = wilson(result.num_correct, result.num_test)
    return [Score("linear", "all labels", 0, TOP1, result.top1, *interval)]
