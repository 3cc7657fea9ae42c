"""The same run from Python, with a backbone and a data set of your own.

    python examples/own_model.py [run folder]

The backbone is any `nn.Module` that maps N x C x H x W images to N x F features. The data are
arrays; for a torch-style data set use `dogo_fed.dataset_from_map_style`. On the command line, both
are named by their import paths. In the folder of this file:

    dogo-fed train peers.wide.backbone=own_model:MyNet data=own_model:my_data
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import nn

import dogo_fed
from dogo_fed import ComponentConfig, DataConfig, PeerConfig, RunConfig
from dogo_fed.config import EvalConfig


class MyNet(nn.Module):
    """A backbone of my own; the library asks only for the right shapes.

    A command line that names it says for which images it is made.
    """

    def __init__(self, image_size: int = 16, in_channels: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns N x 32 features."""
        return self.layers(images).mean(dim=(2, 3))


def my_data() -> dogo_fed.DataSet:
    """Returns blobs of three colours, with labels that only the evaluation uses."""
    draw = np.random.default_rng(0)

    def images(number: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(number) % 3
        pixels = draw.integers(0, 120, (number, 3, 16, 16))
        pixels[np.arange(number), labels] += 100
        return pixels.astype(np.uint8), labels

    train, train_labels = images(300)
    test, test_labels = images(90)
    return dogo_fed.dataset_from_arrays("blobs", train, train_labels, test, test_labels, 3)


def peer(backbone: str, **options: object) -> PeerConfig:
    """Returns a peer's settings."""
    return PeerConfig(
        backbone=ComponentConfig(name=backbone, options=options),
        objective=ComponentConfig(name="simclr", options={"output_dim": 32}),
        augmentation=ComponentConfig(name="simclr"),
        optimizer=ComponentConfig(name="adam", options={"lr": 1e-3}),
    )


def main() -> None:
    """Trains my network together with one of the library's."""
    config = RunConfig(
        peers={"mine": peer("my net"), "theirs": peer("small_cnn", width=8)},
        data=DataConfig(name="blobs"),
        batch_size=50,
        steps=12,
        eval=EvalConfig(knn_k=10, linear_epochs=5),
        run_dir=sys.argv[1] if len(sys.argv) > 1 else None,
    )
    summary = dogo_fed.train(config, dataset=my_data(), backbones={"mine": MyNet()})
    for name, result in summary["peers"].items():
        print(f"{name}: kNN {result['knn_top1_untrained']:.2f} -> {result['knn_top1']:.2f}")


if __name__ == "__main__":
    main()
