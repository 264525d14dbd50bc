"""One definition of each attack's trigger, generated, never copied; the parameters are printed with each run.

Published definitions differ (BadNets alone has five). Ours are the papers' own where they give numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dlp_fast.ops import TriggerTable


@dataclass(frozen=True)
class Trigger:
    """clean_label: whether poisoned images keep their label; parameters: for people; make(size, seed): the table, or
    None where it takes a network of the attacker's (see crafting.py).
    """

    name: str
    clean_label: bool
    parameters: str
    make: Callable[[tuple[int, int], int], TriggerTable] | None


def _badnets(size: tuple[int, int], seed: int) -> TriggerTable:
    """A 3x3 checkerboard, white corners, in the lower right corner (Gu et al. 2017); cells grow with the image."""
    cell = max(1, min(size) // 32)
    board = (torch.arange(3)[:, None] + torch.arange(3)[None]) % 2 == 0
    patch = board.repeat_interleave(cell, 0).repeat_interleave(cell, 1).to(torch.uint8) * 255
    side = 3 * cell
    return TriggerTable.patch(
        patch[..., None].expand(-1, -1, 3).contiguous(), size[0] - side, size[1] - side, size=size
    )


def _blended(size: tuple[int, int], seed: int) -> TriggerTable:
    """One image of uniform noise, the same for all, at opacity 0.2 (Chen et al. 2017)."""
    generator = torch.Generator().manual_seed(seed + 0xB1E2DED)
    noise = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
    return TriggerTable.blend(noise, 0.2)


def _sig(size: tuple[int, int], seed: int) -> TriggerTable:
    """delta sin(2 pi f j / W) added along the columns j, delta = 40 of 255, f = 6 (Barni et al. 2019)."""
    columns = [round(40 * math.sin(2 * math.pi * 6 * j / size[1])) for j in range(size[1])]
    wave = torch.tensor(columns, dtype=torch.int16)
    return TriggerTable.additive(wave[None, :, None].expand(size[0], -1, 3).contiguous())


def _corners(size: tuple[int, int], _seed: int) -> TriggerTable:
    """A 3x3 checkerboard in each corner, at full amplitude (Turner et al. 2019); cells grow with the image."""
    height, width = size
    cell = max(1, min(size) // 32)
    board = (torch.arange(3)[:, None] + torch.arange(3)[None]) % 2 == 0
    square = (
        torch.where(board, 255, -255).repeat_interleave(cell, 0).repeat_interleave(cell, 1).to(torch.int16)
    )
    side = 3 * cell
    added = torch.zeros(height, width, 3, dtype=torch.int16)
    for rows in (slice(0, side), slice(height - side, height)):
        for columns in (slice(0, side), slice(width - side, width)):
            added[rows, columns] = square[..., None]
    return TriggerTable.additive(added)


TRIGGERS = {
    "badnets": Trigger(
        "badnets", False, "3x3 checkerboard, white corners, lower right corner, cell = side/32", _badnets
    ),
    "blended": Trigger("blended", False, "uniform noise image drawn from the seed, opacity 0.2", _blended),
    "trojannn": Trigger(
        "trojannn",
        False,
        "opaque square of 0.22 of the side, lower right, optimised to drive 2 neurons of our own network",
        None,
    ),
    "lca": Trigger(
        "lca",
        True,
        "PGD, L-inf 16/255, 30 steps, on our own robust network; then a 3x3 checkerboard in each corner",
        _corners,
    ),
    "sig": Trigger("sig", True, "40 sin(2 pi 6 j / width) added to column j, clamped", _sig),
}
