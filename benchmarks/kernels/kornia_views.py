"""Both views by kornia: flip and padded crop; then its RandAugment(2, 10) (operations chosen for the batch), cutout."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from benchmarks.kernels.selection_peers import installed

MAGNITUDE = 10


def available() -> bool:
    return installed("kornia")


def views(
    size: int, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """A function of uint8 [n, size, size, 3] that gives the weak and the strong view, bf16 [n, 3, size, size]."""
    from kornia import augmentation
    from kornia.augmentation.auto import RandAugment

    pad = size // 8

    def pipeline(*more: torch.nn.Module) -> torch.nn.Module:
        flip = augmentation.RandomHorizontalFlip(p=0.5)
        crop = augmentation.RandomCrop((size, size), padding=pad, padding_mode="reflect")
        normalise = augmentation.Normalize(torch.tensor(mean), torch.tensor(std))
        return augmentation.AugmentationSequential(flip, crop, *more, normalise)

    share = (16 / size) ** 2
    cutout = augmentation.RandomErasing(scale=(share, share), ratio=(1.0, 1.0), value=0.5, p=1.0)
    both = pipeline(), pipeline(RandAugment(n=2, m=MAGNITUDE), cutout)

    def of(images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.permute(0, 3, 1, 2).float() / 255
        weak, strong = (view(x).to(torch.bfloat16) for view in both)
        return weak, strong

    return of
