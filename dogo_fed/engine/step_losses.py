"""The losses of a step, read when somebody asks for them."""

from __future__ import annotations

import torch


class StepLosses:
    """The losses of a finished step, where they were computed: to read them waits for the device."""

    def __init__(self, ssl_loss: torch.Tensor, mutual_kl: torch.Tensor) -> None:
        self._ssl_loss, self._mutual_kl = ssl_loss.detach(), mutual_kl.detach()

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
        mine = (self.ssl_loss, self.mutual_kl)
        return mine == (other.ssl_loss, other.mutual_kl)

    __hash__ = None  # type: ignore[assignment]
