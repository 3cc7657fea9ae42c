"""A trained encoder in the form that other tools read, with a card that says what it is."""

# N = images, C = channels, F = features

from __future__ import annotations

import dataclasses
import enum
import io
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from dogo_fed import layout
from dogo_fed.atomic import atomic_path, write_atomic
from dogo_fed.config import ComponentConfig, RunConfig
from dogo_fed.contracts import PeerId
from dogo_fed.errors import CheckpointError, ConfigError
from dogo_fed.models.digest import tensors_digest
from dogo_fed.models.library import OURS, torchvision_model
from dogo_fed.models.rebuild import timm_code, timm_resnet_code, torchvision_code
from dogo_fed.models.resnet import ResNet
from dogo_fed.models.tensor_names import torchvision_from_ours
from dogo_fed.models.weights import TENSORS, read_description
from dogo_fed.private_files import private_files
from dogo_fed.provenance import DataFacts
from dogo_fed.reporting.summary import read_summary
from dogo_fed.run.evaluate import open_backbone
from dogo_fed.storage.peer_folder import PeerFolder
from dogo_fed.text import one_line

_RESNETS = ("resnet18", "resnet34", "resnet50")
_RESNETS_OF_TIMM = ("resnet10", *_RESNETS)
"""Which ResNets of ours timm can build, in any even width."""
_TORCHVISIONS = ("mobilenet_v2", "shufflenet_v2")
_SHUFFLENET = "shufflenet_v2_x1_0"
_STANDARD_WIDTH = {
    "resnet18": 64,
    "resnet34": 64,
    "resnet50": 64,
    "mobilenet_v2": 1.0,
    "shufflenet_v2": 116,
}
_OPSET = 18


class Format(enum.Enum):
    """What an encoder is written for.

    SAFETENSORS: this project's names of tensors.
    TORCHVISION: a .pth file with torchvision's names.
    TIMM: a .safetensors file with timm's names.
    ONNX: a graph from images in 0..1 to features, for onnxruntime and others.
    """

    SAFETENSORS = "safetensors"
    TORCHVISION = "torchvision"
    TIMM = "timm"
    ONNX = "onnx"


_ENDINGS = {
    Format.SAFETENSORS: ".safetensors",
    Format.TORCHVISION: ".pth",
    Format.TIMM: ".safetensors",
    Format.ONNX: ".onnx",
}


def export_encoder(
    folder: Path,
    config: RunConfig,
    peer: str,
    form: Format,
    out: Path | None = None,
    *,
    for_others: bool = False,
) -> tuple[Path, Path]:
    """Writes a peer's encoder and its card; returns both paths.

    Args:
        folder: folder of a finished run.
        config: the run's configuration.
        peer: whose encoder.
        form: for what.
        out: the file; None is <folder>/export/<peer>-<format> with the ending of the format.
        for_others: leaves out what tells of the images: name, number, classes, fingerprint, and what
            was measured on them. Size, mean and deviation stay, since the encoder needs them.

    Raises:
        ConfigError: there is no such peer, the tool has no such network, or a library is missing.
        CheckpointError: the encoder is missing or does not fit.
        OSError: a file can't be written.
    """
    backbone, trained_on = open_backbone(folder, config, peer)
    settings = config.peers[peer].backbone
    path = out or folder / "export" / f"{peer}-{form.value}{_ENDINGS[form]}"
    card_path = path.with_name(f"{path.name}.md")
    loading = _how_to_load(backbone, settings, form, path, trained_on)
    described = dict(read_description(PeerFolder(folder, PeerId(peer)).encoder_path))
    if for_others:
        trained_on = trained_on.withheld()
        withheld = {"data": dataclasses.asdict(trained_on), "anchors": None, "seen": None}
        described |= withheld if described else {}
    card = _card(folder, config, peer, loading, trained_on, described)
    content = (
        b"" if form is Format.ONNX else _packed(_renamed(backbone, settings, form), form, described)
    )
    with private_files():
        path.parent.mkdir(parents=True, exist_ok=True)  # not before all of it can be written
        if form is Format.ONNX:
            _write_onnx(backbone, trained_on, path)
        else:
            write_atomic(path, content)
        write_atomic(card_path, card)
    return path, card_path


def _renamed(
    backbone: nn.Module, settings: ComponentConfig, form: Format
) -> dict[str, torch.Tensor]:
    """Returns the tensors under the names of the format.

    Raises:
        ConfigError: the tool has no such network.
    """
    tensors = backbone.state_dict()
    for name, tensor in tensors.items():  # in place: it also carries the versions of modules
        tensors[name] = tensor.detach().contiguous().clone()
    if form is Format.SAFETENSORS:
        return tensors
    _plain_name(settings, form)
    if settings.name in _RESNETS_OF_TIMM:
        return {torchvision_from_ours(name): tensor for name, tensor in tensors.items()}
    return tensors


def _plain_name(settings: ComponentConfig, form: Format) -> str:
    """Returns what the tool calls the network.

    Raises:
        ConfigError: it has no such network.
    """
    collection, colon, member = settings.name.partition(":")
    if colon and collection == form.value:
        return member
    options = settings.options
    if (
        form is Format.TIMM
        and settings.name in _RESNETS_OF_TIMM
        and not options.get("keep_classifier", False)
    ):
        return settings.name
    width = options.get("width", _STANDARD_WIDTH.get(settings.name))
    is_plain = (
        width == _STANDARD_WIDTH.get(settings.name)
        and not options.get("keep_classifier", False)
        and options.get("last_channels") is None
    )
    if is_plain and settings.name in _RESNETS:
        return settings.name
    if is_plain and form is Format.TORCHVISION and settings.name in _TORCHVISIONS:
        return _SHUFFLENET if settings.name == "shufflenet_v2" else settings.name
    if form is Format.TIMM:
        known, others = f"{', '.join(_RESNETS_OF_TIMM)} in any even width", ""
    else:
        known = f"{', '.join((*_RESNETS, *_TORCHVISIONS))} in their usual widths"
        others = "format=timm or " if settings.name in _RESNETS_OF_TIMM else ""
    raise ConfigError(
        f"{form.value} has no network like {settings}; it has {known}, and {form.value}:<model>. "
        f"Use {others}format=safetensors or format=onnx"
    )


def _packed(
    tensors: Mapping[str, torch.Tensor], form: Format, described: Mapping[str, object]
) -> bytes:
    """Returns the content of a file; where the format has room for it, with the run's description."""
    if form is not Format.TORCHVISION:
        # The names of the tensors may be others now, so the digest is.
        said = {**described, TENSORS: tensors_digest(tensors)}
        metadata = {"dogo_fed": json.dumps(said)} if described else None
        return save(dict(tensors), metadata=metadata)
    content = io.BytesIO()
    torch.save(tensors, content)
    return content.getvalue()


class _FromPixels(nn.Module):
    """Normalises images in 0..1 and takes their features."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, backbone: nn.Module, trained_on: DataFacts) -> None:
        super().__init__()
        self.backbone = backbone
        self.register_buffer("mean", torch.tensor(trained_on.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(trained_on.std).view(-1, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.backbone((images - self.mean) / self.std)
        return features.flatten(start_dim=1)


def _write_onnx(backbone: nn.Module, trained_on: DataFacts, path: Path) -> None:
    """Writes a graph whose first dimension is free.

    Raises:
        ConfigError: torch's exporter lacks its libraries.
    """
    side, channels = trained_on.image_size, len(trained_on.mean)
    example = torch.rand(2, channels, side, side)
    try:
        import onnxscript  # noqa: F401 - the exporter needs it, and says so late
    except ImportError as error:
        raise ConfigError("format=onnx needs more: pip install 'dogo-fed[onnx]'") from error
    with atomic_path(path) as temporary:
        torch.onnx.export(
            _FromPixels(backbone, trained_on).eval(),
            (example,),
            str(temporary),
            input_names=["images"],
            output_names=["features"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def _card(
    folder: Path,
    config: RunConfig,
    peer: str,
    loading: Sequence[str],
    trained_on: DataFacts,
    described: Mapping[str, object],
) -> str:
    """Returns the text of the model card, with the lines that load the file."""
    settings = config.peers[peer]
    is_withheld = trained_on == trained_on.withheld()
    told = [] if is_withheld else _summary_of(folder, peer)
    reached = told or _as_described(described)
    title = _in_table(trained_on.title)
    images = f"{title}, {trained_on.num_train}, fingerprint `{trained_on.fingerprint}`"
    seen = described.get("seen")  # of a cut; earlier versions wrote none
    part = [] if seen is None else [f"| trained on | {_in_table(seen)} |"]
    is_alone = not (config.exchanges or (folder / layout.SITE_CONFIG).is_file())
    lines = [
        f"# {peer}: {settings.backbone}, {settings.objective.name}",
        "",
        f"Pre-trained by dogo-fed in the run {folder.name}, "
        + ("alone." if is_alone else "together with other peers."),
        "",
        "| | |",
        "|---|---|",
        f"| images | {title if is_withheld else images} |",
        *part,
        f"| input | {len(trained_on.mean)} x {trained_on.image_size} x {trained_on.image_size} |",
        f"| mean, of pixels in 0..1 | {list(trained_on.mean)} |",
        f"| deviation | {list(trained_on.std)} |",
        f"| seed, batch size | {config.seed}, {config.batch_size} |",
        *(f"| {what} | {value} |" for what, value in reached),
        "",
        "## How to load it",
        "",
        *loading,
        "",
        "What the features are worth on other images than those of the training is not known until it "
        "is measured (`dogo-fed evaluate`).",
    ]
    return "\n".join(lines) + "\n"


def _in_table(text: object) -> str:
    """Returns a text for a cell of a table; a folder may be called anything."""
    return one_line(text, 160).replace("|", r"\|")


def _summary_of(folder: Path, peer: str) -> list[tuple[str, str]]:
    """Returns what the run's summary says about a peer; nothing at a site, which has none.

    Raises:
        CheckpointError: it says nothing.
    """
    if (folder / layout.SITE_CONFIG).is_file():
        return []
    summary = read_summary(folder)
    if summary is None or peer not in summary["peers"]:
        raise CheckpointError(
            f"{folder / layout.SUMMARY} is missing, can't be read, or says nothing of the peer {peer!r}"
        )
    found = summary["peers"][peer]
    named = {
        "kNN, top-1": ("knn_top1", 100.0, "%"),
        "linear probe, top-1": ("linear_top1", 100.0, "%"),
        "effective rank": ("rankme", 1.0, ""),
    }
    lines = [("updates", str(found["steps_trained"])), ("state", f"`{found['state_digest']}`")]
    for what, (key, scale, unit) in named.items():
        value = found.get(key)
        if isinstance(value, int | float) and math.isfinite(value):
            lines.append((what, f"{scale * value:.1f} {unit}".rstrip()))
    return lines


def _as_described(described: Mapping[str, object]) -> list[tuple[str, str]]:
    """Returns what an encoder's file says about how it was made."""
    named = {"updates": described.get("steps_trained"), "state": described.get("state_digest")}
    return [(what, f"`{value}`") for what, value in named.items() if value is not None]


def _how_to_load(
    backbone: nn.Module,
    settings: ComponentConfig,
    form: Format,
    path: Path,
    trained_on: DataFacts,
) -> list[str]:
    """Returns the code that loads the file."""
    if form is Format.SAFETENSORS:
        return _how_to_evaluate(settings, path, trained_on)
    if form is Format.ONNX:
        return [
            "    import onnxruntime",
            f"    session = onnxruntime.InferenceSession({path.name!r})",
            '    (features,) = session.run(None, {"images": images})   # float32, in 0..1; mean and',
            "                                                           # deviation are in the graph",
        ]
    made = _how_to_make(backbone, settings, form, trained_on)
    if form is Format.TORCHVISION:
        imports = ["import torch, torchvision"]
        read = f"torch.load({path.name!r}, weights_only=True)"
    else:
        imports = ["import timm, torch", "from safetensors.torch import load_file"]
        read = f"load_file({path.name!r})"
    lines = [*imports, *made, f"model.load_state_dict({read})", "model.eval()"]
    return [f"    {line}" for line in lines]


def _how_to_evaluate(settings: ComponentConfig, path: Path, trained_on: DataFacts) -> list[str]:
    """Returns the command that measures the file, with all that the file does not say."""
    network = [
        f"checkpoint={path.name}",
        "backbone=own",
        f"backbone.name={settings.name}",
        *(f"+backbone.options.{key}={_as_yaml(value)}" for key, value in settings.options.items()),
    ]
    images = [
        f"image_size={trained_on.image_size}",
        f"mean={_as_yaml(list(trained_on.mean))}",
        f"std={_as_yaml(list(trained_on.std))}",
    ]
    return [
        f"    dogo-fed evaluate {shlex.join(network)} \\",
        f"      {shlex.join(images)} data=<data> out=<folder>",
    ]


def _as_yaml(value: object) -> str:
    """Returns an option as it is typed on a command line."""
    return json.dumps(value, separators=(",", ":"))


def _how_to_make(
    backbone: nn.Module, settings: ComponentConfig, form: Format, trained_on: DataFacts
) -> list[str]:
    """Returns the statements that make the tool's network into the one that was trained.

    Raises:
        ConfigError: the tool has no such network.
    """
    name, side, channels = _plain_name(settings, form), trained_on.image_size, len(trained_on.mean)
    if form is Format.TIMM and isinstance(backbone, ResNet):
        return timm_resnet_code(backbone)
    options: dict[str, object] = {}
    if settings.name in _RESNETS:  # under the tools' names of modules, which are the same in both
        stride = settings.options.get("stem_stride", 1)
        with torch.random.fork_rng(devices=[]):
            backbone = torchvision_model(
                name, image_size=side, in_channels=channels, stem_stride=stride
            )
    elif settings.name not in _TORCHVISIONS:
        options = {key: value for key, value in settings.options.items() if key not in OURS}
    if form is Format.TORCHVISION:
        return torchvision_code(name, backbone, side, options)
    return timm_code(name, backbone, side, channels, options)
