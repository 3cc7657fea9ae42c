"""Features of a frozen backbone: every image once, in order, and nothing else changes."""

# B = images in a batch, C = channels, H, W = pixels, N = images in the source, F = features

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch

from dogo_fed.data.source import NO_LABEL, ImageSource
from dogo_fed.errors import ConfigError, DataError, EvaluationError
from dogo_fed.evaluation.pulse import beat
from dogo_fed.seeding import stream


class FrozenFeatures(NamedTuple):
    """Features and labels of the same images, row for row.

    Attributes:
        features_NF: float32, on the CPU.
        labels_N: int64; -1 where the class is not known.
    """

    features_NF: torch.Tensor
    labels_N: torch.Tensor

    def labelled(self, purpose: str) -> FrozenFeatures:
        """Returns the images whose class is known.

        Args:
            purpose: what they are for; goes into the error message.

        Raises:
            DataError: not one image has a label, or features and labels do not belong together.
        """
        if self.features_NF.ndim != 2 or self.labels_N.shape != self.features_NF.shape[:1]:
            raise DataError(
                f"{purpose}: features of shape {tuple(self.features_NF.shape)} do not go with "
                f"labels of shape {tuple(self.labels_N.shape)}; N x F and N were expected"
            )
        known_N = self.labels_N != NO_LABEL
        if not known_N.any():
            raise DataError(
                f"{purpose}: none of the {len(self.labels_N)} images has a label (all are "
                f"{NO_LABEL}); evaluate on a data set with labels"
            )
        if (self.labels_N[known_N] < 0).any():
            raise DataError(
                f"{purpose}: labels must be classes from 0, or {NO_LABEL} for an unlabelled "
                f"image; found {int(self.labels_N.min())}"
            )
        return self.rows(known_N)

    def rows(self, chosen: torch.Tensor) -> FrozenFeatures:
        """Returns some of the images, by their ids or by a mask."""
        return FrozenFeatures(self.features_NF[chosen], self.labels_N[chosen])


@contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Puts `module` in eval mode inside the block; every submodule gets its own mode back."""
    modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, training in modes:
            submodule.training = training


def mark_pass(backbone: torch.nn.Module) -> None:
    """Says that a pass of its own begins, if the backbone or a part of it is compiled.

    Where passes are recorded (cuda_graphs), each batch would else be recorded as a continuation of
    the one before.
    """
    if any(module._compiled_call_impl is not None for module in backbone.modules()):
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]


def extract_features(
    backbone: torch.nn.Module,
    source: ImageSource,
    normalise: Callable[[torch.Tensor], torch.Tensor],
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> FrozenFeatures:
    """Returns the features of every image of `source`, in order, with the labels.

    Eval mode and no gradient inside; parameters, buffers, the mode of each submodule and the random
    state are as before afterwards. A backbone that draws random numbers even in eval mode gets the
    same ones at every call.

    Args:
        backbone: maps B x C x H x W to B x F (more dimensions are flattened); already on `device`.
        source: the images; the last batch may be smaller, none is dropped.
        normalise: maps uint8 B x C x H x W on `device` to what the backbone expects.
        batch_size: images in a forward pass; does not change the result.
        device: where the backbone is.

    Raises:
        ConfigError: the batch size is not positive.
        DataError: the source has no images.
        EvaluationError: a feature is not finite.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size of the evaluation must be at least 1, not {batch_size}")
    if len(source) == 0:
        raise DataError("no features to extract: the image source is empty")
    device = torch.device(device)
    batches = []
    with (
        evaluation_mode(backbone),
        torch.no_grad(),
        stream(0, "evaluation", "features", device=device),
    ):
        for ids_B in torch.split(torch.arange(len(source)), batch_size):
            images_BCHW = normalise(source.images(ids_B).to(device))
            mark_pass(backbone)
            features_BF = backbone(images_BCHW).flatten(start_dim=1)
            batches.append(features_BF.to(device="cpu", dtype=torch.float32))
            beat()
    features_NF = torch.cat(batches)
    _check_finite(features_NF)
    return FrozenFeatures(features_NF, source.labels.to(device="cpu", dtype=torch.int64))


def _check_finite(features_NF: torch.Tensor) -> None:
    """Raises EvaluationError if a feature is not finite; an accuracy would mean nothing."""
    broken_N = ~features_NF.isfinite().all(dim=1)
    if broken_N.any():
        first = int(broken_N.nonzero()[0])
        raise EvaluationError(
            f"the backbone gives features that are not finite for {int(broken_N.sum())} of "
            f"{len(features_NF)} images (first: {first}); it has probably diverged"
        )
