"""What a peer leaves in the run folder: checkpoints, and the encoder that people take away."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from dogo_fed.atomic import atomic_path
from dogo_fed.contracts import PeerId
from dogo_fed.errors import CheckpointError
from dogo_fed.models.weights import load_weights, read_weights
from dogo_fed.storage.checkpoint import CheckpointStore


class PeerFolder:
    """`<run>/peers/<peer>/`."""

    def __init__(
        self, run_dir: Path, peer_id: PeerId, *, keep_checkpoints: int = 2, lag_steps: int = 1
    ) -> None:
        """Names the folder; see `CheckpointStore` for what its checkpoints' two numbers mean."""
        self.path = run_dir / "peers" / peer_id
        self.checkpoints = CheckpointStore(
            self.path / "checkpoints", keep=keep_checkpoints, lag_steps=lag_steps
        )

    @property
    def encoder_path(self) -> Path:
        """Where the exported backbone goes."""
        return self.path / "encoder.safetensors"

    def export_encoder(self, backbone: nn.Module, description: dict[str, str]) -> Path:
        """Writes the backbone's parameters and buffers; they load into the plain backbone.

        Args:
            backbone: the network without heads; tensors that share memory are written out each.
            description: goes into the file's metadata, for people.
        """
        tensors = {
            name: tensor.detach().to("cpu", copy=True).contiguous()
            for name, tensor in backbone.state_dict().items()
            if isinstance(tensor, torch.Tensor)
        }
        self.path.mkdir(parents=True, exist_ok=True)
        with atomic_path(self.encoder_path) as temporary:
            save_file(tensors, temporary, metadata={"dogo_fed": json.dumps(description)})
        return self.encoder_path

    def load_encoder(self, backbone: nn.Module) -> None:
        """Puts the exported parameters and buffers into the plain backbone.

        Raises:
            CheckpointError: nothing was exported, or it does not fit this backbone.
        """
        if not self.encoder_path.is_file():
            raise CheckpointError(
                f"peer {self.path.name!r} has no encoder in {self.path}: it is written when the run "
                "ends; finish the run first (dogo-fed train resume=<run folder>)"
            )
        load_weights(backbone, read_weights(self.encoder_path), f"{self.encoder_path}")
