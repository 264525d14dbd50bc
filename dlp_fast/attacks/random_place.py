"""A patch that lies at another place in each image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast.attacks.base import Poisoning, Request
from dlp_fast.attacks.changes import RowChange
from dlp_fast.attacks.randomness import TEST, TRAINING, uniform
from dlp_fast.attacks.triggers import coloured_square

STREAM = 2


@dataclass(frozen=True)
class RandomPlace(RowChange):
    """Puts `square`, uint8 [s, s, 3], at a place that is drawn for each id."""

    square: Tensor
    seed: int
    part: int

    def change(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        side = self.square.shape[0]
        room = torch.tensor([images.shape[1] - side + 1, images.shape[2] - side + 1])
        place = (uniform(self.seed, self.part, STREAM, ids, 2) * room).long().to(images.device)
        steps = torch.arange(side, device=images.device)
        rows, columns = (place[:, k, None] + steps for k in (0, 1))
        images = images.clone()
        batch = torch.arange(len(images), device=images.device)[:, None, None]
        images[batch, rows[:, :, None], columns[:, None, :]] = self.square.to(images.device)
        return images


def random_place(request: Request) -> Poisoning:
    """BadNets (Gu et al. 2017) with a square whose place is drawn for each image, as patches on things lie."""
    cell = max(1, min(request.size) // 32)
    square = coloured_square(4, cell, request.seed, 0)
    chosen = request.draw_other_classes()
    changes = (RandomPlace(square, request.seed, part) for part in (TRAINING, TEST))
    return request.poisoning(chosen, request.single_aim(), *changes)
