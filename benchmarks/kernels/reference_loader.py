"""What a user would write otherwise: FixMatch's reference settings with Pillow, DataLoader workers and an eager loop.

Our own code in the shape of the reference (64 labeled images a step, mu = 7, RandAugment of two operations drawn by
`random`, cutout of 16 px, everything one image at a time in worker processes).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision.transforms import v2

from dlp_fast.ops.augment_parameters import OPERATIONS
from dlp_fast.ops.augment_reference import apply_operation, flip_and_crop

CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}


class PillowViews(Dataset):
    """Both views of one image at a time as FixMatch's reference makes them: Pillow, then a normalised tensor."""

    def __init__(self, images: torch.Tensor):
        self.images = [Image.fromarray(image.numpy()) for image in images]
        self.mean, self.std = (torch.tensor(CIFAR[k]).view(3, 1, 1) for k in ("mean", "std"))

    def __len__(self) -> int:
        return len(self.images)

    def weak(self, image: Image.Image) -> Image.Image:
        pad = image.width // 8
        return flip_and_crop(
            image, random.random() < 0.5, random.randint(0, 2 * pad), random.randint(0, 2 * pad), pad
        )

    def strong(self, image: Image.Image) -> Image.Image:
        image = self.weak(image)
        for _ in range(2):
            operation, level = random.choice(OPERATIONS), random.randint(1, 9)
            if random.random() < 0.5:
                image = apply_operation(image, operation, level, random.random() < 0.5)
        image = image.copy()
        x, y = (int(max(0, random.uniform(0, side) - 8)) for side in image.size)
        box = (x, y, min(image.width, x + 16), min(image.height, y + 16))
        ImageDraw.Draw(image).rectangle(box, (127, 127, 127))
        return image

    def tensor(self, image: Image.Image) -> torch.Tensor:
        return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255) - self.mean) / self.std

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.tensor(self.weak(self.images[i])), self.tensor(self.strong(self.images[i]))


class FileViews(PillowViews):
    """The same from files: decoded, the shorter side resized to `size`, the centre cropped."""

    def __init__(self, files: list[Path], size: int):
        super().__init__(torch.empty(0, size, size, 3, dtype=torch.uint8))
        self.files = files
        self.fit = v2.Compose([v2.Resize(size), v2.CenterCrop(size)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = self.fit(Image.open(self.files[i]).convert("RGB"))
        return self.tensor(self.weak(image)), self.tensor(self.strong(image))


class Labeled(PillowViews):
    """Weak view and label."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor):
        super().__init__(images)
        self.labels = labels

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.tensor(self.weak(self.images[i])), int(self.labels[i])


def endless(dataset: Dataset, batch: int, workers: int) -> Iterator:
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**9)
    return iter(DataLoader(dataset, batch, sampler=sampler, num_workers=workers, drop_last=True))


def fixmatch_loop(
    model: torch.nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    workers: int,
    batch: int = 64,
    mu: int = 7,
    device: str = "cpu",
) -> Callable[[int], None]:
    """A function that takes `steps` steps of FixMatch as the reference does: eager, NCHW; fp32 on a CPU, bf16
    AMP on a GPU.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.03, momentum=0.9, nesterov=True, weight_decay=5e-4)
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999), use_buffers=True
    )
    labeled = endless(Labeled(images, labels), batch, workers)
    unlabeled = endless(PillowViews(images), batch * mu, workers)
    cross_entropy = torch.nn.functional.cross_entropy

    def run(steps: int) -> None:
        for _ in range(steps):
            x, y = next(labeled)
            weak, strong = next(unlabeled)
            views = torch.cat([x, weak, strong]).to(device, non_blocking=True)
            y = y.to(device, non_blocking=True)
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                logits = model(views)
            logits = logits.float()
            of_weak, of_strong = logits[batch:].chunk(2)
            confidence, pseudo = of_weak.detach().softmax(1).max(1)
            mask = (confidence >= 0.95).float()
            loss = cross_entropy(logits[:batch], y)
            loss = loss + (cross_entropy(of_strong, pseudo, reduction="none") * mask).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            average.update_parameters(model)

    return run
