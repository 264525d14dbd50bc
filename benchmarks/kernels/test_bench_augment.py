"""``augment`` against Pillow in FixMatch's reference settings: one process, and a DataLoader with two workers.

Batches of 448 images (FixMatch's unlabelled batch) at 32 px and of 16 at 224 px, both views, two threads. The
peer draws by `random` as FixMatch's reference does; that our views are Pillow's is asserted on our own draws.
    pytest benchmarks/kernels/test_bench_augment.py --benchmark-enable
"""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from benchmarks.kernels.dali_views import views_pipeline
from benchmarks.kernels.peers import pictures
from benchmarks.kernels.reference_loader import CIFAR, PillowViews
from dlp_fast.data import dali
from dlp_fast.ops import augment, augment_reference

CASES = {32: 448, 224: 16}
BATCHES = 4


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


@pytest.mark.skipif(dali.available() is not None, reason=str(dali.available()))
def test_bench_dali(benchmark, images):
    """DALI's own operators on the CPU, see dali_views.py."""
    benchmark.group = group(images)
    size, batch = images.shape[1], images.numpy()
    pipeline = views_pipeline(lambda: batch, len(batch), size, CIFAR)

    def batches():
        for _ in range(BATCHES):
            weak, strong = (torch.from_numpy(part.as_array()) for part in pipeline.run())
        return weak, strong

    weak, strong = benchmark.pedantic(batches, rounds=3, warmup_rounds=1)
    assert weak.shape == strong.shape == (len(images), 3, size, size)
