"""``augment`` against Pillow in FixMatch's reference settings: one process, and a DataLoader with two workers.

Batches of 448 images (FixMatch's unlabelled batch) at 32 px and of 16 at 224 px, both views, two threads. The
peer draws by `random` as FixMatch's reference does; that our views are Pillow's is asserted on our own draws.
    pytest benchmarks/test_bench_augment.py --benchmark-enable
"""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, Dataset

from dlp_fast.ops import augment, augment_reference
from dlp_fast.ops.augment_parameters import OPERATIONS
from dlp_fast.ops.augment_reference import apply_operation, flip_and_crop

CASES = {32: 448, 224: 16}
BATCHES = 4
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}


def pictures(n: int, size: int) -> torch.Tensor:
    """Smooth pictures with some noise: histograms like those of photographs."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear") * 235
    noise = torch.randint(0, 20, (n, 3, size, size), generator=generator)
    return (smooth + noise).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


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


@pytest.fixture(autouse=True)
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=CASES, ids=lambda size: f"{size}px")
def images(request) -> torch.Tensor:
    images, ids = pictures(CASES[request.param], request.param), torch.arange(16)
    for ours, wanted in zip(
        augment(images[:16], ids, 0, 1, **CIFAR), augment_reference(images[:16], ids, 0, 1, **CIFAR)
    ):
        assert torch.equal(ours, wanted)
    return images


def group(images: torch.Tensor) -> str:
    return f"augment {BATCHES} x {len(images)} images, {images.shape[1]} px, both views"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_bench_ours(benchmark, images, dtype):
    benchmark.group = group(images)
    ids, size = torch.arange(len(images)), images.shape[1]

    def batches():
        for epoch in range(BATCHES):
            weak, strong = augment(images, ids, epoch, 1, pad=size // 8, dtype=dtype, **CIFAR)
        return weak, strong

    weak, strong = benchmark(batches)
    assert weak.dtype == strong.dtype == dtype


def test_bench_pillow(benchmark, images):
    benchmark.group = group(images)
    torch.set_num_threads(
        1
    )  # tensors of one image are too small to share: two threads only wait for each other
    views = PillowViews(images)

    def batches():
        for _ in range(BATCHES):
            weak, strong = torch.utils.data.default_collate([views[i] for i in range(len(views))])
        return weak, strong

    weak, strong = benchmark.pedantic(batches, rounds=3, warmup_rounds=1)
    assert weak.shape == strong.shape == (len(images), 3, *images.shape[1:3])


def test_bench_pillow_two_workers(benchmark, images):
    """The workers run already; a round is a whole epoch, so none of it is fetched ahead of the clock."""
    benchmark.group = group(images)
    views = torch.utils.data.ConcatDataset([PillowViews(images)] * BATCHES)
    loader = DataLoader(views, len(images), num_workers=2, persistent_workers=True)
    batches = benchmark.pedantic(lambda: sum(1 for _ in loader), rounds=3, warmup_rounds=1)
    assert batches == BATCHES
