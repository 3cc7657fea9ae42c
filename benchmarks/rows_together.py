"""Do the projector's rows add anything beside those of the features? A trial, with two matrices a step.

    python -m benchmarks.rows_together [--seeds 0,1,2] [--projector 0,1] [key=value]

The product exchanges one kind of rows. Here each peer learns from two: L = L_ssl + w (KL(features) +
s KL(projector)), with w and the temperatures of the peer's settings, and s from --projector. All peers
are in this process and see what they would see in a run. Further arguments are overrides as of
`dogo-fed train`; the default is peers=pair. With s = 0 the numbers are those of
`dogo-fed train exchange.rows=features`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch

from dogo_fed.config import RunConfig
from dogo_fed.engine.loaded_run import LoadedRun, load_run
from dogo_fed.engine.measure import measure
from dogo_fed.engine.numerics import fix_numerics
from dogo_fed.engine.peer import Peer
from dogo_fed.engine.step import propose
from dogo_fed.objectives.base import Embeddings
from dogo_fed.objectives.mutual import mutual_kl
from dogo_fed.objectives.similarity import log_similarity_distribution, negative_entropy

Temperatures: TypeAlias = dict[str, float]
"""By head: "features" and "projector"."""


def main(arguments: Sequence[str]) -> None:
    """Trains with each weight of the projector's rows and each seed, and prints a line for each peer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--projector",
        default="0,1",
        help="the projector's rows, as a share of the features' weight",
    )
    parser.add_argument("overrides", nargs="*")
    chosen = parser.parse_args(arguments)
    from configs.compose import compose_run  # Hydra, which the functions below do without

    fix_numerics(threads=1)
    print("seed  projector  peer        kNN %  linear %")
    for seed in map(int, chosen.seeds.split(",")):
        for share in map(float, chosen.projector.split(",")):
            config = compose_run(
                ["peers=pair", *chosen.overrides, f"seed={seed}", "exchange.rows=features"]
            )
            run = load_run(config)
            for peer in train(run, {"features": 1.0, "projector": share}):
                found = measure(peer, run, linear_probe=True)
                print(
                    f"{seed:4d}  {share:9g}  {peer.id:10s}  "
                    f"{100 * found.knn_top1:5.2f}  {100 * found.linear_top1:8.2f}",
                    flush=True,
                )


def train(run: LoadedRun, shares: dict[str, float]) -> list[Peer]:
    """Returns the peers after all steps of the run.

    Args:
        run: the run.
        shares: of a peer's distill weight, for each kind of rows.
    """
    peers = [run.build_peer(name) for name in run.peer_ids]
    recorders = [record_embeddings(peer) for peer in peers]
    for step in range(run.plan.total_steps):
        proposals = [
            propose(peer, run.images_of(peer.id, step, with_labels=False), step) for peer in peers
        ]
        log_p = [
            similarities(recorder(), temperatures(run.config, peer))
            for peer, recorder in zip(peers, recorders, strict=True)
        ]
        losses = [
            proposal.output.ssl_loss
            + peers[learner].distill_weight_at(step) * taught(log_p, learner, shares)
            for learner, proposal in enumerate(proposals)
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


def temperatures(config: RunConfig, peer: Peer) -> Temperatures:
    """Returns the temperatures of the peer's two kinds of rows."""
    settings = config.peers[peer.id]
    return {"features": settings.features_temperature, "projector": settings.kl_temperature}


def similarities(seen: Embeddings, temperature: Temperatures) -> dict[str, torch.Tensor]:
    """Returns the log distribution, N x N, for each kind of rows, with its graph."""
    return {
        head: log_similarity_distribution(seen[f"{head}_a"], seen[f"{head}_b"], temperature[head])
        for head in temperature
    }


def taught(
    log_p: Sequence[dict[str, torch.Tensor]], learner: int, shares: dict[str, float]
) -> torch.Tensor:
    """Returns the mutual KL of one peer, the sum over the kinds of rows by their shares."""
    teachers = [one for index, one in enumerate(log_p) if index != learner]
    total = torch.zeros(())
    for head, share in shares.items():
        for teacher in teachers:
            log_q_NN = teacher[head].detach()
            q_NN = log_q_NN.exp()
            kl = mutual_kl(log_p[learner][head], q_NN, negative_entropy(q_NN, log_q_NN).item())
            total = total + share * kl / len(teachers)
    return total


if __name__ == "__main__":
    main(sys.argv[1:])
