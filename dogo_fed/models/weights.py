"""Weights from a file into a plain backbone: nothing is executed, and nothing is guessed silently."""

from __future__ import annotations

import json
import pickle
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from dogo_fed.errors import CheckpointError
from dogo_fed.models.digest import tensors_digest
from dogo_fed.models.stem import LARGEST_SMALL_KERNEL, SMALL_IMAGE_BELOW, halvings_taken_out
from dogo_fed.models.tensor_names import Fit, best_fit
from dogo_fed.text import one_line, some_of

CLASSIFIER_PREFIXES = ("fc.", "classifier.", "head.", "heads.", "last_linear.")
"""How the names of the layer after the features begin in torchvision and timm."""
_OTHER_HEADS = (
    "projection_head.", "projection.", "projector.", "prediction_head.", "predictor.", "prototypes.",
    "aux1.", "aux2.", "AuxLogits.", "head_dist.",
)  # fmt: skip
"""The same of what stands beside it: heads of objectives, classifiers half-way, DeiT's second one."""
_WRAPPERS = (
    "state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "net", "network", "encoder",
    "backbone", "student", "teacher", "online_network_state_dict", "target_network_state_dict",
)  # fmt: skip
"""Under which names of a file people keep a state dict."""
TENSORS = "tensors"
"""In the description of an encoder that a run has exported: the digest of the file's tensors."""

_PARALLEL = "module."
_COUNTER = "num_batches_tracked"
_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".tar")
_MOST_NAMED = 5
_ANOTHER_BACKBONE = "name the backbone, and its options, that the weights were trained with"
_ANOTHER_STEM = (
    f"only the first convolution differs, which is smaller for images below {SMALL_IMAGE_BELOW} px: set "
    f"data.options.image_size to at least {SMALL_IMAGE_BELOW} (image_size= in `dogo-fed evaluate`), or use "
    "the backbone torchvision:<model> with its option imagenet_stem=true"
)
_OTHER_CHANNELS = "only the channels of the images differ: type data.options.channels={}"
_ANOTHER_SIZE = (
    "only what belongs to places in the image differs, so the weights are of images of another size: set "
    "data.options.image_size to that size (image_size= in `dogo-fed evaluate`)"
)
_PLACES = re.compile(r"pos_?embed|relative_position|position_bias")
"""Parts of a transformer that have a number for each place, or each distance, in an image."""
_GROUP_DEPTH = 2


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Returns the named tensors of a .safetensors file, or of a .pt, .pth or .bin file.

    The latter are read by torch with `weights_only=True`, which builds tensors and plain containers
    and nothing else. A state dict may be nested under "state_dict", "model", "encoder" and other
    usual names. Where several of them hold tensors, each stands in front of the names of its own.

    Raises:
        CheckpointError: the file is missing, damaged, of another kind, or holds no state dict.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder: {name_file_in(path)}")
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {path}")
    _check_kind(path)
    try:
        if path.suffix == ".safetensors":
            return _undamaged(path, load_file(path))
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError,
            KeyError) as error:  # fmt: skip
        _raise_if_it_names_a_class(path, str(error))
        raise CheckpointError(
            f"{path} can't be read as weights: {' '.join(str(error).split())[:200]}; a .safetensors file, "
            "or a .pt file of tensors only, was expected"
        ) from error
    content = _unwrapped(content)
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


def is_weights_file(path: Path) -> bool:
    """Whether weights are in a file, and not in a run folder; if it is gone, its ending tells."""
    return path.is_file() or (not path.exists() and path.suffix in _ENDINGS)


def name_file_in(folder: Path) -> str:
    """Returns what to type in place of a folder in which weights are looked for."""
    there = sorted(path.name for path in folder.iterdir() if path.suffix in _ENDINGS)
    found = some_of([one_line(name, 60) for name in there], _MOST_NAMED)
    return f"name the file in it ({found})" if there else "name the file (there is none in it)"


def _unwrapped(content: object) -> object:
    """Returns the state dict in what a file holds; of several, their names together.

    A network and its average, or a student and its teacher, are told apart by their prefixes then.
    """
    if not isinstance(content, Mapping):
        return content
    inside = {
        name: found
        for name in _WRAPPERS
        if isinstance(found := _unwrapped(content.get(name)), Mapping)
        and any(isinstance(tensor, torch.Tensor) for tensor in found.values())
    }
    if len(inside) <= 1:
        return next(iter(inside.values()), content)
    return {
        f"{wrapper}.{name}": tensor
        for wrapper, found in inside.items()
        for name, tensor in found.items()
    }


def _check_kind(path: Path) -> None:
    """Raises CheckpointError if a file is a web page, or stands for one that was not fetched."""
    with path.open("rb") as file:
        start = file.read(200).lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        raise CheckpointError(
            f"{path} is a web page and no weights file: the download has led to a page (to log in, or "
            "to confirm). Open the address in a browser and save the file itself"
        )
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{path} only stands for the weights, which Git LFS keeps elsewhere; fetch them by: "
            "git lfs pull"
        )


def _raise_if_it_names_a_class(path: Path, message: str) -> None:
    """Raises CheckpointError with the safe way out if a file holds more than tensors."""
    named = re.search(r"Unsupported global: GLOBAL ([\w.]+)", message)
    if named is None:
        return
    raise CheckpointError(
        f"{path} can't be read as weights: it holds a {named[1]} beside its tensors, and reading that "
        "would run code of the file. If you trust whoever made it, save the tensors alone, once: "
        'python -c "import torch; t = lambda x: x if isinstance(x, torch.Tensor) else {k: t(v) for k, v '
        "in getattr(x, 'state_dict', lambda: x)().items() if hasattr(v, 'state_dict') or "
        f"isinstance(v, (dict, torch.Tensor))}}; x = torch.load({str(path)!r}, weights_only=False, "
        "map_location='cpu'); torch.save(t(x), 'weights.pt')\""
    )


def _undamaged(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Returns the tensors of a file; of one that says what its tensors are, only if they are these.

    Raises:
        CheckpointError: they are others.
    """
    said = read_description(path).get(TENSORS)
    if said is not None and said != tensors_digest(tensors):
        raise CheckpointError(
            f"{path} is damaged: its tensors are not those that were written. Take another copy of it, "
            "or let its run write it again"
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


def load_weights(
    backbone: nn.Module,
    tensors: Mapping[str, torch.Tensor],
    what: str,
    prefix: str | None = None,
) -> list[str]:
    """Puts the tensors into the backbone; every name and shape must fit.

    What stands in front of the backbone's names in the file is found, and so are torchvision's names of
    a ResNet (see `tensor_names`). Counts of batches (num_batches_tracked) may be missing.

    Args:
        backbone: changed in place, or not at all.
        tensors: by name.
        what: what the tensors are, for messages.
        prefix: what stands in front of the names; None looks for it.

    Returns:
        A sentence for each thing that a user should know: after which prefix the names fit, what was
        left out, and whether the backbone is another one for small images.

    Raises:
        CheckpointError: a tensor is missing, unknown, or of another shape; names them.
    """
    wanted = backbone.state_dict()
    fit = best_fit(wanted, tensors, prefix)
    taken = {name: tensors[theirs] for name, theirs in fit.names.items()}
    misfits = {
        fit.names[name]: (tensor.shape, wanted[name].shape)
        for name, tensor in taken.items()
        if tensor.shape != wanted[name].shape
    }
    missing = [name for name in wanted if name not in taken and not name.endswith(_COUNTER)]
    heads = {name for name in fit.strangers if _is_head(name.removeprefix(fit.prefix))}
    beside = set() if missing else _beside(fit)
    dropped = [name for name in fit.strangers if name in heads | beside]
    problems = {
        "missing": missing,
        "unexpected": [name for name in fit.strangers if name not in dropped],
        "of another shape": [
            f"{name} {tuple(theirs)} instead of {tuple(ours)}"
            for name, (theirs, ours) in misfits.items()
        ],
    }
    if not fit.names:  # then the strangers are all there is
        problems["unexpected"] = list(tensors)
    found = [f"{kind}: {some_of(names, _MOST_NAMED)}" for kind, names in problems.items() if names]
    if found:
        fits = f" ({len(fit.names)} names fit after {fit.prefix!r})" if fit.prefix else ""
        advice = _advice(misfits) if len(found) == 1 else _ANOTHER_BACKBONE
        if prefix and not prefix.endswith(".") and best_fit(wanted, tensors, f"{prefix}.").names:
            advice = f"the prefix ends with a point: {prefix}."
        raise CheckpointError(
            f"{what} does not fit the backbone {type(backbone).__name__}{fits}: {'; '.join(found)}; "
            f"{advice}"
        )
    wanted.update(taken)  # in place: torchvision's MNASNet asks for the version that it carries
    backbone.load_state_dict(wanted)
    return [*_notices(what, fit, dropped, tensors), *_notices_of_halvings(what, backbone)]


def _advice(misfits: Mapping[str, tuple[torch.Size, torch.Size]]) -> str:
    """Returns what to do where there is one kind of problem only.

    Args:
        misfits: the shapes of what is of another shape, in the file and here; empty if that is not it.
    """
    if not misfits:
        return _ANOTHER_BACKBONE
    if all(_PLACES.search(name) for name in misfits):
        return _ANOTHER_SIZE
    ((theirs, ours),) = list(misfits.values())[:1]
    if len(misfits) > 1 or len(theirs) < 2 or len(theirs) != len(ours):
        return _ANOTHER_BACKBONE
    if _is_of_another_stem(theirs, ours):
        return _ANOTHER_STEM
    is_first = (theirs[0], *theirs[2:]) == (ours[0], *ours[2:]) and {theirs[1], ours[1]} == {1, 3}
    return _OTHER_CHANNELS.format(theirs[1]) if is_first else _ANOTHER_BACKBONE


def _is_of_another_stem(theirs: torch.Size, ours: torch.Size) -> bool:
    """Whether these are first convolutions, for large images in a file and for small ones here."""
    if len(theirs) != 4 or len(ours) != 4 or theirs[:2] != ours[:2]:
        return False
    return max(ours[2:]) == LARGEST_SMALL_KERNEL < min(theirs[2:])


def _notices_of_halvings(what: str, backbone: nn.Module) -> list[str]:
    """Returns a sentence if the backbone has the weights' shapes, but other strides than its library's."""
    names = halvings_taken_out(backbone)
    if not names:
        return []
    return [
        f"{what}: for images below {SMALL_IMAGE_BELOW} px the backbone does not halve at "
        f"{some_of(names, _MOST_NAMED)}. Weights that were trained with these halvings have other "
        f"features here; images of at least {SMALL_IMAGE_BELOW} px, or the backbone's option "
        "imagenet_stem=true, bring them back"
    ]


def _beside(fit: Fit) -> set[str]:
    """Returns the strangers that the backbone has nothing like: a decoder, a mask token.

    The rest of a larger network is like what fits (layer4 beside layer3, blocks.12 beside blocks.11).
    A tensor of the network itself is used in each pass (a token of a transformer), but for masks.
    """
    kinds = {_kind(name, fit) for name in fit.names.values()}
    found = set()
    for stranger in fit.strangers:
        own = stranger.removeprefix(fit.prefix)
        if _kind(stranger, fit) not in kinds if "." in own else own.startswith("mask"):
            found.add(stranger)
    return found


def _kind(name: str, fit: Fit) -> str:
    """Returns the first word of a name in a file, up to the number of its part."""
    return re.split(r"\d", name.removeprefix(fit.prefix).partition(".")[0])[0]


def _is_head(name: str) -> bool:
    return name.startswith((*CLASSIFIER_PREFIXES, *_OTHER_HEADS))


def _notices(
    what: str, fit: Fit, dropped: Sequence[str], tensors: Mapping[str, torch.Tensor]
) -> list[str]:
    """Returns what a user should know about how the names fitted."""
    notices = []
    if fit.prefix and fit.prefix != _PARALLEL:
        notices.append(f"{what}: {len(fit.names)} names fit after {fit.prefix!r}")
    others = Counter(
        ".".join(name.split(".")[:_GROUP_DEPTH])
        for name in tensors
        if not name.startswith(fit.prefix)
    )
    if others:
        named = [f"{group} ({number})" for group, number in others.items()]
        notices.append(f"{what}: not used: {some_of(named, _MOST_NAMED)}")
    rest = [name.removeprefix(fit.prefix) for name in dropped]
    for whose, prefixes in (
        ("the classifier's", CLASSIFIER_PREFIXES),
        ("other heads'", _OTHER_HEADS),
        ("other parts'", ("",)),
    ):
        named = [name for name in rest if name.startswith(prefixes)]
        rest = [name for name in rest if name not in named]
        if named:
            notices.append(f"{what}: {whose} weights are not used: {some_of(named, _MOST_NAMED)}")
    return notices
