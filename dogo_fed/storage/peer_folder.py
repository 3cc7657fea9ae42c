"""A peer's files in the run folder: its checkpoints, and the encoder that it exports."""

from __future__ import annotations

import dataclasses
import json
import logging
import shlex
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from dogo_fed import layout
from dogo_fed.atomic import room_for, write_atomic, write_json_atomic
from dogo_fed.contracts import PeerId
from dogo_fed.errors import CheckpointError, StorageFull
from dogo_fed.ledger import Ledger
from dogo_fed.models.digest import tensors_digest
from dogo_fed.models.weights import TENSORS, load_weights, read_description, read_weights
from dogo_fed.provenance import DataFacts, check_same_images
from dogo_fed.storage.checkpoint import CheckpointStore
from dogo_fed.storage.trace_file import write_trace

logger = logging.getLogger(__name__)

_PRIVATE_IMAGES = "private_images.json"


class PeerFolder:
    """One peer's folder, `<run>/peers/<peer>/`."""

    def __init__(
        self, run_dir: Path, peer_id: PeerId, *, keep_checkpoints: int = 2, lag_steps: int = 1
    ) -> None:
        """Makes no folder yet; see `CheckpointStore` for the two numbers."""
        self.path = layout.peer_folder(run_dir, peer_id)
        self.checkpoints = CheckpointStore(
            self.path / layout.CHECKPOINTS, keep=keep_checkpoints, lag_steps=lag_steps
        )

    def check_private_images(self, now: DataFacts, *, begins: bool) -> None:
        """Checks that a peer's private images are those that it has trained on; notes them.

        Args:
            now: the images that are there.
            begins: whether the peer begins at step 0, so that it may have any.

        Raises:
            CheckpointError: the note is broken.
            DataError: they are others.
            StorageFull: there is no room for the note.
        """
        then = None if begins else self.private_images()
        if then is not None:
            of = f"peer {self.path.name} when it began"
            check_same_images(then, now, of=of, instead="begin the run again (afresh=true)")
            return
        with room_for("the note of the private images", self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            write_json_atomic(self.path / _PRIVATE_IMAGES, dataclasses.asdict(now))

    def private_images(self) -> DataFacts | None:
        """Returns the facts of the private images that the peer has trained on; None if there are none.

        Raises:
            CheckpointError: the note of them is broken.
        """
        path = self.path / _PRIVATE_IMAGES
        try:
            return DataFacts.from_plain(json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CheckpointError(
                f"{path} can't be read ({error!r}). It says which private images the peer was "
                "trained on; put it back, or remove it to go on without that check"
            ) from error

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
        described = {**description, TENSORS: tensors_digest(tensors)}
        content = save(tensors, metadata={"dogo_fed": json.dumps(described)})
        with room_for("the encoder", self.path, len(content)):
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomic(self.encoder_path, content)
        return self.encoder_path

    def encoder_state(self) -> str | None:
        """Returns the digest of the state that the exported encoder is of; None if it says none."""
        if not self.encoder_path.is_file():
            return None
        said = read_description(self.encoder_path).get("state_digest")
        return said if isinstance(said, str) else None

    def write_trace(self, ledger: Ledger) -> None:
        """Writes where the time of the sampled steps went; on a full disk that is only logged."""
        try:
            with room_for("the trace", self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                write_trace(self.path / layout.TRACE, self.path.name, ledger)
        except StorageFull as error:
            logger.warning("peer=%s leaves no trace: %s", self.path.name, error)

    def load_encoder(self, backbone: nn.Module) -> None:
        """Loads the exported parameters and buffers into a backbone of the same architecture.

        Raises:
            CheckpointError: nothing was exported, or it does not fit this backbone.
        """
        if not self.encoder_path.is_file():
            raise CheckpointError(
                f"peer {self.path.name!r} has no encoder in {self.path}: it is written when the "
                f"run ends; finish the run first by resume={shlex.quote(str(self.path.parents[1]))}"
            )
        load_weights(backbone, read_weights(self.encoder_path), f"{self.encoder_path}")
