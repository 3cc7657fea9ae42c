"""Where the peers of a run go on: from which checkpoint each, so that the run is of one piece.

Peers that exchange are in step: a state of the run is a checkpoint of each peer such that all have
done the same exchanges. Between two exchanges a peer trains alone, so the checkpoints need not be
of the same step. Without any exchange each peer goes on from its own newest one.

A peer that the run had lost, and gone on without, has missed steps. The run does not go back for it:
it joins late, as it would have in the run that went on. The events of the run tell who was lost. A
peer may also be behind because its newest checkpoint is broken, or there was no room for later ones.
Then all go back to a state that everybody has, and nobody misses a step. If there is none, whoever
is further behind than a peer in step can be joins late.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from dogo_fed.contracts import Event, EventKind, PeerId
from dogo_fed.errors import CheckpointError

NextExchange = Callable[[int], int]
"""Returns a step if it exchanges, else the next one that does."""


class Checkpoints(Protocol):
    """The checkpoints of a peer, as far as it matters here; `CheckpointStore` is one."""

    @property
    def folder(self) -> Path | str:
        """Where they are, for people."""
        ...

    def steps(self) -> list[int]:
        """Returns the steps that there are checkpoints for, in ascending order."""
        ...

    def problem_with(self, step: int) -> str | None:
        """Returns why the checkpoint of `step` can't be read; None if it can."""
        ...


@dataclass(frozen=True, slots=True)
class FarCheckpoints:
    """The checkpoints that a peer keeps elsewhere, by the steps that it has told.

    Attributes:
        readable: the steps of those that it can read.
        broken: the steps of those that it can't.
    """

    readable: Sequence[int] = ()
    broken: Sequence[int] = ()
    folder: str = "the run's folder at its site"

    def steps(self) -> list[int]:
        """Returns all these steps, in ascending order."""
        return sorted({*self.readable, *self.broken})

    def problem_with(self, step: int) -> str | None:
        """Returns what the peer has found when it looked."""
        return (
            None if step in self.readable else f"its site can't read the checkpoint of step {step}"
        )


def believed(
    told: Mapping[PeerId, FarCheckpoints], most: int
) -> tuple[dict[PeerId, FarCheckpoints], list[Event]]:
    """Returns what peers have told, without steps that no peer of the run can have done.

    Args:
        told: what each peer keeps elsewhere, as it says.
        most: the most steps that a peer of this run can have done.

    Returns:
        What is believed, and an event for each peer that told of more.
    """
    kept, events = {}, []
    for peer, far in told.items():
        kept[peer] = dataclasses.replace(
            far,
            readable=[step for step in far.readable if step <= most],
            broken=[step for step in far.broken if step <= most],
        )
        beyond = [step for step in far.steps() if step > most]
        if beyond:
            message = (
                f"peer {peer} tells of checkpoints of later steps than {most}, which no peer of this "
                f"run can have done; {len(beyond)} of them are passed over"
            )
            events.append(Event(EventKind.CHECKPOINT_PASSED_OVER, message, peer, most))
    return kept, events


@dataclass(frozen=True, slots=True)
class StartingPoints:
    """Where each peer goes on.

    Attributes:
        checkpoints: the step of each peer's checkpoint; None is the beginning.
        first_step: the step that the run goes on with. A peer with an older checkpoint joins late.
        events: what people should know: which checkpoints were passed over, who joins late.
    """

    checkpoints: Mapping[PeerId, int | None]
    first_step: int
    events: tuple[Event, ...] = ()


def starting_points(
    stores: Mapping[PeerId, Checkpoints],
    next_exchange: NextExchange | None,
    has_trained: Collection[str],
    ways_out: str,
    lost_at: Mapping[str, int] = MappingProxyType({}),
) -> StartingPoints:
    """Returns where the peers of an earlier run go on. Changes nothing on disk.

    Args:
        stores: each peer's checkpoints.
        next_exchange: which steps exchange; None if nothing is exchanged.
        has_trained: the peers that have done a step in this run.
        lost_at: for each peer that was lost or late and not back at the end, the step at which it was
            lost; see `lost_at_the_end`.
        ways_out: what to type where the checkpoints do not suffice; ends the error's message.

    Raises:
        CheckpointError: a peer that has trained has no checkpoint that can be read, or those of the
            peers do not fit together.
    """
    sought = _Sought(stores)
    newest = {peer: sought.newest(peer) for peer in stores}
    _check_present(stores, newest, has_trained, ways_out)
    if next_exchange is None:
        return StartingPoints(
            newest, min(step or 0 for step in newest.values()), tuple(sought.passed_over)
        )
    reached = {peer: max(store.steps(), default=None) for peer, store in stores.items()}
    furthest = max(step or 0 for step in reached.values())
    missed = {
        peer: next_exchange(lost_at[peer])
        for peer in stores
        if peer in lost_at and next_exchange(lost_at[peer]) < next_exchange(furthest)
    }
    never_lost = [peer for peer in stores if peer not in missed]
    # A lost peer's later checkpoint is of the time after its loss, or of one that was given up.
    missed_none = [
        peer
        for peer, store in stores.items()
        if peer not in missed or any(next_exchange(step) > missed[peer] for step in store.steps())
    ]
    state = (
        _state_of(missed_none, sought, next_exchange)
        or _state_of(never_lost, sought, next_exchange)
        or _state_of(_in_step(reached, stores, next_exchange), sought, next_exchange)
        or _state_of(_in_step(newest, stores, next_exchange), sought, next_exchange)
    )
    if state is None:
        found = "; ".join(f"{peer}: {_listed(store)}" for peer, store in stores.items())
        raise CheckpointError(
            f"the peers have no readable checkpoints of the same state of the run ({found}); put "
            f"missing files back, or {ways_out}"
        )
    exchange, chosen = state
    first_step = min(step or 0 for step in chosen.values())
    late = [peer for peer in stores if peer not in chosen]
    for peer in late:
        chosen[peer] = sought.newest(peer, lambda step: next_exchange(step) <= exchange)
    _check_present(stores, chosen, has_trained, ways_out)
    return StartingPoints(
        {peer: chosen[peer] for peer in stores},
        first_step,
        (*sought.passed_over, *(_joins_late(peer, chosen[peer], first_step) for peer in late)),
    )


def lost_at_the_end(records: Iterable[Mapping[str, object]]) -> dict[str, int]:
    """Returns the peers that a run had lost at its end, and the step that was open then.

    Where the run went on, a peer that joined late is still one that was lost.

    Args:
        records: the lines of metrics.jsonl, in order.
    """
    lost: dict[str, int] = {}
    before: dict[str, int] = {}
    for record in records:
        peer = str(record.get("peer"))
        match record.get("kind"):
            case EventKind.RESUMED:
                before, lost = lost, {}
            case EventKind.PEER_LATE:
                lost[peer] = before.get(peer, int(str(record.get("step"))))
            case EventKind.PEER_LOST:
                lost[peer] = int(str(record.get("step")))
            case EventKind.PEER_REJOINED:
                lost.pop(peer, None)
    return lost


def passed_over(peer: PeerId, problem: str) -> str:
    """Returns what is told of a checkpoint that can't be read."""
    return f"peer {peer}: {problem}; the one before it is taken"


class _Sought:
    """The peers' checkpoints that can be read. Each is looked at once, and only if it is asked for."""

    def __init__(self, stores: Mapping[PeerId, Checkpoints]) -> None:
        self.stores = stores
        self._is_readable: dict[tuple[PeerId, int], bool] = {}
        self.passed_over: list[Event] = []

    def newest(
        self, peer: PeerId, is_wanted: Callable[[int], bool] = lambda step: True
    ) -> int | None:
        """Returns the newest wanted step of a peer that can be read; None if there is none."""
        wanted = [step for step in self.stores[peer].steps() if is_wanted(step)]
        return next((step for step in reversed(wanted) if self._can_be_read(peer, step)), None)

    def _can_be_read(self, peer: PeerId, step: int) -> bool:
        if (peer, step) not in self._is_readable:
            problem = self.stores[peer].problem_with(step)
            self._is_readable[peer, step] = problem is None
            if problem is not None:
                message = passed_over(peer, problem)
                self.passed_over.append(
                    Event(EventKind.CHECKPOINT_PASSED_OVER, message, peer, step)
                )
        return self._is_readable[peer, step]


def _check_present(
    stores: Mapping[PeerId, Checkpoints],
    newest: Mapping[PeerId, int | None],
    has_trained: Collection[str],
    ways_out: str,
) -> None:
    """Raises CheckpointError if a peer that has trained has nothing to go on from."""
    missing = [
        peer
        for peer, store in stores.items()
        if newest[peer] is None and (store.steps() or peer in has_trained)
    ]
    if not missing:
        return
    what = [
        f"peer {peer} has no checkpoint{' that can be read' if stores[peer].steps() else ''} in "
        f"{stores[peer].folder}"
        for peer in missing
    ]
    there = "; ".join(
        f"{peer} has {_listed(stores[peer])}" for peer in stores if peer not in missing
    )
    others = f" ({there})" if there else ""
    raise CheckpointError(
        f"{', and '.join(what)}, but it has trained in this run{others}; put its files back, or "
        f"{ways_out}"
    )


def _in_step(
    reached: Mapping[PeerId, int | None],
    stores: Mapping[PeerId, Checkpoints],
    next_exchange: NextExchange,
) -> list[PeerId]:
    """Returns the peers that may have been in step with the one that has got furthest.

    Args:
        reached: how far each peer has got; None is nowhere.
        stores: their checkpoints.
        next_exchange: which steps exchange.
    """
    lead = max(stores, key=lambda peer: -1 if reached[peer] is None else reached[peer] or 0)
    of_lead = stores[lead].steps()
    return [peer for peer in stores if _can_be_in_step(reached[peer], of_lead, next_exchange)]


def _can_be_in_step(newest: int | None, of_lead: list[int], next_exchange: NextExchange) -> bool:
    """Whether a peer may have been in step with the one that has got furthest.

    Its next checkpoint was due at the first later step that the other has one of. When it had not
    made that yet, the other could not get beyond the next exchange.
    """
    later = [step for step in of_lead if newest is None or step > newest]
    return not later or later[-1] <= next_exchange(later[0])


def _state_of(
    peers: Sequence[PeerId], sought: _Sought, next_exchange: NextExchange
) -> tuple[int, dict[PeerId, int | None]] | None:
    """Returns the newest state that all these peers have; None if they have none, or are nobody.

    Returns:
        The state's next exchange, and the step of the checkpoint of each of them.
    """
    if not peers:
        return None
    stores = sought.stores

    def newest_before(exchange: int, peer: PeerId) -> int | None:
        return sought.newest(peer, lambda step: next_exchange(step) == exchange)

    there = {step for peer in peers for step in stores[peer].steps()}
    for exchange in sorted({next_exchange(step) for step in there}, reverse=True):
        chosen = {peer: newest_before(exchange, peer) for peer in peers}
        begins = {peer for peer in peers if not stores[peer].steps() and exchange == 0}
        if all(step is not None or peer in begins for peer, step in chosen.items()):
            return exchange, chosen
    return None if there else (0, dict.fromkeys(peers))


def _joins_late(peer: PeerId, step: int | None, first_step: int) -> Event:
    what = "none" if step is None else f"of step {step}"
    message = (
        f"peer {peer} joins late: the run goes on at step {first_step}, and its newest checkpoint is "
        f"{what}"
    )
    return Event(EventKind.PEER_LATE, message, peer, first_step)


def _listed(store: Checkpoints) -> str:
    return ", ".join(str(step) for step in store.steps()) or "none"
