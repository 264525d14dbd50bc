"""``high_pass_residual`` and ``window_hashes`` against plain torch; the same bits are asserted first.

The peer of the residuals is what one writes in eager torch: a depthwise convolution in fp32, a subtraction, a norm.
    pytest benchmarks/kernels/test_bench_residual_scan.py --benchmark-enable
"""

from __future__ import annotations

import pytest
import torch

from dlp_fast.ops import (
    high_pass_residual,
    high_pass_residual_reference,
    window_hashes,
    window_hashes_reference,
)
from dlp_fast.ops.residual_scan import WEIGHTS

CASES = {32: 512, 224: 16}
CONTRAST = 160


@pytest.fixture(autouse=True)
def two_threads():
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=CASES, ids=lambda size: f"{size}px")
def images(request) -> torch.Tensor:
    """Smooth pictures with some noise."""
    size, n = request.param, CASES[request.param]
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (size, size), mode="bilinear") * 235
    noise = torch.randint(0, 20, (n, 3, size, size), generator=generator)
    return (smooth + noise).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def eager(images: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor(WEIGHTS, dtype=torch.float32) / sum(WEIGHTS)
    pixels = images.permute(0, 3, 1, 2).float()
    padded = torch.nn.functional.pad(pixels, (3, 3, 3, 3), mode="replicate")
    rows = torch.nn.functional.conv2d(padded, weights.view(1, 1, 1, 7).expand(3, -1, -1, -1), groups=3)
    blurred = torch.nn.functional.conv2d(rows, weights.view(1, 1, 7, 1).expand(3, -1, -1, -1), groups=3)
    return torch.nn.functional.normalize(((pixels - blurred).permute(0, 2, 3, 1) - mean).flatten(1))


def group(op: str, images: torch.Tensor) -> str:
    return f"{op} {len(images)} images, {images.shape[1]} px"


@pytest.fixture
def mean(images) -> torch.Tensor:
    mean = torch.randn(images.shape[1:], generator=torch.Generator().manual_seed(1))
    wanted = high_pass_residual_reference(images[:8], mean)
    assert torch.equal(high_pass_residual(images[:8], mean), wanted)
    torch.testing.assert_close(eager(images[:8], mean), wanted, rtol=1e-3, atol=1e-6)
    return mean


def test_bench_residual_ours(benchmark, images, mean):
    benchmark.group = group("high_pass_residual", images)
    assert benchmark(high_pass_residual, images, mean).shape == (len(images), images[0].numel())


def test_bench_residual_eager(benchmark, images, mean):
    benchmark.group = group("high_pass_residual", images)
    assert benchmark(eager, images, mean).shape == (len(images), images[0].numel())


def test_bench_residual_reference(benchmark, images, mean):
    benchmark.group = group("high_pass_residual", images)
    assert benchmark(high_pass_residual_reference, images, mean).shape == (len(images), images[0].numel())


def test_bench_hashes_ours(benchmark, images):
    benchmark.group = group("window_hashes", images)
    assert torch.equal(window_hashes(images[:8], CONTRAST), window_hashes_reference(images[:8], CONTRAST))
    assert len(benchmark(window_hashes, images, CONTRAST)) == len(images)


def test_bench_hashes_eager(benchmark, images):
    benchmark.group = group("window_hashes", images)
    assert len(benchmark(window_hashes_reference, images, CONTRAST)) == len(images)
