"""Projectors and predictors with the shapes that the papers give them."""

# F = feature dimension of the backbone

from __future__ import annotations

from torch import nn


def check_sizes(**sizes: int) -> None:
    """Checks the sizes of a head, by name.

    Raises:
        ValueError: one is below 1.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, not {size}")


def simclr_projector(feature_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Returns Linear(F, hidden) - BN - ReLU - Linear(hidden, output).

    Source: Chen et al., "A Simple Framework for Contrastive Learning", ICML 2020, section 2.1: an
    MLP with one hidden layer. DoGo's sizes are 512 and 128, no bias before the normalisation.
    """
    return nn.Sequential(
        nn.Linear(feature_dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, output_dim),
    )


def simsiam_projector(
    feature_dim: int, hidden_dim: int, output_dim: int, num_layers: int
) -> nn.Sequential:
    """Returns `num_layers` fully connected layers, each followed by BN, ReLU after all but the last.

    Source: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section 3:
    BN is applied to each fully connected layer, including the output one, which has no ReLU. Three
    layers of 2048, two for CIFAR-10 (appendix D).
    """
    layers: list[nn.Module] = []
    for index in range(num_layers):
        is_last = index == num_layers - 1
        width_in = feature_dim if index == 0 else hidden_dim
        width_out = output_dim if is_last else hidden_dim
        layers += [nn.Linear(width_in, width_out, bias=False), nn.BatchNorm1d(width_out)]
        if not is_last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def simsiam_predictor(dim: int, bottleneck_dim: int) -> nn.Sequential:
    """Returns Linear(d, bottleneck) - BN - ReLU - Linear(bottleneck, d).

    Source: Chen and He 2021, section 3: the hidden layer is a bottleneck (d = 2048, hidden 512),
    the output layer has neither BN nor ReLU.
    """
    return nn.Sequential(
        nn.Linear(dim, bottleneck_dim, bias=False),
        nn.BatchNorm1d(bottleneck_dim),
        nn.ReLU(inplace=True),
        nn.Linear(bottleneck_dim, dim),
    )
