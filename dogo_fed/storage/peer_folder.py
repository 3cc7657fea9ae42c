"""A peer's files in the run folder: its checkpoints, and the encoder that it exports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from dogo_fed.atomic import room_for, write_atomic
from dogo_fed.contracts import PeerId
from dogo_fed.errors import CheckpointError
from dogo_fed.models.weights import load_weights, read_weights
from dogo_fed.storage.checkpoint import CheckpointStore


class PeerFolder:
    """One peer's folder, `<run>/peers/<peer>/`."""

    def __init__(
        self, run_dir: Path, peer_id: PeerId, *, keep_checkpoints: int = 2, lag_steps: int = 1
    ) -> None:
        """Makes no folder yet; see `CheckpointStore` for the two numbers."""
        self.path = run_dir / "peers" / peer_id
        self.checkpoints = CheckpointStore(
            self.path / "checkpoints", keep=keep_checkpoints, lag_steps=lag_steps
        )

    @property
    def encoder_path(self) -> Path:
        """The file of the exported backbone."""
        return self.path / "encoder.safetensors"

    def export_encoder(self, backbone: nn.Module, description: Mapping[str, object]) -> Path:
        """Writes the backbone's parameters and buffers, and returns the file's path.

        Args:
            backbone: the network without heads. Tensors that share memory are each written in full.
            description: what the weights are and where they come from; written into the file's
                metadata as JSON, under "dogo_fed".

        Raises:
            StorageFull: there is no room for it.
        """
        tensors = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in backbone.state_dict().items()
            if isinstance(tensor, torch.Tensor)
        }
        content = save(tensors, metadata={"dogo_fed": json.dumps(description)})
        with room_for("the encoder", self.path, len(content)):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomic(self.encoder_path, content)
        return self.encoder_path

    def load_encoder(self, backbone: nn.Module) -> None:
        """Loads the exported parameters and buffers into a backbone of the same architecture.

        Raises:
            CheckpointError: nothing was exported, or it does not fit this backbone.
        """
        if not self.encoder_path.is_file():
            raise CheckpointError(
                f"peer {self.path.name!r} has no encoder in {self.path}: it is written when the "
                "run ends; finish the run first (dogo-fed train resume=<run folder>)"
            )
        load_weights(backbone, read_weights(self.encoder_path), f"{self.encoder_path}")
