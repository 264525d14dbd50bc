"""From ids to network input: order of training, normalised pictures, weak and strong views.

Everything drawn here is a function of (seed, pass, id): the same for any batch size, worker or rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from dlp_fast import ops
from dlp_fast.data.randomness import permutation
from dlp_fast.models.starting import StartingWeights


class Images(Protocol):
    """Pictures by id; see dlp_fast.data.storage."""

    height: int
    width: int

    def get(self, ids: Tensor) -> Tensor: ...

    def expect(self, ids: Tensor) -> None: ...

    def __len__(self) -> int: ...


def training_order(seed: int, stream: int, epoch: int, n: int) -> Tensor:
    """A permutation of 0..n-1, int64; `stream` keeps the stages apart."""
    return permutation(seed + (stream << 56), epoch, n)


class Cycle:
    """Endless batches over `ids`: one permutation after the other, no id twice before all came once."""

    def __init__(self, ids: Tensor, batch: int, seed: int, stream: int):
        self.ids, self.batch, self.seed, self.stream = ids, batch, seed, stream
        self._orders: dict[int, Tensor] = {}

    def _order(self, number: int) -> Tensor:
        if number not in self._orders:
            recent = {k: v for k, v in self._orders.items() if k >= number - 1}
            order = self.ids[training_order(self.seed, self.stream, number, len(self.ids))]
            self._orders = {**recent, number: order}
        return self._orders[number]

    def at(self, step: int) -> Tensor:
        """Ids of batch number `step`, int64 [batch]."""
        n, parts, start, left = len(self.ids), [], step * self.batch, self.batch
        while left:
            number, place = divmod(start, n)
            part = self._order(number)[place : place + left]
            parts.append(part)
            start, left = start + len(part), left - len(part)
        return torch.cat(parts)


@dataclass(frozen=True)
class TrainingData:
    """The image set as the stages see it: pictures, labels, and how to present them to the network.

    labels: int64 [n] on the CPU; mean, std: of the pixels in 0..1, three numbers; flip: whether a mirrored picture
    keeps its class; classes: how many; start: weights that networks for it start from, None: new ones.
    """

    images: Images
    labels: Tensor
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool
    seed: int
    device: torch.device
    start: StartingWeights | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def expect(self, ids: Tensor) -> None:
        """Let the loader begin with the batch that comes next, while the network works on this one."""
        self.images.expect(ids)

    def plain(self, ids: Tensor) -> Tensor:
        """Normalised fp32 [b, 3, H, W] in channels-last memory format."""
        return normalise(self.images.get(ids).to(self.device), self.mean, self.std)

    def views(self, ids: Tensor, epoch: int, strong: bool) -> tuple[Tensor, Tensor | None]:
        """Weak view, and the strong view of FixMatch where asked for, normalised fp32 channels-last."""
        images = self.images.get(ids).to(self.device)
        size = min(images.shape[1:3])
        return ops.augment(
            images,
            ids.to(self.device, non_blocking=True),
            epoch,
            self.seed,
            flip=self.flip,
            pad=max(1, size // 8),  # 4 at 32 px, as published
            cutout=max(2, size // 2),  # 16 at 32 px, as published
            mean=self.mean,
            std=self.std,
            strong=strong,
        )

    def target(self, ids: Tensor) -> Tensor:
        return self.labels[ids].to(self.device, non_blocking=True)

    def other_label(self, ids: Tensor) -> Tensor:
        """For each image a class that is not its label, int64 [b], each as likely: a function of the id alone."""
        shift = 1 + (ids * 2_654_435_761 % 2**32 >> 8) % max(self.classes - 1, 1)
        return ((self.labels[ids] + shift) % self.classes).to(self.device, non_blocking=True)


def normalise(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 [b, H, W, 3] to fp32 [b, 3, H, W], (x/255 - mean) / std; a view of NHWC memory, so channels-last."""
    x = images.to(torch.float32)
    x = (x / 255 - _on_device(mean, x.device)) / _on_device(std, x.device)
    return x.permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def _on_device(values: tuple[float, ...], device: torch.device) -> Tensor:
    """Kept, since a copy to a GPU for each batch would wait for it each time."""
    return torch.tensor(values, dtype=torch.float32, device=device)


def pixel_statistics(images: Images, sample: int = 10_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel in 0..1, over `sample` images evenly spread over the ids."""
    ids = torch.linspace(0, len(images) - 1, min(len(images), sample)).round().long().unique()
    total = torch.zeros(3, dtype=torch.float64)
    squares = torch.zeros(3, dtype=torch.float64)
    for part in ids.split(512):
        x = images.get(part).cpu().to(torch.float64) / 255
        total += x.mean((1, 2)).sum(0)
        squares += (x * x).mean((1, 2)).sum(0)
    mean = total / len(ids)
    std = (squares / len(ids) - mean**2).clamp_min(1e-4).sqrt()
    return tuple(mean.tolist()), tuple(std.tolist())
