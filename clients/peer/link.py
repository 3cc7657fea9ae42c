"""The interface of a peer's link to its coordinator."""

from __future__ import annotations

from typing import Protocol

from dogo_fed.contracts import PeerResult, RoundReport, StepReport
from dogo_fed.exchange.base import Link


class CoordinatorLink(Link, Protocol):
    """A `Link` that also delivers reports."""

    def report(
        self,
        steps: list[StepReport],
        rounds: list[RoundReport],
        result: PeerResult | None,
        *,
        is_evaluating: bool = False,
        is_brief: bool = False,
    ) -> bool:
        """Delivers reports; returns whether the run is to end early.

        Args:
            steps: of single steps.
            rounds: of evaluations.
            result: the last report, if it is time for it.
            is_evaluating: says that the peer evaluates its encoder, and does no step meanwhile.
            is_brief: tries once, and not for long.

        Raises:
            ExchangeError: the coordinator can't be reached, or refuses them.
        """
        ...
