"""The error tree of the project, drawn once.

    DogoError                     anything that dogo-fed raises on purpose
    |-- ConfigError               a setting is unknown, of the wrong type, or impossible
    |   `-- OwnCodeError          code that a setting names, and that is not ours, has failed
    |-- DataError                 a data set is missing, broken, or not what was promised
    |-- CheckpointError           a checkpoint or run folder can't be read or does not fit the run
    |-- StorageFull               a disk has no room for what must be kept
    |-- StartError                it could not be started here (no room, no program, no such peer)
    |-- Stopped                   the user asked for an end before anything had begun
    |-- TrainingError             the numbers went wrong (not finite, or moved in a frozen peer)
    |-- HelperLost                a process that does a part of a pass has failed, or is silent
    |-- EvaluationError           an evaluation broke its own promise (a frozen backbone changed)
    `-- ExchangeError             peers and coordinator can't go on talking
        |-- ExchangeTimeout       no answer before the deadline
        |-- CoordinatorLost       the coordinator can't be reached any more
        |-- Refused               the other side said no, and says why
        |   |-- SchemaMismatch    the two sides do not run the same thing (names what differs)
        |   `-- StaleTicket       the step is closed, or not this peer's turn
        `-- MalformedDistribution what arrived is not a similarity distribution

Hosts translate the exceptions of grpc and ray to these at the edge, with the cause chained.
Every message says what was wrong, where, and what to do about it. The other side of a `Refused` is
the coordinator, or a site's peer process that was called without its token, or for another peer.
"""

from __future__ import annotations


class DogoError(Exception):
    """Base of every error that dogo-fed raises on purpose."""


class ConfigError(DogoError):
    """A setting is unknown, of the wrong type, or impossible."""


class OwnCodeError(ConfigError):
    """Code that a setting names, and that is not ours, has failed; the cause is its own error."""


class DataError(DogoError):
    """A data set is missing, broken, or not what was promised."""


class CheckpointError(DogoError):
    """A checkpoint or a run folder can't be read, or does not fit this run."""


class StorageFull(DogoError):
    """A disk, a quota or a limit has no room for what must be kept; the message says what and where."""


class StartError(DogoError):
    """It could not be started here: no room, or a program, a cluster or a peer is missing."""


class Stopped(DogoError):
    """The user asked for an end before anything had begun."""


class TrainingError(DogoError):
    """The numbers went wrong: a loss is not finite, or a frozen peer has changed."""


class HelperLost(DogoError):
    """A process that does a part of a peer's passes has failed, or is silent."""


class EvaluationError(DogoError):
    """An evaluation broke its own promise, for example a frozen backbone changed."""


class ExchangeError(DogoError):
    """Peers and coordinator can't go on talking."""


class ExchangeTimeout(ExchangeError):
    """No answer came before the deadline."""


class CoordinatorLost(ExchangeError):
    """The coordinator can't be reached any more."""


class Refused(ExchangeError):
    """The coordinator, or a site's peer process, said no; the message says why."""


class SchemaMismatch(Refused):
    """The two sides do not run the same thing; the message names what differs."""


class StaleTicket(Refused):
    """The step is closed already, or it is not one this peer may take part in."""


class MalformedDistribution(ExchangeError):
    """What arrived is not a similarity distribution; the message says which rule it breaks."""


COULD_NOT_START = (ConfigError, DataError, StartError, CheckpointError)
"""If a run ends by one of these before its first step, it could not be started."""

SITE_KNOWS = "the reason is in the site's log"
"""What a coordinator is told in place of a text that stays at a site."""

_SAYS_NOTHING_OF_DATA = (
    Refused,
    ExchangeTimeout,
    CoordinatorLost,
    MalformedDistribution,
    TrainingError,
)


def outside(error: BaseException) -> str:
    """Returns what a site tells its coordinator of an error; the site's own log has the full text.

    Most texts say something of what they are about: paths, numbers or classes of the site's images.
    So only the kind of error is told, unless it is about the exchange or about the numbers of the
    training. A name that is not ours may say something too.
    """
    if isinstance(error, _SAYS_NOTHING_OF_DATA):
        return str(error)
    kind = type(error).__name__ if isinstance(error, DogoError) else "an unexpected error"
    return f"{kind} ({SITE_KNOWS})"


def own_failure(error: BaseException | None) -> BaseException | None:
    """Returns the error of the user's own code that is behind an error; None if there is none."""
    while error is not None and not isinstance(error, OwnCodeError):
        error = error.__cause__
    return None if error is None else error.__cause__
