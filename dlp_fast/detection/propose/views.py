"""What of an image is scanned: all of it at a small side, and tiles of a large one at its own resolution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dlp_fast.ops import high_pass_residual
from dlp_fast.ops.residual_scan import WEIGHTS

# Images whose residuals are worked out at once, whatever batches they were read in.
CHUNK = 512


class Images(Protocol):
    """Images by id, uint8 [b, height, width, 3], as the package's storage gives them."""

    height: int
    width: int

    def __len__(self) -> int: ...

    def get(self, ids: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class View:
    """A rectangle of an image, in pixels, and the (height, width) that it is resized to; None: as it is."""

    top: int
    left: int
    height: int
    width: int
    resized: tuple[int, int] | None = None

    def of(self, pixels: Tensor) -> Tensor:
        """uint8 [b, h, w, 3] of uint8 [b, H, W, 3]: cut out, and resized bilinearly with antialiasing."""
        cut = pixels[:, self.top : self.top + self.height, self.left : self.left + self.width]
        if self.resized is None:
            return cut
        planes = cut.permute(0, 3, 1, 2).float()
        small = torch.nn.functional.interpolate(planes, self.resized, mode="bilinear", antialias=True)
        return small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def views_of(height: int, width: int, scan_side: int, tile: int) -> list[View]:
    """The whole image, brought down to `scan_side` where it is larger, and then `tile`-sized tiles that cover it."""
    longest = max(height, width)
    if longest <= scan_side:
        return [View(0, 0, height, width)]
    small = tuple(max(1, round(side * scan_side / longest)) for side in (height, width))
    tiles = [
        View(top, left, min(tile, height), min(tile, width))
        for top in _starts(height, tile)
        for left in _starts(width, tile)
    ]
    return [View(0, 0, height, width, small), *tiles]


def _starts(side: int, tile: int) -> list[int]:
    """Where tiles begin; the last one ends at the border and overlaps its neighbour where it must."""
    last = max(0, side - tile)
    return sorted({*range(0, last + 1, tile), last})


def mean_residual(pixels: Tensor, view: View) -> Tensor:
    """fp32 [h, w, 3]: the mean residual of uint8 [n, H, W, 3] under `view`; residuals of a mean are the mean's."""
    total = sum(view.of(part).long().sum(0) for part in pixels.split(CHUNK))
    mean = total.double() / len(pixels)
    blurred = mean
    for dim in (0, 1):
        size = mean.shape[dim]
        places = torch.arange(size, device=mean.device)
        blurred = sum(
            weight
            / sum(WEIGHTS)
            * blurred.index_select(dim, (places + k - len(WEIGHTS) // 2).clamp(0, size - 1))
            for k, weight in enumerate(WEIGHTS)
        )
    return (mean - blurred).float()


@dataclass(frozen=True)
class ResidualView:
    """A view whose vectors are high-pass residuals less their mean, fp32 [h, w, 3], of length 1."""

    view: View
    mean: Tensor

    def vectors(self, pixels: Tensor) -> Tensor:
        """fp32 [n, P] of uint8 [n, H, W, 3]: see high_pass_residual."""
        return torch.cat([high_pass_residual(self.view.of(part), self.mean) for part in pixels.split(CHUNK)])


def evenly(ids: Tensor, most: int) -> Tensor:
    """At most `most` of `ids`, evenly spread."""
    return ids[torch.linspace(0, len(ids) - 1, min(len(ids), most)).round().long()]


def read(images: Images, ids: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(ids, uint8 [b, H, W, 3]) of `ids`, at most `batch` at a time."""
    for part in ids.split(batch):
        yield part, images.get(part)
