"""The losses against a second implementation: the library lightly. Values and gradients, float64."""

from __future__ import annotations

import socket

import pytest
import torch
import torch.nn.functional as F

from dogo_fed.objectives.barlow_twins import barlow_twins_loss
from dogo_fed.objectives.byol import byol_regression
from dogo_fed.objectives.moco_v2 import queue_contrast
from dogo_fed.objectives.moco_v3 import batch_contrast
from dogo_fed.objectives.simclr import nt_xent
from dogo_fed.objectives.simsiam import negative_cosine
from dogo_fed.objectives.vicreg import vicreg_loss
from tests.support.command_line import REPOSITORY

ASKED: list[object] = []
"""Every address that was asked for while lightly was imported."""


def refuse(*arguments: object, **named: object) -> None:
    ASKED.append((arguments, named))
    raise OSError("no network here")


with pytest.MonkeyPatch.context() as patch:
    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        patch.setattr(socket, name, refuse)
    from lightly.loss import BarlowTwinsLoss, NegativeCosineSimilarity, NTXentLoss, VICRegLoss

QUEUE_KD = F.normalize(
    torch.randn(11, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), dim=1
)


def against_bank(query_ND, key_ND, bank_KD, temperature):
    """lightly's InfoNCE, given the negatives; it adds the keys to its bank afterwards."""
    loss = NTXentLoss(temperature=temperature, memory_bank_size=tuple(bank_KD.shape))
    loss.memory_bank.bank = bank_KD.clone()
    return loss(query_ND, key_ND.detach())


def against_batch(query_ND, key_ND, temperature):
    """MoCo v3's contrast has no counterpart in lightly: a bank of the batch's other keys, for each image."""
    keys_ND = F.normalize(key_ND.detach(), dim=1)
    others = [torch.cat([keys_ND[:i], keys_ND[i + 1 :]]) for i in range(len(keys_ND))]
    losses = [
        against_bank(query_ND[i : i + 1], key_ND[i : i + 1], bank_KD, temperature)
        for i, bank_KD in enumerate(others)
    ]
    return 2 * temperature * torch.stack(losses).mean()


def vicreg_of_lightly(a_ND, b_ND):
    """It takes the mean of the views' variance terms, as the authors' code does; the paper the sum."""
    return VICRegLoss(lambda_param=25.0, mu_param=2 * 25.0, nu_param=1.0)(a_ND, b_ND)


PAIRS = {
    "simclr": (lambda a, b: nt_xent(a, b, 0.5), NTXentLoss(temperature=0.5)),
    "simsiam": (negative_cosine, lambda a, b: NegativeCosineSimilarity()(a, b.detach())),
    "byol": (byol_regression, lambda a, b: 2 + 2 * NegativeCosineSimilarity()(a, b.detach())),
    "barlow_twins": (
        lambda a, b: barlow_twins_loss(a, b, 0.005),
        BarlowTwinsLoss(lambda_param=0.005),
    ),
    "vicreg": (
        lambda a, b: vicreg_loss(
            a, b, invariance_weight=25.0, variance_weight=25.0, covariance_weight=1.0
        ),
        vicreg_of_lightly,
    ),
    "moco_v2": (
        lambda a, b: queue_contrast(a, b, QUEUE_KD, 0.2),
        lambda a, b: against_bank(a, b, QUEUE_KD, 0.2),
    ),
    "moco_v3": (lambda a, b: batch_contrast(a, b, 0.2), lambda a, b: against_batch(a, b, 0.2)),
}


def value_and_gradients(loss, a_ND, b_ND):
    inputs = [a_ND.clone().requires_grad_(), b_ND.clone().requires_grad_()]
    value = loss(*inputs)
    return value, torch.autograd.grad(value, inputs, allow_unused=True, materialize_grads=True)


@pytest.mark.parametrize("scale", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("name", PAIRS)
def test_value_and_gradients_are_lightlys(name, scale):
    generator = torch.Generator().manual_seed(len(name))
    a_ND, noise_ND = torch.randn(2, 9, 6, dtype=torch.float64, generator=generator)
    b_ND = a_ND + 0.5 * noise_ND
    ours, theirs = (value_and_gradients(loss, scale * a_ND, scale * b_ND) for loss in PAIRS[name])
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-6, atol=1e-8)
    assert ours[1][0].abs().max() > 1e-4
    for mine, other in zip(ours[1], theirs[1], strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-8)


def test_importing_lightly_asked_no_server():
    assert ASKED == []


def test_the_library_does_not_import_lightly():
    """It is for development only."""
    found = [
        path
        for package in ("dogo_fed", "server", "clients", "configs")
        for path in (REPOSITORY / package).rglob("*.py")
        if "lightly" in path.read_text()
    ]
    assert not found
