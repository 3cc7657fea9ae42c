"""Does more than one matrix of rows teach more, or the rows that are hard? Trials, beside the product.

    python -m benchmarks.row_trials [--seeds 0,1,2] [--trials features,hard] [key=value]

The product exchanges one kind of rows, and every image counts alike. Here each peer learns from the
rows of the features and from something more: L = L_ssl + w (KL(features) + more), with w and the
temperatures of the peer's settings.

    features    nothing more: the numbers are those of `dogo-fed train exchange.rows=features`
    projector   the rows of the projector as well
    flat        the rows of the features again, at four times their temperature
    centred     the rows of the features without their mean over the batch, at the projector's
                temperature, instead of theirs: what all images have in common is left out
    hard        nothing more, but an image counts by the learner's own divergence at it: its share
                of the mean over the batch, without a graph
    behind      nothing more, but w is times (own loss / mean loss of the others) ** 8, so that who is
                behind listens and who is ahead hardly does; for peers of one objective

All peers are in this process and see what they would see in a run, private images too. Further
arguments are overrides as of `dogo-fed train`; the default is peers=pair.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dogo_fed.config import RunConfig
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from dogo_fed.engine.measure import measure
from dogo_fed.engine.numerics import fix_numerics
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import Proposal, propose
from dogo_fed.objectives.base import Embeddings, ViewPair
from dogo_fed.objectives.mutual import mutual_kl
from dogo_fed.objectives.similarity import log_similarity_distribution, negative_entropy


@dataclass(frozen=True, slots=True)
class Trial:
    """What a peer learns from.

    Attributes:
        features: weight of the features' rows, as a share of the peer's distill weight.
        centred: the same for the rows of the features without their mean, at the projector's
            temperature.
        projector: the same for the projector's rows.
        flat: the same for the rows of the features at `flatter` times their temperature.
        flatter: see `flat`.
        hardness: power of the divergence at an image that is the image's own weight; 0: all alike.
        behind: power of a peer's own loss, as a share of the others', that its weight is times.
    """

    features: float = 1.0
    centred: float = 0.0
    projector: float = 0.0
    flat: float = 0.0
    flatter: float = 4.0
    hardness: float = 0.0
    behind: float = 0.0


TRIALS = {
    "features": Trial(),
    "projector": Trial(projector=1.0),
    "flat": Trial(flat=1.0),
    "centred": Trial(features=0.0, centred=1.0),
    "hard": Trial(hardness=1.0),
    "behind": Trial(behind=8.0),
}


def main(arguments: Sequence[str]) -> None:
    """Trains with each trial and each seed, and prints a line for each peer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--trials", default=",".join(TRIALS), help="of: " + ", ".join(TRIALS))
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args(arguments)
    unknown = set(chosen.trials.split(",")) - set(TRIALS)
    if unknown:
        parser.error(f"no trial is called {', '.join(sorted(unknown))}; there are {list(TRIALS)}")
    from configs.compose import compose_run  # Hydra, which the functions below do without

    fix_numerics(threads=1)
    print("seed  trial      peer        kNN %  linear %")
    for seed in map(int, chosen.seeds.split(",")):
        config = compose_run(
            ["peers=pair", *chosen.overrides, f"seed={seed}", "exchange.rows=features"]
        )
        for name in chosen.trials.split(","):
            run = load_run(config)
            for peer in train(run, TRIALS[name]):
                found = measure(peer, run, linear_probe=True)
                print(
                    f"{seed:4d}  {name:9s}  {peer.id:10s}  "
                    f"{100 * found.knn_top1:5.2f}  {100 * found.linear_top1:8.2f}",
                    flush=True,
                )


def train(run: LoadedRun, trial: Trial) -> list[Peer]:
    """Returns the peers after all steps of the run.

    Raises:
        ValueError: the projector's rows are asked for with private images: what is recorded then
            are the rows of the whole pass.
    """
    if trial.projector and run.private:
        raise ValueError("the trial with the projector's rows takes no private images")
    peers = [run.build_peer(name) for name in run.peer_ids]
    recorders = [record_embeddings(peer) for peer in peers]
    for step in range(run.plan.total_steps):
        proposals = [
            propose(peer, run.images_of(peer.id, step, with_labels=False), step) for peer in peers
        ]
        rows = [
            _rows(run.config, peer, proposal, recorder(), trial)
            for peer, proposal, recorder in zip(peers, proposals, recorders, strict=True)
        ]
        own = [proposal.output.ssl_loss for proposal in proposals]
        losses = [
            loss
            + peers[learner].distill_weight_at(step)
            * how_far_behind(own, learner) ** trial.behind
            * taught(rows, learner, trial.hardness)
            for learner, loss in enumerate(own)
        ]
        for peer, loss in zip(peers, losses, strict=True):
            peer.update(loss, step)
    return peers


def record_embeddings(peer: Peer) -> Callable[[], Embeddings]:
    """Returns a function that gives what the peer's objective embedded last."""
    embed, seen = peer.objective.embed, {}

    def recording(view_a_NCHW: torch.Tensor, view_b_NCHW: torch.Tensor) -> Embeddings:
        seen["last"] = embed(view_a_NCHW, view_b_NCHW)
        return seen["last"]

    peer.objective.embed = recording  # type: ignore[method-assign]
    return lambda: seen["last"]


@dataclass(frozen=True, slots=True)
class _Rows:
    """One log distribution of a peer, N x N, with its graph."""

    share: float
    log_p_NN: torch.Tensor


def _rows(
    config: RunConfig, peer: Peer, proposal: Proposal, seen: Embeddings, trial: Trial
) -> list[_Rows]:
    settings, features = config.peers[peer.id], proposal.output.learn_with
    projector = ViewPair(seen["projector_a"], seen["projector_b"])
    centred = ViewPair(*(z_ND - z_ND.mean(dim=0) for z_ND in (features.a_ND, features.b_ND)))
    divisor = settings.features_temperature
    wanted = (
        (trial.features, features, divisor),
        (trial.centred, centred, settings.kl_temperature),
        (trial.projector, projector, settings.kl_temperature),
        (trial.flat, features, divisor * trial.flatter),
    )
    return [
        _Rows(share, log_similarity_distribution(pair.a_ND, pair.b_ND, temperature))
        for share, pair, temperature in wanted
        if share
    ]


def how_far_behind(own: Sequence[torch.Tensor], learner: int) -> float:
    """Returns a peer's own loss at this step as a share of the mean of the others'."""
    others = [loss.item() for index, loss in enumerate(own) if index != learner]
    return own[learner].item() * len(others) / sum(others)


def taught(rows: Sequence[list[_Rows]], learner: int, hardness: float) -> torch.Tensor:
    """Returns what one peer learns from the others: the sum over the kinds of rows, by shares."""
    teachers = [one for index, one in enumerate(rows) if index != learner]
    total = torch.zeros(())
    for kind, mine in enumerate(rows[learner]):
        for teacher in teachers:
            log_q_NN = teacher[kind].log_p_NN.detach()
            kl = divergence(mine.log_p_NN, log_q_NN, hardness)
            total = total + mine.share * kl / len(teachers)
    return total


def divergence(log_p_NN: torch.Tensor, log_q_NN: torch.Tensor, hardness: float) -> torch.Tensor:
    """Returns KL(theirs || mine) in nats, the mean over rows or a mean that favours hard rows."""
    q_NN = log_q_NN.exp()
    if not hardness:
        return mutual_kl(log_p_NN, q_NN, negative_entropy(q_NN, log_q_NN).item())
    kl_N = (q_NN * (log_q_NN - log_p_NN)).sum(dim=1)
    weight_N = kl_N.detach().clamp(min=0) ** hardness
    return (weight_N * kl_N).sum() / weight_N.sum().clamp(min=1e-12)


if __name__ == "__main__":
    main(sys.argv[1:])
