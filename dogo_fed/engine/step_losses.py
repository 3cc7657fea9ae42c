"""The losses of steps, read when somebody asks for them: of several steps by one copy."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def numbers_of(scalars: Sequence[torch.Tensor]) -> list[float]:
    """Returns tensors of one number each as numbers, by one copy: their device is waited for once."""
    if not scalars:
        return []
    alike = [scalar.detach().double().reshape(()) for scalar in scalars]
    numbers: list[float] = torch.stack(alike).tolist()
    return numbers


class StepLosses:
    """The losses of a finished step, where they were computed: to read them waits for the device."""

    def __init__(self, ssl_loss: torch.Tensor, mutual_kl: torch.Tensor) -> None:
        self._ssl_loss, self._mutual_kl = ssl_loss.detach(), mutual_kl.detach()

    @property
    def scalars(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The own loss and the mutual KL as they are, for `numbers_of`."""
        return self._ssl_loss, self._mutual_kl

    @property
    def ssl_loss(self) -> float:
        """The objective's own loss, in its own units."""
        return self._ssl_loss.item()

    @property
    def mutual_kl(self) -> float:
        """Before the distill weight, in nats; 0 if there was no teacher."""
        return self._mutual_kl.item()

    def __eq__(self, other: object) -> bool:
        """Whether both losses are the same numbers."""
        if not isinstance(other, StepLosses):
            return NotImplemented
        return numbers_of(self.scalars) == numbers_of(other.scalars)

    __hash__ = None  # type: ignore[assignment]
