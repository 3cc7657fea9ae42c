"""Where the time of a step goes: the parts of sampled steps, as means and as spans on a time line.

Code that does a part of a step says so with `part`. Whoever drives the step keeps the ledger and
opens it for the steps of the sample; for all others `part` does next to nothing.
"""

from __future__ import annotations

import enum
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace

EVERY_STEPS = 8
"""One step of so many is in the sample, in the mean."""

_FIRST_SHARE = 0.6
"""So chosen that the sample begins with step 4: a short run has one, and the first steps warm up."""

_MOST_SPANS = 20_000
"""Of the time line; the latest stay."""


def is_sampled(step: int) -> bool:
    """Whether a step is in the sample: one in `EVERY_STEPS`, and as many of every k-th step.

    Multiples of an irrational number are spread evenly over 0 to 1, and so is every k-th of them. So
    the sample is in step with nothing that comes back after k steps, such as an exchange.
    """
    share = step * math.sqrt(2) % 1.0
    return _FIRST_SHARE <= share < _FIRST_SHARE + 1 / EVERY_STEPS


class Part(enum.Enum):
    """A part of a step.

    LOAD: gathering the images of the pass.
    AUGMENT: moving them to the device and drawing the two views.
    FORWARD: the networks' forward pass and the peer's own loss.
    SIMILARITY: the similarity distributions.
    ENCODE: a distribution to a message.
    TRANSFER: the message to the coordinator, the mean of the others, and the answer back.
    WAIT: the time of it in which the answer was held back for slower peers.
    DECODE: the answer to a distribution.
    BACKWARD: the gradients.
    UPDATE: the optimizer's step and what follows the weights.
    OTHER: the rest.
    BESIDE: what another thread has done while the step went on; no part of the time of the step.
    """

    LOAD = "load"
    AUGMENT = "augment"
    FORWARD = "forward"
    SIMILARITY = "similarity"
    ENCODE = "encode"
    TRANSFER = "transfer"
    WAIT = "wait"
    DECODE = "decode"
    BACKWARD = "backward"
    UPDATE = "update"
    OTHER = "other"
    BESIDE = "beside"


@dataclass(frozen=True, slots=True)
class Span:
    """A part of one step on the time line.

    Attributes:
        started_s: seconds since the epoch, so that spans of several processes fit together.
        seconds: with the parts inside of it.
        is_beside: whether another thread did it while the step went on.
    """

    part: Part
    step: int
    started_s: float
    seconds: float
    is_beside: bool = False


@dataclass(slots=True)
class _Open:
    """A part that goes on: when it began, and the seconds of the parts inside of it."""

    part: Part
    started_s: float
    inner_s: float = 0.0


class Ledger:
    """The sampled steps of one peer. A part's time is its own, without that of parts inside of it."""

    def __init__(
        self,
        *,
        synchronise: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Begins with no step.

        Args:
            synchronise: waits until the device is done, so that a part ends when its work does.
            clock: seconds from an arbitrary beginning.
        """
        self.num_steps = 0
        self.spans: deque[Span] = deque(maxlen=_MOST_SPANS)
        self._seconds = dict.fromkeys(Part, 0.0)
        self._synchronise = synchronise
        self._clock = clock
        self._epoch_s = time.time() - clock()
        self._step = -1
        self._parts: list[_Open] = []

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """Records the parts in the block, if the step is in the sample.

        A step may be done in several blocks.
        """
        if not is_sampled(number):
            yield
            return
        self.num_steps += number != self._step
        self._step = number
        token = _ledger.set(self)
        try:
            with self.part(Part.OTHER):
                yield
        finally:
            _ledger.reset(token)

    @contextmanager
    def part(self, part: Part) -> Iterator[None]:
        """Records the time of the block."""
        self._synchronise()
        opened = _Open(part, self._clock())
        self._parts.append(opened)
        try:
            yield
        finally:
            self._synchronise()
            seconds = self._clock() - opened.started_s
            self._parts.pop()
            self._seconds[part] += seconds - opened.inner_s
            if self._parts:
                self._parts[-1].inner_s += seconds
            if part is not Part.OTHER:
                self.spans.append(Span(part, self._step, self._epoch_s + opened.started_s, seconds))

    def waited(self, step: int, seconds: float) -> None:
        """Says for how long an answer was held back, in a step of the sample.

        Only what lies within the transfer that has just ended was waited for here: meanwhile, a peer
        may have computed.
        """
        transfers = (span for span in reversed(self.spans) if span.part is Part.TRANSFER)
        last = next(transfers, None)
        if step != self._step or last is None or seconds <= 0:
            return
        seconds = min(seconds, last.seconds)
        self._seconds[Part.TRANSFER] -= seconds
        self._seconds[Part.WAIT] += seconds
        self.spans.append(Span(Part.WAIT, step, last.started_s, seconds))

    def add_beside(self, spans: Iterable[Span]) -> None:
        """Takes parts that another thread has done while the step went on; see `recorded_apart`.

        All of them are one part of their own, and on the time line they keep their names.
        """
        for span in spans:
            self._seconds[Part.BESIDE] += span.seconds
            self.spans.append(replace(span, is_beside=True))

    def mean_ms(self) -> dict[str, float]:
        """Returns the mean milliseconds of each part in a step; nothing if no step was recorded."""
        if self.num_steps == 0:
            return {}
        return {
            part.value: 1e3 * max(0.0, seconds) / self.num_steps
            for part, seconds in self._seconds.items()
        }


_ledger: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


def part(part: Part) -> AbstractContextManager[None]:
    """Says that the block is this part of a step; recorded if a ledger is open."""
    ledger = _ledger.get()
    return nullcontext() if ledger is None else ledger.part(part)


@contextmanager
def recorded_apart(step: int) -> Iterator[list[Span]]:
    """Records what this thread does of a step that another one drives, if the step is in the sample.

    Yields:
        The list that has the parts after the block, for `add_beside`.
    """
    spans: list[Span] = []
    ledger = Ledger()
    try:
        with ledger.step(step):
            yield spans
    finally:
        spans += ledger.spans


def add_beside(spans: Iterable[Span]) -> None:
    """Adds parts that another thread has done to the ledger that is open; drops them if none is."""
    ledger = _ledger.get()
    if ledger is not None:
        ledger.add_beside(spans)
