"""Colour jitter with an order of its own for every image, as published (Chen et al. 2020).

kornia's `ColorJitter` draws one order of the four adjustments for a whole batch. A batch then sees
one of 24 orders, where the published recipe, which works image by image, mixes them all.
"""

# B = images in the batch, C = channels, H, W = pixels

from __future__ import annotations

import kornia.enhance as E
import torch

from dogo_fed.data.to_device import to_device


class ColourJitter(torch.nn.Module):
    """Changes brightness, contrast, saturation and hue of images, in a random order for each.

    The adjustments are kornia's, which are torchvision's formulas; that of the hue is ours, since
    kornia's took most of a view's time on a CPU. Everything is drawn on the CPU from torch's default
    generator, so it is the same for any device. Which rows an adjustment is for is known there too,
    so that no turn waits for the device.
    """

    def __init__(
        self, brightness: float, contrast: float, saturation: float, hue: float, p: float
    ) -> None:
        """Sets how far the colours may go.

        Args:
            brightness: factors are uniform in [max(0, 1 - brightness), 1 + brightness].
            contrast: the same for contrast.
            saturation: the same for saturation.
            hue: shifts are uniform in [-hue, hue] of the colour circle; at most 0.5.
            p: probability of jittering an image at all.
        """
        super().__init__()
        spreads = (brightness, contrast, saturation)
        self.ranges = [(max(0.0, 1.0 - most), 1.0 + most) for most in spreads] + [(-hue, hue)]
        self.p = p

    def forward(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Returns jittered copies of images in 0..1."""
        device, turns = images_BCHW.device, self._drawn(len(images_BCHW))
        jittered_BCHW = images_BCHW.clone()
        if not turns:
            return jittered_BCHW
        lengths = [len(rows) for _, rows, _ in turns]
        all_rows = to_device(torch.cat([rows for _, rows, _ in turns]), device)
        all_factors = to_device(torch.cat([factors for _, _, factors in turns]), device)
        there = zip(torch.split(all_rows, lengths), torch.split(all_factors, lengths), strict=True)
        for (which, _, _), (rows, factors) in zip(turns, there, strict=True):
            jittered_BCHW[rows] = _ADJUSTMENTS[which](jittered_BCHW[rows], factors)
        return jittered_BCHW

    def _drawn(self, batch: int) -> list[tuple[int, torch.Tensor, torch.Tensor]]:
        """Returns the adjustments in their order: the number, the rows of its images, the factors."""
        chosen_B = torch.rand(batch) < self.p
        factors_4B = [torch.empty(batch).uniform_(*ends) for ends in self.ranges]
        order_B4 = torch.rand(batch, 4).argsort(dim=1)
        turns = []
        for turn in range(4):
            for which in range(len(_ADJUSTMENTS)):
                if self.ranges[which] in ((0.0, 0.0), (1.0, 1.0)):  # would change nothing
                    continue
                rows = (chosen_B & (order_B4[:, turn] == which)).nonzero()[:, 0]
                if len(rows) > 0:
                    turns.append((which, rows, factors_4B[which][rows]))
        return turns


def _shift_hue(images_BCHW: torch.Tensor, turns_B: torch.Tensor) -> torch.Tensor:
    """Returns RGB images with their colours moved by shares of the colour circle.

    Value and saturation stay (Smith 1978, "Color gamut transform pairs", HSV). A channel is the value
    less a share of the span between the largest and the smallest, and the share depends on the hue
    alone; so there are no cases for the six sectors of the circle.
    """
    red_BHW, green_BHW, blue_BHW = images_BCHW.unbind(1)
    value_BHW = torch.maximum(torch.maximum(red_BHW, green_BHW), blue_BHW)
    least_BHW = torch.minimum(torch.minimum(red_BHW, green_BHW), blue_BHW)
    span_BHW = value_BHW - least_BHW
    divisor_BHW = torch.where(span_BHW == 0.0, 1.0, span_BHW)  # grey has no hue, and stays
    sixths_BHW = torch.where(
        value_BHW == red_BHW,
        (green_BHW - blue_BHW) / divisor_BHW,
        torch.where(
            value_BHW == green_BHW,
            (blue_BHW - red_BHW) / divisor_BHW + 2.0,
            (red_BHW - green_BHW) / divisor_BHW + 4.0,
        ),
    )
    turned_BHW = sixths_BHW + turns_B[:, None, None] * 6.0
    channels = []
    for start in (5.0, 3.0, 1.0):
        place_BHW = torch.remainder(turned_BHW + start, 6.0)
        share_BHW = torch.minimum(place_BHW, 4.0 - place_BHW).clamp_(0.0, 1.0)
        channels.append(value_BHW - span_BHW * share_BHW)
    return torch.stack(channels, dim=1)


_ADJUSTMENTS = (
    E.adjust_brightness_accumulative,
    E.adjust_contrast_with_mean_subtraction,
    E.adjust_saturation_with_gray_subtraction,
    _shift_hue,
)
