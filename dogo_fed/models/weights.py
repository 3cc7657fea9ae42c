"""Weights from a file into a plain backbone: nothing is executed, and nothing is guessed silently."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from dogo_fed.errors import CheckpointError
from dogo_fed.text import some_of

CLASSIFIERS = ("fc.", "classifier.", "head.", "heads.", "last_linear.")
"""How the names of the layer after the features begin in torchvision and timm."""
_WRAPPERS = ("state_dict", "model", "model_state_dict")
_PARALLEL = "module."
_MOST_NAMED = 5


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Returns the named tensors of a .safetensors file, or of a .pt, .pth or .bin file.

    The latter are read by torch with `weights_only=True`, which builds tensors and plain containers
    and nothing else. A state dict may be nested under "state_dict", "model" or "model_state_dict".

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or holds no state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError,
            KeyError) as error:  # fmt: skip
        raise CheckpointError(
            f"{path} can't be read as weights: {' '.join(str(error).split())[:200]}; a .safetensors file, "
            "or a .pt file of tensors only, was expected"
        ) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds no state dict, but a {type(content).__name__}")
    tensors = {str(name): tensor for name, tensor in content.items()}
    strangers = [name for name, tensor in tensors.items() if not isinstance(tensor, torch.Tensor)]
    if strangers:
        raise CheckpointError(
            f"{path} is not a state dict: {some_of(strangers, _MOST_NAMED)} is no tensor; save "
            "model.state_dict()"
        )
    return tensors


def read_description(path: Path) -> dict[str, object]:
    """Returns what a run says about an encoder that it has exported; empty for any other file.

    It is somebody's text: nothing in it is called, and each value must be checked before its use.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            found = json.loads((file.metadata() or {}).get("dogo_fed", "{}"))
    except (SafetensorError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def load_weights(backbone: nn.Module, tensors: Mapping[str, torch.Tensor], what: str) -> list[str]:
    """Puts the tensors into the backbone; every name and shape must fit.

    Args:
        backbone: changed in place, or not at all.
        tensors: by name. "module." in front of all names, as DataParallel leaves it, is taken off.
        what: what the tensors are, for messages.

    Returns:
        A sentence for each thing that was left out: the weights of a classifier that the backbone
        does not have.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape; names them.
    """
    tensors = dict(tensors)
    if tensors and all(name.startswith(_PARALLEL) for name in tensors):
        tensors = {name.removeprefix(_PARALLEL): tensor for name, tensor in tensors.items()}
    wanted = backbone.state_dict()
    dropped = [name for name in tensors if name not in wanted and name.startswith(CLASSIFIERS)]
    for name in dropped:
        del tensors[name]
    problems = {
        "missing": [name for name in wanted if name not in tensors],
        "unexpected": [name for name in tensors if name not in wanted],
        "of another shape": [
            f"{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}"
            for name, tensor in tensors.items()
            if name in wanted and tensor.shape != wanted[name].shape
        ],
    }
    found = [f"{kind}: {some_of(names, _MOST_NAMED)}" for kind, names in problems.items() if names]
    if found:
        raise CheckpointError(
            f"{what} does not fit the backbone {type(backbone).__name__}: {'; '.join(found)}; name the "
            "backbone, and its options, that the weights were trained with"
        )
    backbone.load_state_dict(tensors)
    if not dropped:
        return []
    return [f"{what}: the classifier's weights are not used: {some_of(dropped, _MOST_NAMED)}"]
