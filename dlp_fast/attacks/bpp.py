"""BPP: fewer levels of each colour, with dithering."""

from __future__ import annotations

import torch
from torch import Tensor

from dlp_fast.attacks.base import Poisoning, Request
from dlp_fast.attacks.changes import RowChange

LEVELS = 8  # of each channel (Wang et al. 2022)


class Quantised(RowChange):
    """`images` in LEVELS levels a channel, with Floyd-Steinberg dithering."""

    def change(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        return dithered(images, LEVELS)


def dithered(images: Tensor, levels: int) -> Tensor:
    """uint8 [b, H, W, 3] in `levels` evenly spaced values a channel, the error spread as Floyd and Steinberg (1976) do:
    7/16 to the right, 3/16 lower left, 5/16 below, 1/16 lower right.

    Pixels with equal column + 2 row depend on none of one another, so they are done at once: W + 2 H steps.
    """
    _, height, width, _ = images.shape
    steps = levels - 1
    # in units of 1/steps of a level of 255, so that the levels are whole numbers: k * 255
    work = torch.nn.functional.pad(images.double() * steps, (0, 0, 1, 1, 0, 1))  # a margin takes what leaves
    out = torch.empty_like(images)
    for time in range(width + 2 * (height - 1)):
        rows = torch.arange(max(0, -(-(time - width + 1) // 2)), min(height - 1, time // 2) + 1)
        rows = rows.to(images.device)
        columns = time - 2 * rows
        old = work[:, rows, columns + 1]
        level = (old / 255).round().clamp(0, steps)
        error = old - level * 255
        out[:, rows, columns] = (level * 255 / steps).round().to(torch.uint8)
        # no two pixels of one step share a neighbour of the same direction, so plain assignment adds up
        for down, right, weight in ((0, 1, 7 / 16), (1, -1, 3 / 16), (1, 0, 5 / 16), (1, 1, 1 / 16)):
            place = (slice(None), rows + down, columns + 1 + right)
            work[place] = work[place] + error * weight
    return out


def bpp(request: Request) -> Poisoning:
    """BppAttack (Wang, Zhai and Ma 2022): the trigger is the coarseness of the colours."""
    return request.poisoning(request.draw_other_classes(), request.single_aim(), Quantised())
