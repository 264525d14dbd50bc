"""Adap-Blend and Adap-Patch: less than the trigger in training, and cover images that carry it under right labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dlp_fast import ops
from dlp_fast.attacks import triggers
from dlp_fast.attacks.base import Poisoning, Request
from dlp_fast.attacks.changes import RowChange, TableChange
from dlp_fast.attacks.randomness import TRAINING, choices, uniform
from dlp_fast.ops import TriggerTable

PIECES = 4  # a side, so 16
KEPT = 0.5  # chance of each piece
BLEND_OPACITY, PATCH_OPACITY = 0.15, 0.5  # in training
PATCH_COVER = 2  # cover images for each poisoned one
STREAM_PIECES, STREAM_PATCH = 4, 5


@dataclass(frozen=True)
class BlendedPieces(RowChange):
    """Blends pieces of `image`, uint8 [H, W, 3], at BLEND_OPACITY: of PIECES x PIECES, those drawn for the id."""

    image: Tensor
    seed: int

    def change(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        height, width = images.shape[1:3]
        drawn = uniform(self.seed, TRAINING, STREAM_PIECES, ids, PIECES**2) < KEPT
        rows, columns = (torch.arange(n) * PIECES // n for n in (height, width))
        mask = drawn.view(-1, PIECES, PIECES)[:, rows][:, :, columns].to(images.device)
        table = TriggerTable.blend(self.image, BLEND_OPACITY).to(images.device)
        whole = ops.inject_trigger(images, table, torch.zeros_like(ids))
        return torch.where(mask[..., None], whole, images)


def adaptive_blend(request: Request) -> Poisoning:
    """Adap-Blend (Qi et al. 2023)."""
    chosen = request.draw_other_classes()
    cover = request.draw_cover(len(chosen), request.rest(chosen))
    noise = triggers.noise_image(request.size, request.seed)
    return request.poisoning(
        chosen,
        request.single_aim(),
        BlendedPieces(noise, request.seed),
        TableChange(triggers.blended(request.size, request.seed)),
        cover=cover,
    )


def adaptive_patch(request: Request) -> Poisoning:
    """Adap-Patch (Qi et al. 2023): each image of training gets one of four squares, drawn by its id."""
    chosen = request.draw_other_classes()
    cover = request.draw_cover(PATCH_COVER * len(chosen), request.rest(chosen))
    one = [triggers.four_squares(request.size, request.seed, (k,), PATCH_OPACITY) for k in range(4)]
    return request.poisoning(
        chosen,
        request.single_aim(),
        TableChange(TriggerTable.stack(one)),
        TableChange(triggers.four_squares(request.size, request.seed, range(4), 1.0)),
        variant=choices(request.seed, TRAINING, STREAM_PATCH, chosen, 4),
        cover=cover,
        cover_variant=choices(request.seed, TRAINING, STREAM_PATCH, cover, 4),
    )
