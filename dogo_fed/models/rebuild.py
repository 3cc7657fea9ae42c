"""Python that makes a backbone out of a library's own network, for whoever has the library alone.

A backbone is the library's network without its classifier and, for small images, without its first
halvings. The two are held against each other, module by module, and every difference becomes a
statement. So the code says what `library.py` has done to this network, whatever that was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from dogo_fed.errors import ConfigError
from dogo_fed.models.library import timm_arguments, torchvision_arguments
from dogo_fed.models.resnet import ResNet

_SHALLOW = (2, 2, 2, 2)
_DEEP = (3, 4, 6, 3)
_TIMM_WIDTH = 64
_TIMM_RESNETS: dict[tuple[type[nn.Module], tuple[int, ...]], str] = {
    (BasicBlock, _SHALLOW): "resnet18",
    (BasicBlock, _DEEP): "resnet34",
    (Bottleneck, _DEEP): "resnet50",
}


def torchvision_code(
    model: str, backbone: nn.Module, image_size: int, options: Mapping[str, object]
) -> list[str]:
    """Returns the statements that make `model` like the backbone, by torchvision.

    Args:
        model: the name of one of torchvision's models.
        backbone: what is to come out.
        image_size: side of its images in pixels.
        options: those of torchvision's builder.
    """
    arguments = torchvision_arguments(model, image_size, options)
    with torch.random.fork_rng(devices=[]):
        theirs = torchvision.models.get_model(model, weights=None, **arguments)
    return [
        f"model = torchvision.models.{model}({_written(arguments)})",
        *changes(theirs, backbone),
    ]


def timm_code(
    model: str,
    backbone: nn.Module,
    image_size: int,
    in_channels: int,
    options: Mapping[str, object],
) -> list[str]:
    """Returns the statements that make `model` like the backbone, by timm, which has to be there.

    Args:
        model: the name of one of timm's models.
        backbone: what is to come out.
        image_size: side of its images in pixels.
        in_channels: C.
        options: those of timm's own.
    """
    import timm

    arguments = timm_arguments(model, image_size, in_channels, options)
    with torch.random.fork_rng(devices=[]):
        theirs = timm.create_model(model, pretrained=False, **arguments)
    return [
        f"model = timm.create_model({model!r}, {_written(arguments)})",
        *changes(theirs, backbone),
    ]


def timm_resnet_code(backbone: ResNet) -> list[str]:
    """Returns the statements that make one of our ResNets by timm, under torchvision's names of tensors.

    timm's stem has 64 channels, or twice the width of its deep stem. So a network of another width asks
    for the deep one, whose convolutions are then replaced by ours.

    Args:
        backbone: a network without the published code's last layer.

    Raises:
        ConfigError: its width is odd.
    """
    convolution = cast(nn.Conv2d, backbone.stem[0])
    stages = [cast(nn.Sequential, stage) for stage in backbone.stages]
    block, layers = type(stages[0][0]), tuple(map(len, stages))
    width, arguments = convolution.out_channels, dict[str, object]()
    name = _TIMM_RESNETS.get((block, layers))
    if name is None:  # of another depth, so it is one of timm's with other numbers of blocks
        name = next(one for (kind, _), one in _TIMM_RESNETS.items() if kind is block)
        arguments["layers"] = layers
    if width != _TIMM_WIDTH:
        if width % 2:
            raise ConfigError(
                f"timm has no ResNet with a stem of {width} channels, which is an odd number. Use "
                "format=safetensors or format=onnx"
            )
        arguments["channels"] = tuple(width * 2**stage for stage in range(len(layers)))
        arguments |= {"stem_type": "deep", "stem_width": width // 2}
    made = {"num_classes": 0, "in_chans": convolution.in_channels, **arguments}
    statements = [f"model = timm.create_model({name!r}, {_written(made)})"]
    has_pool = any(isinstance(module, nn.MaxPool2d) for module in backbone.stem)
    if arguments.get("stem_type") or not has_pool:
        statements.append(_put("conv1", convolution))
    return [*statements, *([] if has_pool else [_put("maxpool", nn.Identity())])]


def changes(theirs: nn.Module, ours: nn.Module) -> list[str]:
    """Returns the statements that change `model` from their network into ours.

    Args:
        theirs: the library's network; its strides are changed.
        ours: a network that was made of one like it.
    """
    return list(_changes("", theirs, ours))


def _changes(name: str, theirs: nn.Module, ours: nn.Module) -> Iterator[str]:
    """Yields the statements for the modules of this name and all below them."""
    stride: Any = getattr(ours, "stride", None)
    is_of_a_kind = type(theirs) is type(ours)
    if is_of_a_kind and getattr(theirs, "stride", None) != stride:
        theirs.stride = stride
        if _looks(theirs) == _looks(ours):
            yield f"model.get_submodule({name!r}).stride = {stride!r}"
    if not is_of_a_kind or _looks(theirs) != _looks(ours):
        yield _put(name, ours)
        return
    children = zip(theirs.named_children(), ours.children(), strict=True)
    for (child, their_module), our_module in children:
        yield from _changes(f"{name}.{child}" if name else child, their_module, our_module)


def _looks(module: nn.Module) -> tuple[str, list[str]]:
    """Returns what tells modules of one type apart: torch's own settings, and what is in them."""
    is_torchs = type(module).__module__.startswith("torch.nn.")
    return module.extra_repr() if is_torchs else "", [name for name, _ in module.named_children()]


def _put(name: str, module: nn.Module) -> str:
    """Returns the statement that puts a new module like this one in its place."""
    made = _written_module(module)
    return (
        f"model.{name} = {made}"
        if name.isidentifier()
        else f"model.set_submodule({name!r}, {made})"
    )


def _written_module(module: nn.Module) -> str:
    """Returns the expression that makes a module like this one."""
    kind = type(module)
    home = "torch.nn" if getattr(nn, kind.__name__, None) is kind else kind.__module__
    children = map(_written_module, module.children())
    inside = ", ".join(children) if kind is nn.Sequential else module.extra_repr()
    return f"{home}.{kind.__name__}({inside})"


def _written(arguments: Mapping[str, object]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items())
