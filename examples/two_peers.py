"""DoGo on made-up images, in one file: two peers and the step, without configuration or run folder.

    python examples/two_peers.py

This is for reading. Real runs use `dogo-fed train` or `dogo_fed.train`, which add evaluation,
checkpoints and reports around the same three functions: `propose`, `show` and `absorb`.
"""

from __future__ import annotations

import torch

from dogo_fed import ComponentConfig, PeerConfig
from dogo_fed.contracts import PeerId, SimilarityDistribution, TeacherSignal
from dogo_fed.data.datasets import build_dataset
from dogo_fed.data.roles import StepImages
from dogo_fed.data.schedule import Schedule
from dogo_fed.engine.build import build_peer
from dogo_fed.engine.numerics import fix_numerics
from dogo_fed.engine.step import absorb, propose, show

STEPS = 30
SEED = 0


def peer_config(backbone: str, objective: str) -> PeerConfig:
    """Returns a peer's settings; everything here is the peer's own choice."""
    return PeerConfig(
        backbone=ComponentConfig(name=backbone, options={"width": 8}),
        objective=ComponentConfig(name=objective),
        augmentation=ComponentConfig(name="simclr"),
        optimizer=ComponentConfig(name="adam", options={"lr": 1e-3}),
    )


def main() -> None:
    """Trains a SimCLR peer and a SimSiam peer that teach each other."""
    fix_numerics(threads=1)
    dataset = build_dataset("synthetic", {"size": 256})
    schedule = Schedule(seed=SEED, num_samples=len(dataset.train), batch_size=32)
    first, second = (
        build_peer(
            PeerId(name), settings, dataset=dataset, run_seed=SEED, device=torch.device("cpu")
        )
        for name, settings in {
            "contrastive": peer_config("small_cnn", "simclr"),
            "siamese": peer_config("resnet18", "simsiam"),
        }.items()
    )
    for step in range(STEPS):
        images = dataset.train.images(schedule.sample_ids(step))

        # 1. Each peer draws its own two views of the same images and computes their embeddings.
        mine, yours = (
            propose(first, StepImages(images), step),
            propose(second, StepImages(images), step),
        )

        # 2. Each shows one row-stochastic matrix: how similar the images are to it. Nothing else
        # leaves. Here the rows are the projector's. With rows=Rows.FEATURES in `build_peer` they
        # are those of the encoder itself, and tell that much more about it.
        my_p, your_p = show(first, mine), show(second, yours)

        # 3. Each learns its own objective, and to agree with the other. Both use matrices from
        #    before the update.
        losses = (
            absorb(first, mine, as_signal(second.id, your_p)),
            absorb(second, yours, as_signal(first.id, my_p)),
        )
        if step % 10 == 0 or step == STEPS - 1:
            print(
                f"step {step:2d}  "
                + "  ".join(
                    f"{peer.id}: ssl {loss.ssl_loss:.3f} mutual KL {loss.mutual_kl:.3f}"
                    for peer, loss in zip((first, second), losses, strict=True)
                )
            )


def as_signal(teacher: PeerId, distribution: SimilarityDistribution) -> TeacherSignal:
    """Returns the signal that a coordinator would send to the only other peer."""
    return TeacherSignal(
        mean_NN=distribution.p_NN,
        negative_entropy=distribution.negative_entropy,
        teachers=(teacher,),
        next_step=0,
    )


if __name__ == "__main__":
    main()
