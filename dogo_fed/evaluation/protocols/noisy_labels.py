"""Wrong labels: the probe is trained on noisy labels and scored on clean ones."""

from __future__ import annotations

from collections.abc import Sequence

from dogo_fed.contracts import Score
from dogo_fed.errors import ConfigError
from dogo_fed.evaluation.features import FrozenFeatures
from dogo_fed.evaluation.label_noise import (
    CIFAR10_CLASSES,
    CIFAR10_CONFUSIONS,
    asymmetric,
    next_class,
    symmetric,
)
from dogo_fed.evaluation.protocols.probing import (
    Level,
    check_draws,
    check_listed,
    probe_score,
    share,
)
from dogo_fed.evaluation.subject import Subject

_NAME = "noisy_labels"


def noisy_labels(
    subject: Subject,
    *,
    symmetric_rates: Sequence[float] = (0.2, 0.4, 0.6),
    asymmetric_rates: Sequence[float] = (0.2, 0.4),
    mapping: str | Sequence[int] = "auto",
    draws: int = 3,
) -> list[Score]:
    """Returns a score per kind of noise, rate and draw, and one without noise for comparison.

    All labelled training images are used. What the probe chooses its penalty on is noisy as well.

    Args:
        subject: the encoder on a data set.
        symmetric_rates: shares of each class whose label becomes any other class.
        asymmetric_rates: shares of each class whose label becomes one given class.
        mapping: that class: "next" is c + 1 (modulo the number of classes), "cifar10" the usual
            confusions of CIFAR-10, "auto" takes those for CIFAR-10 by whatever loader it came (the
            names of its classes tell) and "next" otherwise, and a list names a class for every class.
        draws: how often the noise is drawn anew.

    Raises:
        ConfigError: a rate or the mapping is impossible for this data set.
    """
    check_draws(draws)
    check_listed("symmetric_rates", symmetric_rates)
    check_listed("asymmetric_rates", asymmetric_rates)
    targets = _targets(mapping, subject)
    train, num_classes = subject.probe_train, subject.num_classes
    none = _wrong(0.0)
    scores = [probe_score(subject, train, protocol=_NAME, condition="no noise", level=none)]
    kinds = [("symmetric", rate) for rate in symmetric_rates]
    kinds += [("asymmetric", rate) for rate in asymmetric_rates]
    for kind, rate in kinds:
        for draw in range(draws):
            generator = subject.generator(_NAME, kind, draw)
            if kind == "symmetric":
                noisy_N = symmetric(train.labels_N, num_classes, rate, generator)
            else:
                noisy_N = asymmetric(train.labels_N, targets, rate, generator)
            scores.append(
                probe_score(
                    subject,
                    FrozenFeatures(train.features_NF, noisy_N),
                    protocol=_NAME,
                    condition=f"{kind} {share(rate)}",
                    draw=draw,
                    group=kind,
                    level=_wrong(rate),
                )
            )
    return scores


def _wrong(rate: float) -> Level:
    return Level(rate, "share of wrong labels", is_share=True)


def _is_cifar10(subject: Subject) -> bool:
    """Whether the data set has CIFAR-10's classes in CIFAR-10's order."""
    names = tuple(name.lower() for name in subject.dataset.class_names)
    return subject.dataset.name == "cifar10" or names == CIFAR10_CLASSES


def _targets(mapping: str | Sequence[int], subject: Subject) -> tuple[int, ...]:
    """Returns the class that a wrong label of each class goes to."""
    num_classes = subject.num_classes
    if mapping == "auto":
        mapping = "cifar10" if _is_cifar10(subject) else "next"
    if mapping == "next":
        return next_class(num_classes)
    targets = CIFAR10_CONFUSIONS if mapping == "cifar10" else mapping
    if isinstance(targets, str):
        raise ConfigError(
            f'mapping must be "auto", "next", "cifar10" or a list of classes, not {mapping!r}'
        )
    if len(targets) != num_classes:
        raise ConfigError(
            f"mapping names a class for {len(targets)} classes, but {subject.dataset.title} has "
            f"{num_classes}"
        )
    return tuple(targets)
