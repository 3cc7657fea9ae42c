"""One peer's run: its steps, its evaluation at the end of rounds, its checkpoints, its result.

The same session runs in every host; `engine.drive` drives it.
"""

# N = images in the step's batch, C, H, W = channels and pixels

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field, replace

import torch

from dogo_fed.contracts import (
    PeerResult,
    RoundReport,
    StepReport,
    TeacherSignal,
    Ticket,
)
from dogo_fed.data.roles import StepImages
from dogo_fed.engine.feed import Feed
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.measure import Measured, measure
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import Proposal, absorb, propose, show
from dogo_fed.engine.step_losses import StepLosses
from dogo_fed.errors import StorageFull, TrainingError
from dogo_fed.evaluation import state_digest
from dogo_fed.evaluation.pulse import listening
from dogo_fed.exchange.base import Exchange, Traffic
from dogo_fed.ledger import Ledger, Part, part
from dogo_fed.reporting.sink import Sink
from dogo_fed.reporting.sinks.records import record_from_json, record_to_json
from dogo_fed.storage.checkpoint import Progress
from dogo_fed.storage.peer_folder import PeerFolder

logger = logging.getLogger(__name__)

_SAVE_AGAIN_S = 5.0
_ALIVE_EVERY_S = 1.0
_LONG_EVALUATION_S = 5.0


@dataclass(slots=True)
class _OpenStep:
    """A step between its two halves.

    Attributes:
        buffers: the running statistics and the like from before its forward pass; None if it can't be
            taken back.
        proposal: None while the forward pass goes on.
        exchange: None if the step does not exchange.
        traffic: of a step that does not; see `take_other_loss`.
    """

    ticket: Ticket
    buffers: dict[str, torch.Tensor] | None
    proposal: Proposal | None = None
    exchange: Exchange | None = None
    traffic: Traffic = field(default_factory=Traffic)
    compute_s: float = 0.0
    exchange_s: float = 0.0


class PeerSession:
    """One peer in one run."""

    def __init__(
        self,
        peer: Peer,
        run: LoadedRun,
        run_id: str,
        *,
        exchange: Exchange | None,
        sink: Sink,
        folder: PeerFolder,
        progress: Progress,
    ) -> None:
        """Opens the session; `engine.open` makes the arguments.

        Args:
            peer: the learner, whose weights are those of `progress`.
            run: its settings and data.
            run_id: the run's name.
            exchange: how it is taught; None trains alone.
            sink: gets a report for every step and round, and the result.
            folder: takes checkpoints and the exported encoder.
            progress: how far the peer is.
        """
        self.peer = peer
        self._run = run
        self._run_id = run_id
        self._exchange = exchange
        self._sink = sink
        self._folder = folder
        self._progress = progress
        self._frozen_digest: str | None = None
        self._open: deque[_OpenStep] = deque()  # more than one only with exchange.lookahead
        self._prepared: tuple[int, StepImages] | None = None
        self._unread: deque[tuple[_OpenStep, StepLosses, TeacherSignal | None]] = deque()
        self._is_torn = False
        self._is_stopped = False
        self._saves_again_at_s: float | None = None
        self._says_alive_at_s = math.inf
        self._ledger = Ledger(synchronise=peer.synchronise)
        self._feed = Feed.of(
            run.passes[peer.id], peer.device, with_labels=peer.objective.uses_labels
        )

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or the run was stopped."""
        return self._is_stopped or self._progress.step >= self._run.plan.total_steps

    @property
    def next_step(self) -> int:
        """The step that the peer begins next."""
        return self._progress.step + len(self._open)

    @property
    def exchanges(self) -> bool:
        """Whether this peer takes part in an exchange, which tells it when to stop."""
        return self._exchange is not None

    @property
    def proposal(self) -> Proposal:
        """What the peer has computed by itself at the step that is open."""
        assert self._open and self._open[-1].proposal is not None, "between the halves of a step"
        return self._open[-1].proposal

    @property
    def can_stop_here(self) -> bool:
        """Whether the peer may stop before its next step: nobody waits for it there."""
        return self._exchange is None or not self._run.plan.exchanges_at(self.next_step)

    def start(self) -> None:
        """Evaluates the untrained encoder, unless the run goes on, and saves a checkpoint.

        What an earlier process of the peer could not do is done first: it could not deliver
        reports, or was ended while it evaluated.
        """
        undelivered, self._progress.undelivered = self._progress.undelivered, []
        for entry in undelivered:
            self._sink.emit(record_from_json(entry))
        if self._progress.evaluation_due is not None:
            self._evaluate(self._progress.evaluation_due)
            self._save_if_there_is_room(again=True)
        if self.peer.is_frozen:
            self._frozen_digest = state_digest(self.peer.objective)
        if not self._is_untrained_known():
            self._evaluate(round_number=0)
        self._save_if_there_is_room()

    def begin_step(self) -> None:
        """Does the first half of a step: proposes and, at a step that exchanges, publishes.

        Raises:
            ExchangeError: see `Exchange.publish`.
            TrainingError: see `step.show`.
        """
        step = self.next_step
        # Before `propose`, which moves the running statistics: from here on, a state that is kept
        # must be that from before it.
        opened = _OpenStep(self._ticket(step), self._copy_of_buffers(step))
        self._open.append(opened)
        started_s = time.perf_counter()
        with self._ledger.step(step):
            with part(Part.LOAD):
                images = self._take_images(step)
            opened.proposal = propose(self.peer, images, step)
            self.peer.synchronise()
            computed_s = time.perf_counter()
            if self._run.plan.exchanges_at(step):
                opened.exchange = self._exchange
            if opened.exchange is not None:
                try:
                    shown = show(self.peer, opened.proposal)
                except TrainingError:
                    self.peer.check_updates()  # an earlier step may be the cause
                    raise
                with part(Part.TRANSFER):
                    opened.exchange.publish(opened.ticket, shown)
        self._read_losses()
        opened.compute_s = computed_s - started_s
        opened.exchange_s = time.perf_counter() - computed_s

    def take_other_loss(self, loss: torch.Tensor, traffic: Traffic) -> None:
        """Puts another loss in place of the peer's own at the open step, which does not exchange.

        Args:
            loss: a scalar with its graph.
            traffic: what a site would send and get for it.
        """
        opened, proposal = self._open[-1], self.proposal
        opened.proposal = replace(proposal, output=replace(proposal.output, ssl_loss=loss))
        opened.traffic = traffic

    def prepare_next(self) -> None:
        """Draws the views of the next step, if this one waits for others and goes on after it."""
        newest = self._open[-1]
        if newest.exchange is None or self._run.plan.ends_round(newest.ticket.step):
            return
        started_s = time.perf_counter()
        with self._ledger.step(newest.ticket.step):
            with part(Part.LOAD):
                self._prepared = (self.next_step, self._feed.take(self.next_step))
            self.peer.draw_ahead(self._prepared[1].images_NCHW, self.next_step)
        newest.compute_s += time.perf_counter() - started_s

    def _take_images(self, step: int) -> StepImages:
        prepared, self._prepared = self._prepared, None
        return (
            prepared[1] if prepared is not None and prepared[0] == step else self._feed.take(step)
        )

    def end_step(self) -> None:
        """Does the second half: collects, absorbs, reports; evaluates and saves when it is due.

        With exchange.lookahead that is the second half of the step before, unless the peer stands
        still after this one.

        Raises:
            ExchangeError: see `Exchange.collect`.
            TrainingError: the loss, its gradient or the new weights are not finite.
        """
        assert self._open, "end_step without begin_step"
        newest = self._open[-1]
        stands_still = newest.exchange is None or self._run.plan.ends_round(newest.ticket.step)
        ahead = 0 if stands_still else self._run.config.exchange.lookahead
        while len(self._open) > ahead:
            self._complete(self._open[0])

    def _complete(self, opened: _OpenStep) -> None:
        """Does the second half of the oldest open step."""
        assert opened.proposal is not None, "its forward pass is done"
        started_s = time.perf_counter()
        step, signal = opened.ticket.step, None
        with self._ledger.step(step):
            if opened.exchange is not None:
                with part(Part.TRANSFER):
                    signal = opened.exchange.collect(opened.ticket)
                self._ledger.waited(step, signal.waited_s)
            collected_s = time.perf_counter()
            # Not reset where `absorb` raises: a half step must not become a checkpoint.
            self._is_torn = True
            losses = absorb(self.peer, opened.proposal, signal)
            self._is_torn = False
        self._open.popleft()
        opened.compute_s += time.perf_counter() - collected_s
        opened.exchange_s += collected_s - started_s
        self._count(opened.ticket, signal)
        if self._is_stopped or self._progress.step > step + 1:
            self.undo_steps()  # those that were begun ahead will not be done
        self._unread.append((opened, losses, signal))
        if not self.peer.reads_late or self._run.plan.ends_round(step):
            self._read_losses()
        self._after_step(step)

    def _read_losses(self) -> None:
        """Reports the steps that are done; on a GPU not before it is waited for anyway.

        Raises:
            TrainingError: the numbers of one of them were not finite.
        """
        self.peer.check_updates()
        while self._unread:
            opened, losses, signal = self._unread.popleft()
            report = self._report(opened, losses, signal)
            self._progress.ssl_loss_sum += report.ssl_loss
            self._progress.mutual_kl_sum += report.mutual_kl
            self._sink.emit(report)

    def stop(self) -> None:
        """Ends the run before the next step; at a step that exchanges, a signal does that."""
        self._is_stopped = True

    def undo_steps(self) -> None:
        """Takes back the first halves of exchanges whose second halves will not come.

        The forward pass has moved nothing but the running statistics, which were kept for this.
        """
        if not self._open:
            return
        before = self._open[0].buffers
        assert before is not None, "only the first half of an exchange can be taken back"
        buffers = dict(self.peer.objective.named_buffers())
        for name, value in before.items():
            buffers[name].copy_(value)
        self._open.clear()

    def _copy_of_buffers(self, step: int) -> dict[str, torch.Tensor] | None:
        """Returns what a forward pass may move; None at a step that waits for nobody."""
        if self._exchange is None or not self._run.plan.exchanges_at(step):
            return None
        objective = self.peer.objective
        return {
            name: buffer.detach().clone()
            for name, buffer in objective.named_buffers()
            if name not in objective.moved_by_update
        }

    def save(self, *, is_cut_off: bool = False, again: bool = False) -> None:
        """Writes a checkpoint of the peer's present step, unless there is one.

        Reports are delivered first if the coordinator answers at once, so that a peer that goes on
        from here does not report these steps again. Those that are not delivered go with it.

        Between the halves of a step that one is taken back: the proposal has moved the running
        statistics, and a peer that did the step again would move them twice.

        Args:
            is_cut_off: whether the coordinator is known to be gone, so that nobody is asked.
            again: whether to replace the checkpoint of this step: the peer has evaluated since.

        Raises:
            StorageFull: there is no room for it.
            TrainingError: the peer's weights are not finite; nothing is saved.
        """
        self._read_losses()
        if self._is_torn or any(one.buffers is None for one in self._open):
            logger.warning("peer=%s keeps its last checkpoint: a step is half done", self.peer.id)
            return
        self.undo_steps()
        if again or self._progress.step not in self._folder.checkpoints.steps():
            self.peer.check_state(self._progress.step - 1)
            if not is_cut_off:
                self._sink.flush()
            undelivered = [record_to_json(record) for record in self._sink.undelivered()]
            self._progress.undelivered = undelivered
            self._folder.checkpoints.save(
                self.peer.objective, self.peer.optimizer, self._progress, scaler=self.peer.scaler
            )
        self._saves_again_at_s = None

    def _save_if_there_is_room(self, *, again: bool = False) -> None:
        """Saves; on a full disk training goes on, and the save is tried again after later steps."""
        try:
            self.save(again=again)
        except StorageFull as error:
            if self._saves_again_at_s is None:
                logger.warning(
                    "peer=%s %s. Training goes on; it is saved when there is room again",
                    self.peer.id,
                    error,
                )
            self._saves_again_at_s = time.monotonic() + _SAVE_AGAIN_S

    def finish(self) -> PeerResult | None:
        """Saves, evaluates and exports; returns the result, or None if the run was stopped early.

        Raises:
            EvaluationError: the evaluation changed the backbone.
            StorageFull: there is no room for the last checkpoint or the encoder.
            TrainingError: a frozen peer has changed.
        """
        self._feed.close()
        if self.peer.helpers is not None:
            self.peer.helpers.close()
        self.save()
        self._folder.write_trace(self._ledger)
        result = None if self._is_stopped else self._result()
        if result is not None:
            self._export(result)
            self._sink.emit(result)
        return result

    def _ticket(self, step: int) -> Ticket:
        return Ticket(
            run_id=self._run_id,
            round=self._run.plan.round_of(step),
            step=step,
            batch_digest=self._run.schedule.digest(step),
        )

    def _count(self, ticket: Ticket, signal: TeacherSignal | None) -> None:
        progress = self._progress
        if progress.round != ticket.round:
            progress.round, progress.round_steps, progress.round_exchanges = ticket.round, 0, 0
            progress.ssl_loss_sum = progress.mutual_kl_sum = 0.0
        progress.round_steps += 1
        progress.steps_trained += not self.peer.is_frozen
        progress.step = ticket.step + 1
        if self._is_evaluated_after(ticket.step):
            progress.evaluation_due = ticket.round
        if signal is not None:
            progress.round_exchanges += 1
            progress.step = max(signal.next_step, ticket.step + 1)
            self._is_stopped = signal.stop and progress.step < self._run.plan.total_steps

    def _report(
        self, open_step: _OpenStep, losses: StepLosses, signal: TeacherSignal | None
    ) -> StepReport:
        wait_s = 0.0 if signal is None else min(signal.waited_s, open_step.exchange_s)
        exchange = open_step.exchange
        traffic = open_step.traffic if exchange is None else exchange.last_traffic
        return StepReport(
            peer=self.peer.id,
            round=open_step.ticket.round,
            step=open_step.ticket.step,
            ssl_loss=losses.ssl_loss,
            mutual_kl=losses.mutual_kl,
            num_teachers=0 if signal is None else len(signal.teachers),
            compute_s=open_step.compute_s,
            wait_s=wait_s,
            exchange_s=open_step.exchange_s - wait_s,
            bytes_up=traffic.bytes_up,
            bytes_down=traffic.bytes_down,
        )

    def _is_evaluated_after(self, step: int) -> bool:
        """Whether a round ends here that is evaluated; the last one is by `finish`, with the probe."""
        plan, every = self._run.plan, self._run.config.eval.knn_every_rounds
        is_last = step + 1 == plan.total_steps
        return plan.ends_round(step) and not is_last and plan.round_of(step) % every == 0

    def _after_step(self, step: int) -> None:
        plan, number = self._run.plan, self._progress.evaluation_due
        if number is not None:
            is_long = self._progress.evaluation_s > _LONG_EVALUATION_S
            if is_long:  # whoever is ended meanwhile has lost nothing
                self._save_if_there_is_room()
            self._evaluate(number)
            if is_long:
                self._save_if_there_is_room(again=True)
        every = self._run.config.checkpoint.every_steps
        due = plan.ends_round(step) if every is None else (step + 1) % every == 0
        again_at_s = self._saves_again_at_s
        is_overdue = again_at_s is not None and time.monotonic() >= again_at_s
        # Saving would take back the steps that were begun ahead.
        if (due or is_overdue or self.is_finished) and not self._open:
            self._save_if_there_is_room()

    def _evaluate(self, round_number: int) -> None:
        """Measures the encoder, without the linear probe, notes it, and reports it."""
        started_s = time.perf_counter()
        found = self._measure(linear_probe=False)
        if round_number == 0:
            self._progress.knn_top1_untrained = found.knn_top1
            self._progress.rankme_untrained = found.rankme
        else:
            self._progress.knn_top1 = found.knn_top1
        seconds = time.perf_counter() - started_s
        self._progress.evaluation_due, self._progress.evaluation_s = None, seconds
        self._emit_round(round_number, found, seconds)

    def _is_untrained_known(self) -> bool:
        """Whether the untrained encoder was measured, or can't be any more."""
        measured = (self._progress.knn_top1_untrained, self._progress.rankme_untrained)
        return self._progress.steps_trained > 0 or not all(map(math.isnan, measured))

    def _measure(self, *, linear_probe: bool) -> Measured:
        """Returns what `measure` does; meanwhile says once a second that the peer is alive."""
        self._says_alive_at_s = time.monotonic() + _ALIVE_EVERY_S
        with listening(self._say_alive):
            return measure(self.peer, self._run, linear_probe=linear_probe)

    def _say_alive(self) -> None:
        if time.monotonic() >= self._says_alive_at_s:
            self._sink.alive()
            self._says_alive_at_s = time.monotonic() + _ALIVE_EVERY_S

    def _emit_round(self, round_number: int, found: Measured, seconds: float) -> None:
        logger.info(
            "run=%s round=%d step=%d peer=%s knn_top1=%.4f rankme=%.1f",
            self._run_id,
            round_number,
            self._progress.step,
            self.peer.id,
            found.knn_top1,
            found.rankme,
        )
        self._sink.emit(
            RoundReport(
                peer=self.peer.id,
                round=round_number,
                step=self._progress.step,
                knn_top1=found.knn_top1,
                seconds=seconds,
                feature_std=found.feature_std,
                rankme=found.rankme,
                alignment=found.alignment,
                uniformity=found.uniformity,
            )
        )

    def _result(self) -> PeerResult:
        started_s = time.perf_counter()
        backbone = self.peer.objective.backbone
        found = self._measure(linear_probe=self._run.config.eval.linear)
        self._progress.knn_top1 = found.knn_top1
        self._emit_round(self._run.plan.num_rounds, found, time.perf_counter() - started_s)
        progress, settings = self._progress, self._run.config.peers[self.peer.id]
        num_steps = max(progress.round_steps, 1)
        return PeerResult(
            peer=self.peer.id,
            backbone=str(settings.backbone),
            objective=f"{settings.objective.name}{' (frozen)' if self.peer.is_frozen else ''}",
            parameters=sum(p.numel() for p in backbone.parameters() if p.requires_grad),
            knn_top1=found.knn_top1,
            linear_top1=found.linear_top1,
            knn_top1_untrained=progress.knn_top1_untrained,
            ssl_loss=progress.ssl_loss_sum / num_steps,
            mutual_kl=progress.mutual_kl_sum / max(progress.round_exchanges, 1),
            state_digest=self._state_digest(),
            steps_trained=progress.steps_trained,
            feature_std=found.feature_std,
            rankme=found.rankme,
            alignment=found.alignment,
            uniformity=found.uniformity,
            rankme_untrained=progress.rankme_untrained,
        )

    def _state_digest(self) -> str:
        """Returns the digest of the peer's state; for a frozen peer it is the same as at the start.

        Raises:
            TrainingError: a frozen peer has changed.
        """
        digest = state_digest(self.peer.objective)
        if self._frozen_digest not in (None, digest):
            raise TrainingError(
                f"peer {self.peer.id!r} is frozen, but its state has changed: its objective or "
                "backbone has buffers that move in eval mode. They must move only while "
                "`self.training`"
            )
        return digest

    def _export(self, result: PeerResult) -> None:
        self._folder.export_encoder(
            self.peer.objective.backbone,
            {
                "run_id": self._run_id,
                "peer": self.peer.id,
                "backbone": result.backbone,
                "state_digest": result.state_digest,
                **self._run.provenance(self.peer.id).to_plain(),
            },
        )
