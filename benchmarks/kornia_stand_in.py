"""Plain torch in the place of the functions of kornia that the library uses, where kornia is missing.

So a machine that has torch can be measured. The formulas are kornia's; what is drawn is not. Results
say that these functions were in use (`machine.py`).
"""

# B = images, C = channels, H, W = pixels

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import nn

_GREY_WEIGHTS = (0.299, 0.587, 0.114)


def install_if_missing() -> None:
    """Makes `import kornia.augmentation` and `import kornia.enhance` work if kornia is missing."""
    if "kornia" in sys.modules or _is_there():
        return
    augmentation, enhance = ModuleType("kornia.augmentation"), ModuleType("kornia.enhance")
    for one in (RandomGrayscale, RandomGaussianBlur):
        setattr(augmentation, one.__name__, one)
    for adjust in (
        adjust_brightness_accumulative,
        adjust_contrast_with_mean_subtraction,
        adjust_saturation_with_gray_subtraction,
    ):
        setattr(enhance, adjust.__name__, adjust)
    whole = _StandIn("kornia")
    whole.augmentation, whole.enhance = augmentation, enhance
    sys.modules["kornia"] = whole
    sys.modules["kornia.augmentation"] = augmentation
    sys.modules["kornia.enhance"] = enhance


def is_in_use() -> bool:
    """Whether these functions stand in the place of kornia."""
    return isinstance(sys.modules.get("kornia"), _StandIn)


class _StandIn(ModuleType):
    """What `import kornia` finds."""

    augmentation: ModuleType
    enhance: ModuleType


def _is_there() -> bool:
    try:
        return importlib.util.find_spec("kornia") is not None
    except ImportError:
        return False


def _per_image(factor_B: torch.Tensor) -> torch.Tensor:
    return factor_B.view(-1, 1, 1, 1)


def _grey(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Returns the brightness of RGB images, B x 1 x H x W."""
    weights_C11 = torch.tensor(_GREY_WEIGHTS, device=images_BCHW.device).view(-1, 1, 1)
    return (images_BCHW * weights_C11).sum(1, keepdim=True)


def adjust_brightness_accumulative(
    images_BCHW: torch.Tensor, factor_B: torch.Tensor
) -> torch.Tensor:
    """Returns images in 0..1 times a factor each."""
    return (images_BCHW * _per_image(factor_B)).clamp(0.0, 1.0)


def adjust_contrast_with_mean_subtraction(
    images_BCHW: torch.Tensor, factor_B: torch.Tensor
) -> torch.Tensor:
    """Returns images in 0..1 whose distance from their mean brightness is multiplied."""
    factor_B111 = _per_image(factor_B)
    grey_BCHW = _grey(images_BCHW) if images_BCHW.shape[1] == 3 else images_BCHW
    mean_B111 = grey_BCHW.mean((1, 2, 3), keepdim=True)
    return (images_BCHW * factor_B111 + mean_B111 * (1.0 - factor_B111)).clamp(0.0, 1.0)


def adjust_saturation_with_gray_subtraction(
    images_BCHW: torch.Tensor, factor_B: torch.Tensor
) -> torch.Tensor:
    """Returns RGB images in 0..1 whose distance from grey is multiplied."""
    factor_B111 = _per_image(factor_B)
    grey_B1HW = _grey(images_BCHW)
    return (images_BCHW * factor_B111 + grey_B1HW * (1.0 - factor_B111)).clamp(0.0, 1.0)


class RandomGrayscale(nn.Module):
    """Drops the colours of some images."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Returns images of which a share of p is grey."""
        chosen_B = (torch.rand(len(images_BCHW)) < self.p).to(images_BCHW.device)
        return torch.where(_per_image(chosen_B), _grey(images_BCHW), images_BCHW)


class RandomGaussianBlur(nn.Module):
    """Blurs some images, each by a width of its own."""

    def __init__(
        self, kernel_size: tuple[int, int], sigma: tuple[float, float], p: float = 0.5
    ) -> None:
        super().__init__()
        self.side = kernel_size[0]
        self.sigma = sigma
        self.p = p

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Returns images of which a share of p is blurred."""
        batch, channels = images_BCHW.shape[:2]
        chosen_B = (torch.rand(batch) < self.p).to(images_BCHW.device)
        width_B = torch.empty(batch).uniform_(*self.sigma).to(images_BCHW.device)
        half = self.side // 2
        offsets_K = torch.arange(-half, half + 1, device=images_BCHW.device)
        weights_BK = torch.exp(-(offsets_K**2) / (2.0 * width_B[:, None] ** 2))
        weights_BK = weights_BK / weights_BK.sum(1, keepdim=True)
        kernels_PK = weights_BK.repeat_interleave(channels, dim=0)  # P = B * C planes
        planes = batch * channels
        padded = F.pad(images_BCHW, (half, half, half, half), mode="reflect").flatten(0, 1)[None]
        across = F.conv2d(padded, kernels_PK.view(planes, 1, 1, -1), groups=planes)
        blurred = F.conv2d(across, kernels_PK.view(planes, 1, -1, 1), groups=planes)
        return torch.where(_per_image(chosen_B), blurred.view_as(images_BCHW), images_BCHW)
