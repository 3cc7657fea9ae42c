"""How good a peer's frozen features are: what a run reports of it at the end of its rounds."""

from __future__ import annotations

from dogo_fed.engine.loaded_run import LoadedRun
from dogo_fed.engine.peer import Peer
from dogo_fed.evaluation import frozen
from dogo_fed.evaluation.protocols.knn import knn
from dogo_fed.evaluation.protocols.linear import linear
from dogo_fed.evaluation.subject import Encoder, Inputs, Subject


def measure(peer: Peer, run: LoadedRun, *, linear_probe: bool) -> tuple[float, float]:
    """Returns the accuracies of kNN and linear probe, 0 to 1; NaN for a probe not asked for.

    Args:
        peer: whose backbone is measured.
        run: its settings and data.
        linear_probe: whether the probe is asked for.

    Raises:
        EvaluationError: the evaluation changed the backbone.
    """
    settings, data = run.config.eval, run.data_of(peer.id)
    backbone = peer.objective.backbone
    encoder = Encoder(
        name=peer.id,
        backbone=backbone,
        inputs=Inputs.of(data.own),
        linear_stream=(peer.id, "linear probe"),
        device=peer.device,
        batch_size=settings.batch_size,
    )
    subject = Subject(encoder, data.evaluated, run.config.seed)
    with frozen(backbone):
        (knn_score,) = knn(subject, k=settings.knn_k, temperature=settings.knn_temperature)
        if not linear_probe:
            return knn_score.value, float("nan")
        (linear_score,) = linear(subject, epochs=settings.linear_epochs)
    return knn_score.value, linear_score.value
