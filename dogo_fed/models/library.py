"""Any classifier of timm or torchvision as a backbone, by its name there and without its classifier.

Nothing is downloaded: weights are always the library's random initialisation. Below 100 pixels the
first two halvings of the input are taken out, found by watching one forward pass. So a network for
ImageNet ends at 1/8 of the input instead of 1/32, whatever its family. Networks that are made for
one image size (vision transformers, MLP-Mixer) are built for the size at hand and otherwise left as
they are; their resolution is their patch size, which is an option of theirs.
"""

# N = images, C, H, W = channels and pixels, F = feature dimension

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import nn

from dogo_fed.components import close_matches
from dogo_fed.errors import ConfigError
from dogo_fed.models.stem import LARGEST_SMALL_KERNEL, is_small, note_halvings_taken_out

FACTOR_TAKEN_OUT = 4
"""Small images are halved less often than ImageNet's, by this factor in all (stem_stride apart)."""
NOT_OPTIONS = {
    "pretrained": "backbones start untrained, and nothing is downloaded",
    "weights": "backbones start untrained, and nothing is downloaded",
    "checkpoint_path": "backbones start untrained",
    "num_classes": "a backbone has no classifier",
    "features_only": "a backbone gives pooled features",
    "in_chans": "the data set says how many channels there are",
}
CLASSIFIERS = ("fc", "classifier", "head", "heads")
"""What torchvision's models call their classifier."""
NEEDS_OPTIONS: dict[str, dict[str, object]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}
"""Options of torchvision's models that leave out auxiliary classifiers, which nothing trains here."""
OURS = ("stem_stride", "imagenet_stem")
"""Options that the libraries do not get."""
_POOLS = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Flatten)


def timm_model(
    model: str,
    /,
    *,
    image_size: int,
    in_channels: int = 3,
    stem_stride: int = 1,
    imagenet_stem: bool = False,
    **options: Any,
) -> nn.Module:
    """Returns a model of timm with its own pooling and without a classifier, untrained.

    Args:
        model: a name in `timm.list_models()`.
        image_size: side of the images in pixels.
        in_channels: C.
        stem_stride: stride in place of the first halving, for images below 100 pixels.
        imagenet_stem: leave the strides alone, whatever the image size.
        **options: for timm, such as drop_path_rate, or patch_size of a vision transformer.

    Raises:
        ConfigError: timm is not installed, the model is unknown, or an option asks for weights.
        TypeError, ValueError: timm does not take the options.
    """
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"the backbone 'timm:{model}' needs timm, which can't be imported ({error}); install it: "
            "pip install 'dogo-fed[timm]'"
        ) from error
    _check(f"timm:{model}", model, timm.list_models(), options, "timm.list_models()")
    network: nn.Module = timm.create_model(
        model, pretrained=False, **timm_arguments(model, image_size, in_channels, options)
    )
    is_fixed = imagenet_stem or _is_for_one_size(timm.get_pretrained_cfg(model))
    return keep_resolution(network, image_size, in_channels, stem_stride, is_fixed)


def torchvision_model(
    model: str,
    /,
    *,
    image_size: int,
    in_channels: int = 3,
    stem_stride: int = 1,
    imagenet_stem: bool = False,
    **options: Any,
) -> nn.Module:
    """Returns a classification model of torchvision without its classifier, untrained.

    Features are what the last stage gives, averaged over the image, or a vision transformer's class
    token; a normalisation between that and the classifier is kept, hidden layers are not.

    Args:
        model: a name in `torchvision.models.list_models(torchvision.models)`.
        image_size: side of the images in pixels.
        in_channels: C.
        stem_stride: stride in place of the first halving, for images below 100 pixels.
        imagenet_stem: leave the strides alone, whatever the image size.
        **options: for torchvision, such as stochastic_depth_prob.

    Raises:
        ConfigError: the model is unknown, or an option asks for weights.
        TypeError, ValueError: torchvision does not take the options.
    """
    known = torchvision.models.list_models(torchvision.models)
    listed_by = "torchvision.models.list_models(torchvision.models)"
    _check(f"torchvision:{model}", model, known, options, listed_by)
    network: nn.Module = torchvision.models.get_model(
        model, weights=None, **torchvision_arguments(model, image_size, options)
    )
    _take_classifier_off(model, network)
    take_channels(network, in_channels)
    is_fixed = imagenet_stem or bool(_size_option(model, image_size))
    return keep_resolution(network, image_size, in_channels, stem_stride, is_fixed)


def timm_arguments(
    model: str, image_size: int, in_channels: int, options: Mapping[str, object]
) -> dict[str, Any]:
    """Returns what `timm.create_model` gets besides the model's name and pretrained=False.

    Args:
        model: a model of timm, which has to be installed.
        image_size: side of the images in pixels.
        in_channels: C.
        options: those of timm's own.
    """
    import timm

    fixed_size = _is_for_one_size(timm.get_pretrained_cfg(model))
    size = {"img_size": image_size} if fixed_size else {}
    return {"num_classes": 0, "in_chans": in_channels, **size, **options}


def torchvision_arguments(
    model: str, image_size: int, options: Mapping[str, object]
) -> dict[str, Any]:
    """Returns what a builder of torchvision gets besides weights=None."""
    return {**NEEDS_OPTIONS.get(model, {}), **_size_option(model, image_size), **options}


def take_channels(network: nn.Module, in_channels: int) -> None:
    """Replaces the first convolution of a torchvision model if images do not have 3 channels."""
    name, first = next(
        (name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)
    )
    if first.in_channels != in_channels:
        network.set_submodule(name, _convolution_like(first, in_channels=in_channels))


def keep_resolution(
    network: nn.Module, image_size: int, in_channels: int, stem_stride: int, imagenet_stem: bool
) -> nn.Module:
    """Takes the first halvings out of a network for small images, all branches of one together.

    The first becomes stem_stride, the next 1, until FACTOR_TAKEN_OUT is reached. A first
    convolution that is larger than 3 x 3 becomes 3 x 3, and a pooling without a stride goes.

    Args:
        network: changed in place.
        image_size: side of the images in pixels; from 100 on nothing is changed.
        in_channels: C.
        stem_stride: stride in place of the first halving.
        imagenet_stem: change nothing, whatever the image size.

    Returns:
        The network.

    Raises:
        ValueError: stem_stride < 1.
    """
    if stem_stride < 1:
        raise ValueError(f"stem_stride must be at least 1, not {stem_stride}")
    if imagenet_stem or not is_small(image_size):
        return network
    found = _reductions(network, torch.zeros(1, in_channels, image_size, image_size))
    changed: list[str] = []
    left = FACTOR_TAKEN_OUT
    for level, side in enumerate(dict.fromkeys(reduction.side for reduction in found)):
        if left == 1:
            break
        group = [reduction for reduction in found if reduction.side == side]
        factor = max(reduction.stride for reduction in group)
        stride = stem_stride if level == 0 else max(1, factor // left)
        for reduction in group:
            network.set_submodule(
                reduction.name, _with_stride(reduction.module, stride, is_stem=level == 0)
            )
            changed += [reduction.name] if stride != reduction.stride else []
        left = max(1, left // factor)
    note_halvings_taken_out(network, changed)
    return network


def _check(
    name: str, model: str, known: Iterable[str], options: dict[str, object], listed_by: str
) -> None:
    """Raises ConfigError for a model that is not known, or an option that has no place here."""
    models = list(known)
    if model not in models:
        near = close_matches(model, models)
        raise ConfigError(
            f"unknown backbone {name!r}{near or f'; {listed_by} lists all there are'}"
        )
    for option in options:
        if option in NOT_OPTIONS:
            raise ConfigError(f"backbone {name!r} can't have {option!r}: {NOT_OPTIONS[option]}")


def _is_for_one_size(timm_settings: object) -> bool:
    """Tells whether a timm model is built for one image size, which its `img_size` sets."""
    return bool(getattr(timm_settings, "fixed_input_size", False))


def _size_option(model: str, image_size: int) -> dict[str, object]:
    """Returns the option that tells a torchvision model its image size; most models have none."""
    if model.startswith("vit_"):
        return {"image_size": image_size}
    if model.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def _take_classifier_off(model: str, network: nn.Module) -> None:
    """Replaces the classifier of a torchvision model by what leads to its pooled features."""
    name = next((candidate for candidate in CLASSIFIERS if hasattr(network, candidate)), None)
    if name is None:
        raise ConfigError(
            f"backbone 'torchvision:{model}' has no classifier under any of the names "
            f"{', '.join(CLASSIFIERS)}, so it can't be taken off"
        )
    setattr(network, name, _before_classifier(getattr(network, name)))
    if isinstance(getattr(network, "dropout", None), nn.Dropout):
        network.dropout = nn.Identity()
    pool = getattr(network, "avgpool", None)
    if isinstance(pool, nn.AdaptiveAvgPool2d) and pool.output_size not in (1, (1, 1)):
        network.avgpool = nn.AdaptiveAvgPool2d(1)  # VGG and AlexNet pool to 7 x 7 and 6 x 6


def _before_classifier(head: nn.Module) -> nn.Module:
    """Returns the part of a classifier that still makes features: before its first weights.

    SqueezeNet's classifier is a convolution and then a pooling; the pooling stays.
    """
    kept: list[nn.Module] = []
    past_weights = False
    for layer in head if isinstance(head, nn.Sequential) else [head]:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            past_weights = True
        elif isinstance(layer, _POOLS) or not (past_weights or isinstance(layer, nn.Dropout)):
            kept.append(layer)
    return nn.Sequential(*kept) if kept else nn.Identity()


@dataclass(frozen=True, slots=True)
class _Reduction:
    """A module that makes the map smaller: its name, its stride, and the side of its input."""

    name: str
    module: nn.Module
    stride: int
    side: int


def _reductions(network: nn.Module, image_1CHW: torch.Tensor) -> list[_Reduction]:
    """Returns the modules with a stride above 1 that see the image, in the order in which they do."""
    found: list[_Reduction] = []

    def watch(name: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        stride = _stride_of(module)
        if stride > 1 and isinstance(inputs[0], torch.Tensor) and inputs[0].ndim == 4:
            found.append(_Reduction(name, module, stride, inputs[0].shape[-1]))

    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, name=name: watch(name, module, inputs)
        )
        for name, module in network.named_modules()
        if _stride_of(module) > 1 and not list(module.children())
    ]
    was_training = network.training
    network.eval()
    # A network that halves too often for the image fails, but after the halvings that matter.
    with torch.no_grad(), contextlib.suppress(RuntimeError, ValueError):
        network(image_1CHW)
    network.train(was_training)
    for hook in hooks:
        hook.remove()
    return found


def _stride_of(module: nn.Module) -> int:
    """Returns a module's stride, 1 if it has none."""
    stride = getattr(module, "stride", 1)
    first = stride[0] if isinstance(stride, tuple | list) and stride else stride
    return first if isinstance(first, int) else 1


def _with_stride(module: nn.Module, stride: int, *, is_stem: bool) -> nn.Module:
    """Returns a convolution or pooling with another stride: the same module or one in its place."""
    if not isinstance(module, nn.Conv2d):
        if stride == 1:
            return nn.Identity()
        module.stride = stride  # type: ignore[assignment]
        return module
    if is_stem and type(module) is nn.Conv2d and max(module.kernel_size) > LARGEST_SMALL_KERNEL:
        return _convolution_like(module, kernel=LARGEST_SMALL_KERNEL, stride=stride)
    module.stride = (stride, stride)
    return module


def _convolution_like(
    module: nn.Conv2d,
    *,
    in_channels: int | None = None,
    kernel: int | None = None,
    stride: int | None = None,
) -> nn.Conv2d:
    """Returns a new convolution that differs from another in what is given."""
    return nn.Conv2d(
        module.in_channels if in_channels is None else in_channels,
        module.out_channels,
        module.kernel_size if kernel is None else kernel,  # type: ignore[arg-type]
        module.stride if stride is None else stride,  # type: ignore[arg-type]
        padding=module.padding if kernel is None else kernel // 2,  # type: ignore[arg-type]
        bias=module.bias is not None,
    )
