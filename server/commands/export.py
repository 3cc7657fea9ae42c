"""`dogo-fed export`: a trained encoder for torchvision, timm or onnxruntime, with a card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dogo_fed.errors import ConfigError
from dogo_fed.run.export import Format, export_encoder
from dogo_fed.typed_path import typed_path
from server.commands.key_values import key_values, named_run, run_command, truth

_KEYS = ("run", "peer", "format", "out", "for_others", "trust")
_HELP = """usage: dogo-fed export run=FOLDER peer=NAME [format=FORMAT] [out=FILE] [for_others=true]
                       [trust=true]

Writes the encoder of a peer of a finished run, and beside it a card (.md) that says what it was trained
on, how good it was, and how it is loaded.

format=safetensors   this project's names of tensors (the default)
format=torchvision   a .pth file with torchvision's names
format=timm          a .safetensors file with timm's names
format=onnx          a graph from images in 0..1 to features (pip install 'dogo-fed[onnx]')

for_others=true      nothing of the images but their size, mean and deviation: no name, number,
                     classes or fingerprint, and no accuracy

Without out= the file is FOLDER/export/NAME-FORMAT. Without peer=, a run of one peer has no other.
"""


def main() -> None:
    """Runs what the command line says; leaves the process with a status that tells how it ended."""
    run_command(_HELP, lambda arguments: map(str, _export(arguments)))


def _export(arguments: Sequence[str]) -> tuple[Path, Path]:
    given = key_values("export", arguments, _KEYS)
    folder, config = named_run(given)
    if "peer" not in given and len(config.peers) > 1:
        raise ConfigError(f"name the peer: peer=<one of {', '.join(sorted(config.peers))}>")
    out = typed_path(given["out"]) if "out" in given else None
    peer = given.get("peer", next(iter(config.peers)))
    form = _choice(given.get("format", "safetensors"))
    return export_encoder(folder, config, peer, form, out, for_others=truth(given, "for_others"))


def _choice(name: str) -> Format:
    names = [form.value for form in Format]
    if name not in names:
        raise ConfigError(f"format must be one of {', '.join(names)}, not {name!r}")
    return Format(name)
