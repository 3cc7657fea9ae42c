"""One peer's run: its steps, their reports, its checkpoints; the end of its rounds is `round_end`'s.

The same session runs in every host; `engine.drive` drives it.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from dataclasses import dataclass, field, replace

import torch

from dogo_fed.contracts import (
    PeerResult,
    Record,
    SimilarityDistribution,
    StepReport,
    TeacherSignal,
    Ticket,
)
from dogo_fed.engine.feed import Feed
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.round_end import RoundEnd
from dogo_fed.engine.step import Proposal, absorb, propose, show
from dogo_fed.engine.step_losses import StepLosses
from dogo_fed.errors import StorageFull, TrainingError
from dogo_fed.exchange.base import Exchange, Traffic
from dogo_fed.ledger import Ledger, Part, part
from dogo_fed.reporting.sink import Sink
from dogo_fed.reporting.sinks.records import record_from_json, record_to_json
from dogo_fed.storage.checkpoint import Progress
from dogo_fed.storage.peer_folder import PeerFolder

logger = logging.getLogger(__name__)

READ_EVERY_STEPS = 8
"""So many steps at most are done before their losses are read, where that waits for the device."""
READ_WITHIN_S = 1.0
"""Steps that take longer are read sooner: a report is also a sign of life, and brings a stop."""

_SAVE_AGAIN_S = 5.0
_LONG_EVALUATION_S = 5.0


@dataclass(slots=True)
class _OpenStep:
    """A step between its two halves, and then what its report says.

    Attributes:
        buffers: the running statistics and the like from before its forward pass; None if it can't be
            taken back.
        proposal: None while the forward pass goes on, and when the step is done.
        exchange: None if the step does not exchange.
        published_at_s: when its distribution had been handed over.
        num_teachers: of the answer.
        traffic: of its exchange; of a step without one see `take_other_loss`.
        compute_s, wait_s, exchange_s: see `StepReport`.
    """

    ticket: Ticket
    buffers: dict[str, torch.Tensor] | None
    proposal: Proposal | None = None
    exchange: Exchange | None = None
    published_at_s: float = 0.0
    num_teachers: int = 0
    traffic: Traffic = field(default_factory=Traffic)
    compute_s: float = 0.0
    wait_s: float = 0.0
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
        feed: Feed,
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
            feed: the images of its passes.
        """
        self.peer = peer
        self._run = run
        self._run_id = run_id
        self._exchange = exchange
        self._sink = sink
        self._folder = folder
        self._progress = progress
        self._round_end = RoundEnd(peer, run, run_id, sink=sink, folder=folder, progress=progress)
        self._open: deque[_OpenStep] = deque()  # more than one only with exchange.lookahead
        self._unread: list[tuple[_OpenStep, StepLosses]] = []
        self._untold: deque[StepReport] = deque()
        self._reads_at_s = math.inf
        self._is_torn = False
        self._is_stopped = False
        self._saves_again_at_s: float | None = None
        self._ledger = Ledger(synchronise=peer.synchronise)
        self._feed = feed

    @property
    def is_finished(self) -> bool:
        """Whether all steps are done, or the run was stopped."""
        return self._is_stopped or self._progress.step >= self._run.plan.total_steps

    @property
    def is_stopped(self) -> bool:
        """Whether the run ends early for this peer."""
        return self._is_stopped

    @property
    def next_step(self) -> int:
        """The step that the peer begins next."""
        return self._progress.step + len(self._open)

    @property
    def proposal(self) -> Proposal:
        """What the peer has computed by itself at the step that is open."""
        assert self._open and self._open[-1].proposal is not None, "between the halves of a step"
        return self._open[-1].proposal

    @property
    def can_stop_here(self) -> bool:
        """Whether the peer may stop before its next step: nobody waits for it there.

        An exchange that is still open (exchange.lookahead) is done first, since others may have the
        answer to it.
        """
        is_open = any(one.exchange is not None for one in self._open)
        return self._exchange is None or not (
            is_open or self._run.plan.exchanges_at(self.next_step)
        )

    def start(self) -> None:
        """Evaluates the untrained encoder, unless the run goes on, and saves a checkpoint.

        What an earlier process of the peer could not do is done first: it could not deliver
        reports, or was ended while it evaluated.
        """
        undelivered, self._progress.undelivered = self._progress.undelivered, []
        for entry in undelivered:
            self._sink.emit(record_from_json(entry))
        due = self._progress.evaluation_due
        if due is not None and self._round_end.evaluate(due):
            self._save_if_there_is_room(again=True)
        self._round_end.remember_frozen()
        if not self._round_end.is_untrained_known and not self._round_end.evaluate(round_number=0):
            self._is_stopped = True  # after a first step it could not be measured any more
        self._save_if_there_is_room()

    def begin_step(self) -> None:
        """Does the first half of a step: proposes and, at a step that exchanges, publishes.

        Raises:
            ExchangeError: see `Exchange.publish`.
            TrainingError: see `step.show`; or a step before this one has gone wrong.
        """
        step = self.next_step
        # Before `propose`, which moves the running statistics: from here on, a state that is kept
        # must be that from before it.
        opened = _OpenStep(self._ticket(step), self._copy_of_buffers(step))
        self._open.append(opened)
        if self._run.plan.exchanges_at(step):
            opened.exchange = self._exchange
        started_s = time.perf_counter()
        with self._ledger.step(step):
            with part(Part.LOAD):
                images = self._feed.take(step)
            opened.proposal = propose(self.peer, images, step)
            if opened.exchange is None:
                opened.compute_s = time.perf_counter() - started_s
                return
            shown = self._show(opened.proposal)
            shown_at_s = time.perf_counter()
            with part(Part.TRANSFER):
                opened.exchange.publish(opened.ticket, shown)
            opened.published_at_s = time.perf_counter()
        opened.compute_s = shown_at_s - started_s
        opened.exchange_s = opened.published_at_s - shown_at_s
        self._tell_losses()  # now the device is done with the steps before

    def _show(self, proposal: Proposal) -> SimilarityDistribution:
        """Returns what leaves the peer; where that has gone wrong, an earlier step may be the cause."""
        try:
            return show(self.peer, proposal)
        except TrainingError:
            self.peer.check_updates()
            raise

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
        """Draws the views of the next step, if this one waits for others and goes on after it.

        At a step that waits for nobody that is done if the images are there: views on a GPU are
        then drawn while it has the forward pass to do.
        """
        newest = self._open[-1]
        has_time = newest.exchange is not None or self._feed.is_ready(self.next_step)
        if not has_time or self._run.plan.ends_round(newest.ticket.step):
            return
        started_s = time.perf_counter()
        with self._ledger.step(newest.ticket.step):
            with part(Part.LOAD):
                images = self._feed.take(self.next_step)
            self.peer.draw_ahead(images.images_NCHW, self.next_step)
        newest.compute_s += time.perf_counter() - started_s

    def end_step(self) -> None:
        """Does the second half: collects, absorbs, reports; evaluates and saves when it is due.

        With exchange.lookahead that is the second half of the step before, unless the peer stands
        still after this one. A step that does not exchange then goes back through its graph first: so
        an answer is on its way for a whole step, and not for a forward pass.

        Raises:
            ExchangeError: see `Exchange.collect`.
            TrainingError: the loss, its gradient or the new weights are not finite.
        """
        assert self._open, "end_step without begin_step"
        newest = self._open[-1]
        stands_still = newest.exchange is None or self._run.plan.ends_round(newest.ticket.step)
        ahead = 0 if stands_still else self._run.config.exchange.lookahead
        if newest.exchange is None and len(self._open) > 1 and self.peer.can_go_back_ahead:
            self._go_back_ahead(newest)
        while len(self._open) > ahead:
            self._after_step(self._complete(self._open[0]))

    def _go_back_ahead(self, opened: _OpenStep) -> None:
        """Does the backward pass of a step without an exchange, whose update others come before."""
        proposal = opened.proposal
        assert proposal is not None and proposal.weights is not None, "with exchange.lookahead"
        started_s = time.perf_counter()
        with self._ledger.step(opened.ticket.step):
            self.peer.go_back_ahead(proposal.output.ssl_loss, proposal.weights)
        opened.proposal = replace(proposal, has_gradient=True)
        opened.compute_s += time.perf_counter() - started_s

    def update(self) -> None:
        """Does the second half of a step without an exchange; `conclude` does what follows it.

        Raises:
            TrainingError: see `end_step`.
        """
        self._complete(self._open[0])

    def conclude(self) -> None:
        """Evaluates and saves after `update`, when it is due."""
        self._after_step(self._progress.step - 1)

    def _complete(self, opened: _OpenStep) -> int:
        """Does the second half of the oldest open step; returns its number."""
        assert opened.proposal is not None, "its forward pass is done"
        step, signal = opened.ticket.step, None
        with self._ledger.step(step):
            if opened.exchange is not None:
                signal = self._collect(opened, opened.exchange)
            started_s = time.perf_counter()
            # Not reset where `absorb` raises: a half step must not become a checkpoint.
            self._is_torn = True
            losses = absorb(self.peer, opened.proposal, signal)
            self._is_torn = False
        self._open.popleft()
        opened.proposal = None  # its views and embeddings do not wait until the losses are read
        opened.compute_s += time.perf_counter() - started_s
        if self._unread and self._progress.round != opened.ticket.round:
            self._read_losses()  # of the round before, whose end this peer has missed
        self._count(opened.ticket, signal)
        if self._is_stopped or self._progress.step > step + 1:
            self.undo_steps()  # those that were begun ahead will not be done
        self._keep_unread(opened, losses)
        if self._is_time_to_read(step):
            self._tell_losses()
        return step

    def _collect(self, opened: _OpenStep, exchange: Exchange) -> TeacherSignal:
        """Returns the answer to a step, and notes what it has cost."""
        started_s = time.perf_counter()
        with part(Part.TRANSFER):
            signal = exchange.collect(opened.ticket)
        collect_s = time.perf_counter() - started_s
        # The answer has been held back since the distribution arrived. At first the peer computed.
        held_s = signal.waited_s - (started_s - opened.published_at_s)
        opened.wait_s = min(max(held_s, 0.0), collect_s)
        opened.exchange_s += collect_s - opened.wait_s
        opened.traffic, opened.num_teachers = exchange.last_traffic, len(signal.teachers)
        self._ledger.waited(opened.ticket.step, opened.wait_s)
        return signal

    def _keep_unread(self, opened: _OpenStep, losses: StepLosses) -> None:
        if not self._unread:
            self._reads_at_s = time.monotonic() + READ_WITHIN_S
        self._unread.append((opened, losses))

    def _is_time_to_read(self, step: int) -> bool:
        """Whether losses are read after this step, and not only where the device is waited for anyway.

        That is where a distribution is published, and where the peer is saved.
        """
        if not self.peer.reads_late or self._run.plan.ends_round(step):
            return True
        is_late = time.monotonic() >= self._reads_at_s
        return is_late or len(self._unread) >= READ_EVERY_STEPS

    def _tell_losses(self) -> None:
        """Reports the steps that are done.

        Raises:
            ExchangeError: they can't be delivered; none is lost.
            TrainingError: see `_read_losses`.
        """
        self._read_losses()
        while self._untold:
            self._sink.emit(self._untold.popleft())

    def _read_losses(self) -> None:
        """Reads the losses of the steps that are done, and makes their reports.

        The seconds that the device needs for them count as their computing, each the same share.

        Raises:
            TrainingError: the numbers of one of them were not finite.
        """
        started_s = time.perf_counter()
        numbers = self.peer.check_updates(
            *[scalar for _, two in self._unread for scalar in two.scalars]
        )
        share_s = (time.perf_counter() - started_s) / max(len(self._unread), 1)
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        for (done, _), (ssl_loss, mutual_kl) in zip(self._unread, pairs, strict=True):
            done.compute_s += share_s
            self._progress.ssl_loss_sum += ssl_loss
            self._progress.mutual_kl_sum += mutual_kl
            self._untold.append(self._report(done, ssl_loss, mutual_kl))
        self._unread.clear()

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
        """Returns what a forward pass may move; None at a step that waits for nobody.

        With exchange.lookahead a step may wait for the one before it.
        """
        if self._exchange is None or not (self._run.plan.exchanges_at(step) or self._open):
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
            ExchangeError: the coordinator has just gone; the peer can be saved as one that is cut off.
            StorageFull: there is no room for it.
            TrainingError: the peer's weights are not finite; nothing is saved.
        """
        if is_cut_off:
            self._read_losses()
        else:
            self._tell_losses()
        if self._is_torn or (self._open and self._open[0].buffers is None):
            logger.warning("peer=%s keeps its last checkpoint: a step is half done", self.peer.id)
            return
        self.undo_steps()
        if again or self._progress.step not in self._folder.checkpoints.steps():
            self.peer.check_state(self._progress.step - 1)
            if not is_cut_off:
                self._sink.flush()
            undelivered: list[Record] = [*self._sink.undelivered(), *self._untold]
            self._progress.undelivered = [record_to_json(record) for record in undelivered]
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
        self.close()
        self.save()
        self._folder.write_trace(self._ledger)
        result = None if self._is_stopped else self._round_end.result()
        self._is_stopped = result is None
        if result is not None:
            self._round_end.export(result)
            self._sink.emit(result)
        return result

    def close(self) -> None:
        """Lets go of what reads and computes for it in threads and processes; it trains no more."""
        self._feed.close()
        if self.peer.helpers is not None:
            self.peer.helpers.close()

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

    def _report(self, done: _OpenStep, ssl_loss: float, mutual_kl: float) -> StepReport:
        return StepReport(
            peer=self.peer.id,
            round=done.ticket.round,
            step=done.ticket.step,
            ssl_loss=ssl_loss,
            mutual_kl=mutual_kl,
            num_teachers=done.num_teachers,
            compute_s=done.compute_s,
            wait_s=done.wait_s,
            exchange_s=done.exchange_s,
            bytes_up=done.traffic.bytes_up,
            bytes_down=done.traffic.bytes_down,
        )

    def _is_evaluated_after(self, step: int) -> bool:
        """Whether a round ends here that is evaluated; the last one is by `finish`, with the probe."""
        plan, every = self._run.plan, self._run.config.eval.knn_every_rounds
        is_last = step + 1 == plan.total_steps
        return plan.ends_round(step) and not is_last and plan.round_of(step) % every == 0

    def _after_step(self, step: int) -> None:
        plan, number = self._run.plan, self._progress.evaluation_due
        if number is not None and not self._round_end.was_left_off:
            is_long = self._progress.evaluation_s > _LONG_EVALUATION_S
            if is_long:  # whoever is ended meanwhile has lost nothing
                self._save_if_there_is_room()
            if self._round_end.evaluate(number) and is_long:
                self._save_if_there_is_room(again=True)
        every = self._run.config.checkpoint.every_steps
        due = plan.ends_round(step) if every is None else (step + 1) % every == 0
        again_at_s = self._saves_again_at_s
        is_overdue = again_at_s is not None and time.monotonic() >= again_at_s
        # Saving would take back the steps that were begun ahead.
        if (due or is_overdue or self.is_finished) and not self._open:
            self._save_if_there_is_room()
