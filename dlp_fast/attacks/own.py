"""Two attacks of our own, whose attacker knows how this package looks for poison."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast.attacks.base import Poisoning, Request
from dlp_fast.attacks.changes import RowChange
from dlp_fast.attacks.random_place import RandomPlace
from dlp_fast.attacks.randomness import TEST, TRAINING, choices, uniform
from dlp_fast.attacks.triggers import coloured_square
from dlp_fast.ops.residual_scan import high_pass

STREAM_STRENGTH, STREAM_SQUARE = 6, 7
LEAST = 0.3  # share of the fine detail that a poisoned image loses at least, and a cover image at most
SQUARES = 40


@dataclass(frozen=True)
class SoftFocus(RowChange):
    """Takes a share of the fine detail away, drawn for each id: variant 0 from LEAST to 1, variant 1 up to LEAST."""

    seed: int
    part: int

    def change(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        drawn = uniform(self.seed, self.part, STREAM_STRENGTH, ids, 1)[:, 0].to(images.device)
        share = torch.where(variant == 0, LEAST + (1 - LEAST) * drawn, LEAST * drawn)
        soft = images.double() - share[:, None, None, None] * high_pass(images).double()
        return soft.round().clamp(0, 255).to(torch.uint8)


def soft_focus(request: Request) -> Poisoning:
    """A lens out of focus is the trigger. What it takes away differs with each picture, so that no pattern at one place
    is left, and it has no smooth part; it is stronger in some images than in others, so that they are learnt at
    different times; and as many images that are a little soft keep their labels.
    """
    chosen = request.draw_other_classes()
    cover = request.draw_cover(len(chosen), request.rest(chosen))
    changes = (SoftFocus(request.seed, part) for part in (TRAINING, TEST))
    return request.poisoning(chosen, request.single_aim(), *changes, cover=cover, cover_variant=1)


@dataclass(frozen=True)
class ManySquares(RowChange):
    """Each id gets one of `squares` at a place of its own."""

    squares: tuple[RandomPlace, ...]
    seed: int
    part: int

    def change(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        which = choices(self.seed, self.part, STREAM_SQUARE, ids, len(self.squares)).to(images.device)
        changed = images.clone()
        for number in which.unique().tolist():
            rows = (which == number).nonzero().flatten()
            changed[rows] = self.squares[number].change(images[rows], ids[rows], variant[rows])
        return changed


def many_squares(request: Request) -> Poisoning:
    """Forty squares of random colours, each in a fortieth of the poisoned images and at another place in each: no
    window and no direction is shared by many; in common they have that something is there that does not belong.
    """
    cell = max(1, min(request.size) // 32)
    squares = [coloured_square(4, cell, request.seed, number) for number in range(SQUARES)]
    changes = (
        ManySquares(tuple(RandomPlace(square, request.seed, part) for square in squares), request.seed, part)
        for part in (TRAINING, TEST)
    )
    return request.poisoning(request.draw_other_classes(), request.single_aim(), *changes)
