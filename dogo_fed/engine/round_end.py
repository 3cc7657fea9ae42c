"""What a peer does at the end of its rounds: it is measured, that is reported, and at last exported."""

from __future__ import annotations

import logging
import math
import time

from dogo_fed.contracts import PeerResult, RoundReport
from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.measure import Measured, measure
from dogo_fed.engine.peer import Peer
from dogo_fed.errors import TrainingError
from dogo_fed.evaluation import state_digest
from dogo_fed.evaluation.pulse import listening
from dogo_fed.plain import to_plain
from dogo_fed.reporting.sink import Sink
from dogo_fed.storage.checkpoint import Progress
from dogo_fed.storage.peer_folder import PeerFolder

logger = logging.getLogger(__name__)

_ALIVE_EVERY_S = 1.0


class _LeftOff(Exception):
    """An early end is wanted, so the evaluation is left off."""


class RoundEnd:
    """The evaluations of one peer, and what it leaves.

    An evaluation may take hours. If an early end is wanted meanwhile, it is left off. It is still due
    when the run goes on.

    Attributes:
        was_left_off: whether that has happened.
    """

    def __init__(
        self,
        peer: Peer,
        run: LoadedRun,
        run_id: str,
        *,
        sink: Sink,
        folder: PeerFolder,
        progress: Progress,
    ) -> None:
        """Measures nothing yet.

        Args:
            peer: the learner.
            run: its settings and data.
            run_id: the run's name.
            sink: gets a report for every evaluation.
            folder: takes the exported encoder.
            progress: how far the peer is; what is measured is noted there.
        """
        self._peer = peer
        self._run = run
        self._run_id = run_id
        self._sink = sink
        self._folder = folder
        self._progress = progress
        self._frozen_digest: str | None = None
        self._says_alive_at_s = math.inf
        self.was_left_off = False

    @property
    def is_untrained_known(self) -> bool:
        """Whether the untrained encoder was measured, or can't be any more."""
        measured = (self._progress.knn_top1_untrained, self._progress.rankme_untrained)
        return self._progress.steps_trained > 0 or not all(map(math.isnan, measured))

    def remember_frozen(self) -> None:
        """Notes the state of a frozen peer, which must be the same at the end."""
        if self._peer.is_frozen:
            self._frozen_digest = state_digest(self._peer.objective)

    def evaluate(self, round_number: int) -> bool:
        """Measures the encoder, without the linear probe, notes it, and reports it.

        Returns:
            Whether it did, and was not left off.
        """
        started_s = time.perf_counter()
        found = self._measure(linear_probe=False)
        if found is None:
            return False
        if round_number == 0:
            self._progress.knn_top1_untrained = found.knn_top1
            self._progress.rankme_untrained = found.rankme
        else:
            self._progress.knn_top1 = found.knn_top1
        seconds = time.perf_counter() - started_s
        self._progress.evaluation_due, self._progress.evaluation_s = None, seconds
        self._emit_round(round_number, found, seconds)
        return True

    def result(self) -> PeerResult | None:
        """Measures the encoder at the end of the run, reports it, and returns the peer's result.

        Returns:
            The result; None if the evaluation was left off.

        Raises:
            EvaluationError: the evaluation changed the backbone.
            TrainingError: a frozen peer has changed.
        """
        started_s = time.perf_counter()
        backbone = self._peer.objective.backbone
        found = self._measure(linear_probe=self._run.config.eval.linear)
        if found is None:
            return None
        self._progress.knn_top1 = found.knn_top1
        self._emit_round(self._run.plan.num_rounds, found, time.perf_counter() - started_s)
        progress, settings = self._progress, self._run.config.peers[self._peer.id]
        num_steps = max(progress.round_steps, 1)
        return PeerResult(
            peer=self._peer.id,
            backbone=str(settings.backbone),
            objective=f"{settings.objective.name}{' (frozen)' if self._peer.is_frozen else ''}",
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

    def export(self, result: PeerResult) -> None:
        """Writes the encoder, with where its numbers come from.

        Raises:
            StorageFull: there is no room for it.
        """
        self._folder.export_encoder(
            self._peer.objective.backbone,
            {
                "run_id": self._run_id,
                "peer": self._peer.id,
                "backbone": result.backbone,
                "network": self._network(),
                "state_digest": result.state_digest,
                "steps_trained": result.steps_trained,
                "seen": self._run.seen_by(self._peer.id),
                **self._run.provenance(self._peer.id).to_plain(),
            },
        )

    def _network(self) -> dict[str, object]:
        """Returns the name and the options by which the backbone is built again."""
        settings = self._run.config.peers[self._peer.id].backbone
        return {"name": settings.name, "options": to_plain(settings.options)}

    def _measure(self, *, linear_probe: bool) -> Measured | None:
        """Returns what `measure` does; meanwhile says once a second that the peer is alive.

        Where an early end is wanted, it returns None instead.
        """
        self._says_alive_at_s = time.monotonic() + _ALIVE_EVERY_S
        try:
            with listening(self._say_alive):
                return measure(self._peer, self._run, linear_probe=linear_probe)
        except _LeftOff:
            self.was_left_off = True
            logger.warning(
                "peer=%s leaves off its evaluation, since the run is to stop; it is made when the run "
                "goes on",
                self._peer.id,
            )
            return None

    def _say_alive(self) -> None:
        """Says so at most once a second.

        Raises:
            _LeftOff: whoever is told wants an early end.
        """
        if time.monotonic() >= self._says_alive_at_s:
            self._sink.alive()
            self._says_alive_at_s = time.monotonic() + _ALIVE_EVERY_S
            if self._sink.stop_requested():
                raise _LeftOff

    def _emit_round(self, round_number: int, found: Measured, seconds: float) -> None:
        logger.info(
            "run=%s round=%d step=%d peer=%s knn_top1=%.4f rankme=%.1f",
            self._run_id,
            round_number,
            self._progress.step,
            self._peer.id,
            found.knn_top1,
            found.rankme,
        )
        self._sink.emit(
            RoundReport(
                peer=self._peer.id,
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

    def _state_digest(self) -> str:
        """Returns the digest of the peer's state; for a frozen peer it is the same as at the start.

        Raises:
            TrainingError: a frozen peer has changed.
        """
        digest = state_digest(self._peer.objective)
        if self._frozen_digest not in (None, digest):
            raise TrainingError(
                f"peer {self._peer.id!r} is frozen, but its state has changed: its objective or "
                "backbone has buffers that move in eval mode. They must move only while "
                "`self.training`"
            )
        return digest
