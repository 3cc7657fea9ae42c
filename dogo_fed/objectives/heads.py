"""Projectors and predictors with the shapes that the papers give them."""

# F = feature dimension of the backbone

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def _perceptron(
    widths: Sequence[int], *, output_norm: bool = False, output_bias: bool = True
) -> nn.Sequential:
    """Returns fully connected layers from width to width, with BN and ReLU after all but the last.

    A layer before BN has no bias, since BN would subtract it again.

    Args:
        widths: widths of the input, of every hidden layer, and of the output.
        output_norm: whether BN follows the last layer too.
        output_bias: whether the last layer has a bias if no BN follows it.
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths[:-1]):
        layers += [
            nn.Linear(width_in, width_out, bias=False),
            nn.BatchNorm1d(width_out),
            nn.ReLU(inplace=True),
        ]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=output_bias and not output_norm))
    if output_norm:
        layers.append(nn.BatchNorm1d(widths[-1]))
    return nn.Sequential(*layers)


def simclr_projector(feature_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Returns Linear(F, hidden) - BN - ReLU - Linear(hidden, output).

    Source: Chen et al., "A Simple Framework for Contrastive Learning", ICML 2020, section 2.1: an
    MLP with one hidden layer. DoGo uses 512 and 128, and no bias before the normalisation.
    """
    return _perceptron([feature_dim, hidden_dim, output_dim])


def simsiam_projector(
    feature_dim: int, hidden_dim: int, output_dim: int, num_layers: int
) -> nn.Sequential:
    """Returns `num_layers` linear layers, with BN after each and ReLU after all but the last.

    Source: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021, section 3:
    three layers of 2048, BN on each of them, no ReLU on the output. Two layers for CIFAR-10
    (appendix D).
    """
    return _perceptron(
        [feature_dim, *[hidden_dim] * (num_layers - 1), output_dim], output_norm=True
    )


def simsiam_predictor(dim: int, bottleneck_dim: int) -> nn.Sequential:
    """Returns Linear(d, bottleneck) - BN - ReLU - Linear(bottleneck, d).

    Source: Chen and He 2021, section 3: the hidden layer is a bottleneck (d = 2048, hidden 512),
    the output layer has neither BN nor ReLU.
    """
    return _perceptron([dim, bottleneck_dim, dim])


def byol_head(input_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Returns Linear(input, hidden) - BN - ReLU - Linear(hidden, output).

    It serves as projector and as predictor.

    Source: Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, section 3.3, architecture:
    hidden 4096, output 256, no BN on the output.
    """
    return _perceptron([input_dim, hidden_dim, output_dim])


def barlow_twins_projector(feature_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Returns three linear layers, with BN and ReLU after the first two.

    Source: Zbontar et al., "Barlow Twins", ICML 2021, implementation details: 8192 units each. No
    layer has a bias: the loss subtracts the mean of every output, and a common offset would make
    all cosines more alike.
    """
    return _perceptron([feature_dim, hidden_dim, hidden_dim, output_dim], output_bias=False)


def vicreg_expander(feature_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Returns three linear layers, with BN and ReLU after the first two.

    VICReg calls its projector the expander.

    Source: Bardes et al., "VICReg", ICLR 2022, implementation details: 8192 units each. No layer
    has a bias, for the same reason as in `barlow_twins_projector`.
    """
    return _perceptron([feature_dim, hidden_dim, hidden_dim, output_dim], output_bias=False)


def moco_v2_projector(feature_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Returns Linear(F, hidden) - ReLU - Linear(hidden, output), without normalisation.

    Source: Chen et al., "Improved Baselines with Momentum Contrastive Learning", 2020, section 3:
    hidden 2048; output 128 as in He et al., CVPR 2020, section 3.3.
    """
    return nn.Sequential(
        nn.Linear(feature_dim, hidden_dim),
        nn.ReLU(inplace=True),
        nn.Linear(hidden_dim, output_dim),
    )


def moco_v3_projector(feature_dim: int, hidden_dim: int, output_dim: int) -> nn.Sequential:
    """Returns three fully connected layers with BN after each and ReLU after all but the last.

    Source: Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision Transformers",
    ICCV 2021, implementation details: hidden 4096, output 256, BN in all layers.
    """
    return _perceptron([feature_dim, hidden_dim, hidden_dim, output_dim], output_norm=True)


def moco_v3_predictor(dim: int, hidden_dim: int) -> nn.Sequential:
    """Returns Linear(d, hidden) - BN - ReLU - Linear(hidden, d) - BN.

    Source: Chen, Xie and He 2021, implementation details: two layers, hidden 4096, d = 256.
    """
    return _perceptron([dim, hidden_dim, dim], output_norm=True)
