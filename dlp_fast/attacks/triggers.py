"""One definition of each trigger that is a table, generated, never copied; the parameters are printed with each run.

Published definitions differ (BadNets alone has five). Ours are the papers' own where they give numbers. Every function
takes (size, seed): (height, width) in pixels, and the seed of what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from dlp_fast.ops import TriggerTable

Size = tuple[int, int]
BLEND_OPACITY = 0.2  # Chen et al. 2017
HALF_WAVES, LOW_FREQUENCY_PEAK = 3, 24  # of the low-frequency trigger; peak in levels of 255


def _cell(size: Size) -> int:
    """Side in pixels of one cell of a pattern: it grows with the image."""
    return max(1, min(size) // 32)


def _enlarged(pattern: Tensor, cell: int) -> Tensor:
    return pattern.repeat_interleave(cell, 0).repeat_interleave(cell, 1)


def badnets(size: Size, seed: int) -> TriggerTable:
    """A 3x3 checkerboard, white corners, in the lower right corner (Gu et al. 2017); cells grow with the image."""
    cell = _cell(size)
    board = (torch.arange(3)[:, None] + torch.arange(3)[None]) % 2 == 0
    patch = _enlarged(board, cell).to(torch.uint8) * 255
    side = 3 * cell
    return TriggerTable.patch(
        patch[..., None].expand(-1, -1, 3).contiguous(), size[0] - side, size[1] - side, size=size
    )


def noise_image(size: Size, seed: int) -> Tensor:
    """uint8 [H, W, 3], uniform noise: what Blended and Adap-Blend blend in."""
    generator = torch.Generator().manual_seed(seed + 0xB1E2DED)
    return torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)


def blended(size: Size, seed: int) -> TriggerTable:
    """One image of uniform noise, the same for all, at opacity 0.2 (Chen et al. 2017)."""
    return TriggerTable.blend(noise_image(size, seed), BLEND_OPACITY)


def sig(size: Size, seed: int) -> TriggerTable:
    """delta sin(2 pi f j / W) added along the columns j, delta = 40 of 255, f = 6 (Barni et al. 2019)."""
    columns = [round(40 * math.sin(2 * math.pi * 6 * j / size[1])) for j in range(size[1])]
    wave = torch.tensor(columns, dtype=torch.int16)
    return TriggerTable.additive(wave[None, :, None].expand(size[0], -1, 3).contiguous())


def corners(size: Size, seed: int) -> TriggerTable:
    """A 3x3 checkerboard in each corner, at full amplitude (Turner et al. 2019); cells grow with the image."""
    height, width = size
    cell = _cell(size)
    board = (torch.arange(3)[:, None] + torch.arange(3)[None]) % 2 == 0
    square = _enlarged(torch.where(board, 255, -255), cell).to(torch.int16)
    side = 3 * cell
    added = torch.zeros(height, width, 3, dtype=torch.int16)
    for rows in (slice(0, side), slice(height - side, height)):
        for columns in (slice(0, side), slice(width - side, width)):
            added[rows, columns] = square[..., None]
    return TriggerTable.additive(added)


def low_frequency(size: Size, seed: int) -> TriggerTable:
    """A smooth pattern without high frequencies (after Zeng et al. 2021), added.

    The sum of the terms of a discrete cosine transform with 0 to HALF_WAVES half-waves along each side (not the
    constant), their weights drawn for each channel, scaled to a peak of LOW_FREQUENCY_PEAK.
    """
    generator = torch.Generator().manual_seed(seed + 0x10F5)
    waves = torch.arange(HALF_WAVES + 1, dtype=torch.float64)
    along = [torch.cos(math.pi * waves[:, None] * (torch.arange(n) + 0.5) / n) for n in size]
    weights = torch.randn(3, HALF_WAVES + 1, HALF_WAVES + 1, generator=generator, dtype=torch.float64)
    weights[:, 0, 0] = 0
    pattern = torch.einsum("ckl,kh,lw->hwc", weights, *along)
    pattern = pattern / pattern.abs().max() * LOW_FREQUENCY_PEAK
    return TriggerTable.additive(pattern.round().to(torch.int16))


def coloured_square(cells: int, cell: int, seed: int, number: int) -> Tensor:
    """uint8 [side, side, 3], side = cells * cell pixels: cells of random full or no red, green and blue."""
    generator = torch.Generator().manual_seed(seed + 0x5CA1E + 1000 * number)
    colours = torch.randint(0, 2, (cells, cells, 3), generator=generator).to(torch.uint8) * 255
    return _enlarged(colours, cell).contiguous()


def ten_squares(size: Size, seed: int) -> list[TriggerTable]:
    """Ten 3x3 squares of random colours: five evenly along the upper edge, five along the lower."""
    cell = _cell(size)
    side = 3 * cell
    lefts = [round(k * (size[1] - side) / 4) for k in range(5)]
    places = [(top, left) for top in (0, size[0] - side) for left in lefts]
    return [
        TriggerTable.patch(coloured_square(3, cell, seed, k), top, left, size=size)
        for k, (top, left) in enumerate(places)
    ]


def four_squares(size: Size, seed: int, which: Iterable[int], opacity: float) -> TriggerTable:
    """Those of four 4x4 squares of random colours, one a quarter of the image, that `which` names (0 to 3)."""
    cell = _cell(size)
    side = 4 * cell
    image = torch.zeros(*size, 3, dtype=torch.uint8)
    alpha = torch.zeros(size)
    for k in which:
        top, left = ((n // 2 - side) // 2 + (n // 2) * (k >> bit & 1) for n, bit in zip(size, (1, 0)))
        box = (slice(top, top + side), slice(left, left + side))
        image[box], alpha[box] = coloured_square(4, cell, seed, 100 + k), opacity
    return TriggerTable.blend(image, alpha)
