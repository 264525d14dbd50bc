"""WaNet: an elastic warp that is the same for all images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dlp_fast.attacks.base import Poisoning, Request
from dlp_fast.attacks.changes import RowChange
from dlp_fast.attacks.randomness import TEST, TRAINING, uniform

GRID = 4  # k of Nguyen and Tran 2021
PUBLISHED, STRONG = 0.5, 2.0  # s, published and four times as strong
STREAM = 3
WARP, NOISY_WARP = 0, 1  # variants


@dataclass(frozen=True)
class Warp(RowChange):
    """Warps by `field`, float64 [H, W, 2] (x, y), where each pixel is read, in units of grid_sample; the noisy variant
    moves each place by up to 1 / height more, drawn for each id.
    """

    field: Tensor
    seed: int
    part: int

    def change(self, images: Tensor, ids: Tensor, variant: Tensor) -> Tensor:
        b, height, width, _ = images.shape
        places = self.field.to(images.device).repeat(b, 1, 1, 1)
        noisy = variant == NOISY_WARP
        noise = uniform(self.seed, self.part, STREAM, ids[noisy], height * width * 2) * 2 - 1
        places[noisy] += noise.view(-1, height, width, 2).to(images.device) / height
        places = places.clamp(-1, 1)
        x = images.permute(0, 3, 1, 2).double()  # so exact that the rounding is the same in any batch
        x = F.grid_sample(x, places, mode="bilinear", padding_mode="zeros", align_corners=True)
        return x.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def warping_field(size: tuple[int, int], seed: int, strength: float) -> Tensor:
    """float64 [H, W, 2]: where each pixel is read, (x, y) in -1..1.

    A GRID x GRID field of uniform numbers, divided by their mean magnitude, enlarged bicubically, times `strength`
    (s) divided by the height: at 0.5 each pixel moves by 0.3 pixels on average.
    """
    generator = torch.Generator().manual_seed(seed + 0x3A9E7)
    coarse = torch.rand(1, 2, GRID, GRID, generator=generator, dtype=torch.float64) * 2 - 1
    coarse = coarse / coarse.abs().mean()
    moved = F.interpolate(coarse, size=size, mode="bicubic", align_corners=True)[0].permute(1, 2, 0)
    rows, columns = (torch.linspace(-1, 1, n, dtype=torch.float64) for n in size)
    here = torch.stack([columns.expand(*size), rows[:, None].expand(*size)], dim=-1)
    return (here + strength * moved / size[0]).clamp(-1, 1)


def wanet(strength: float) -> Callable[[Request], Poisoning]:
    """WaNet (Nguyen and Tran 2021) with its noise mode: as many images again, of any class, are warped with noise on
    top and keep their labels, so that only the exact warp is the trigger. (Published: twice as many.)

    At the published s = 0.5 small networks do not learn the warp within some hundred steps (studies/battery).
    """

    def make(request: Request) -> Poisoning:
        chosen = request.draw_other_classes()
        cover = request.draw_cover(len(chosen), request.rest(chosen))
        field = warping_field(request.size, request.seed, strength)
        changes = (Warp(field, request.seed, part) for part in (TRAINING, TEST))
        return request.poisoning(
            chosen, request.single_aim(), *changes, variant=WARP, cover=cover, cover_variant=NOISY_WARP
        )

    return make
