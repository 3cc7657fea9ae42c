"""What a peer's report may say: every field is checked against the run's plan before it is used.

A report becomes records, and records become files, a summary and a picture. A number that no run of
this plan can have would break them or fill the disk. So a report with one is refused as a whole.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from dogo_fed.contracts import PeerId, PeerResult, RoundReport, StepReport
from dogo_fed.errors import Refused
from dogo_fed.plan import Plan
from dogo_fed.wire import codec
from dogo_fed.wire import dogo_pb2 as pb

_LONGEST_DURATION_S = 1e8  # three years
_LARGEST_LOSS = 1e30
_MOST_PARAMETERS = 2**48
_MOST_ASKED = 1000
"""How often a peer may ask for one answer, which is held back while another one evaluates."""
_HEALTH = ("feature_std", "rankme", "alignment", "uniformity")
_DIGEST = re.compile(r"[0-9a-f]{0,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """The reports of one message, checked."""

    steps: tuple[StepReport, ...]
    rounds: tuple[RoundReport, ...]
    result: PeerResult | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRules:
    """What reports of a run may say.

    Attributes:
        plan: the run's steps and rounds.
        num_peers: how many peers the run has.
        message_bytes: size of the largest message of an exchange, in bytes.
    """

    plan: Plan
    num_peers: int
    message_bytes: int

    def read(self, request: pb.ReportRequest, peer: PeerId) -> Reports:
        """Returns the reports in a message.

        Raises:
            Refused: there are too many, or one has a value that this run can't have; the message
                names the field and the value.
        """
        for count, most, what in (
            (len(request.steps), codec.MOST_STEPS, "steps"),
            (len(request.rounds), codec.MOST_ROUNDS, "rounds"),
        ):
            if count > most:
                raise Refused(
                    f"peer {peer!r} reports {count} {what} in one message; {most} are allowed"
                )
        steps = tuple(codec.decode_report(StepReport, report, peer) for report in request.steps)
        rounds = tuple(codec.decode_report(RoundReport, report, peer) for report in request.rounds)
        result = None
        if request.HasField("result"):
            result = codec.decode_report(PeerResult, request.result, peer)
        for step in steps:
            self._check_step(step)
        for report in rounds:
            self._check_round(report)
        if result is not None:
            self._check_result(result)
        return Reports(steps=steps, rounds=rounds, result=result)

    def _check_step(self, report: StepReport) -> None:
        plan, peer = self.plan, report.peer
        _check_count(peer, "step", report.step, plan.total_steps - 1)
        if report.round != plan.round_of(report.step):
            raise Refused(
                f"peer {peer!r} reports step {report.step} in round {report.round}; it belongs to "
                f"round {plan.round_of(report.step)}"
            )
        _check_number(peer, "ssl_loss", report.ssl_loss, _LARGEST_LOSS)
        _check_number(peer, "mutual_kl", report.mutual_kl, _LARGEST_LOSS)
        _check_count(peer, "num_teachers", report.num_teachers, self.num_peers - 1)
        for name in ("compute_s", "wait_s", "exchange_s"):
            _check_duration(peer, name, getattr(report, name))
        # Whoever asks again sends its distribution again.
        _check_count(peer, "bytes_up", report.bytes_up, _MOST_ASKED * self.message_bytes)
        _check_count(peer, "bytes_down", report.bytes_down, self.message_bytes)

    def _check_round(self, report: RoundReport) -> None:
        plan = self.plan
        _check_count(report.peer, "round", report.round, plan.num_rounds)
        # A round's evaluation that was left off is made up for later.
        if not plan.end_of(report.round) <= report.step <= plan.total_steps:
            raise Refused(
                f"peer {report.peer!r} reports round {report.round} at step {report.step}; in this run "
                f"that is {plan.end_of(report.round)} to {plan.total_steps}"
            )
        _check_share(report.peer, "knn_top1", report.knn_top1)
        _check_duration(report.peer, "seconds", report.seconds)
        for name in _HEALTH:
            _check_number(report.peer, name, getattr(report, name), _LARGEST_LOSS)

    def _check_result(self, result: PeerResult) -> None:
        peer = result.peer
        _check_count(peer, "parameters", result.parameters, _MOST_PARAMETERS)
        for name in ("knn_top1", "linear_top1", "knn_top1_untrained"):
            _check_share(peer, name, getattr(result, name))
        for name in ("ssl_loss", "mutual_kl", *_HEALTH, "rankme_untrained"):
            _check_number(peer, name, getattr(result, name), _LARGEST_LOSS)
        if not _DIGEST.fullmatch(result.state_digest):
            raise Refused(f"peer {peer!r} reports a state_digest that is not hexadecimal")
        _check_count(peer, "steps_trained", result.steps_trained, self.plan.total_steps)


def _check_count(peer: PeerId, name: str, value: int, most: int) -> None:
    if not 0 <= value <= most:
        raise Refused(f"peer {peer!r} reports {name}={value}; in this run it is 0 to {most}")


def _check_number(peer: PeerId, name: str, value: float, largest: float) -> None:
    """Checks a loss or the like; NaN says that there is none."""
    if not (math.isnan(value) or abs(value) <= largest):
        raise Refused(
            f"peer {peer!r} reports {name}={value:g}; that is infinite or beyond {largest:g}"
        )


def _check_duration(peer: PeerId, name: str, value: float) -> None:
    """Checks a number of seconds; NaN says that there is none."""
    if not (math.isnan(value) or 0.0 <= value <= _LONGEST_DURATION_S):
        raise Refused(
            f"peer {peer!r} reports {name}={value:g}; a duration is 0 to {_LONGEST_DURATION_S:g} s"
        )


def _check_share(peer: PeerId, name: str, value: float) -> None:
    """Checks an accuracy; NaN says that it was not measured."""
    if not (math.isnan(value) or 0.0 <= value <= 1.0):
        raise Refused(f"peer {peer!r} reports {name}={value:g}; an accuracy is 0 to 1")
