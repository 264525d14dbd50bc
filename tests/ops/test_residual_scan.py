"""High-pass residuals and window hashes: against float64 and plain Python, and the same bits everywhere."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from dlp_fast.ops import (
    build_info,
    high_pass_residual,
    high_pass_residual_reference,
    native_available,
    window_hashes,
    window_hashes_reference,
)
from dlp_fast.ops.residual_scan import WEIGHTS

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.cuda,
            pytest.mark.skipif(
                not (torch.cuda.is_available() and build_info()["cuda"]), reason="needs a GPU"
            ),
        ],
    ),
]
native = pytest.mark.skipif(not native_available(), reason="the native module is not built")
SHAPES = [
    (5, 32, 32),
    (3, 1, 1),
    (3, 7, 50),
    (2, 50, 7),
    (2, 224, 224),
    (2, 256, 3),
    (1, 256, 256),
    (4, 31, 33),
]


def pictures(n: int, height: int, width: int) -> torch.Tensor:
    """Noise, two values and one value, in turn."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    images = torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)
    images[1::3] = torch.where(images[1::3] > 200, 255, 0).to(torch.uint8)
    images[2::3] = images[2::3, :1, :1]
    return images


def mean_of(height: int, width: int) -> torch.Tensor:
    return torch.randn(height, width, 3, generator=torch.Generator().manual_seed(1)) * 3


def by_numpy(images: torch.Tensor, mean: torch.Tensor) -> np.ndarray:
    """The definition in float64, the blur as one 7 x 7 sum."""
    pixels = images.numpy().astype(np.float64)
    height, width = pixels.shape[1:3]
    padded = np.pad(pixels, ((0, 0), (3, 3), (3, 3), (0, 0)), mode="edge")
    kernel = np.outer(WEIGHTS, WEIGHTS) / sum(WEIGHTS) ** 2
    blurred = sum(kernel[i, j] * padded[:, i : i + height, j : j + width] for i in range(7) for j in range(7))
    rows = (pixels - blurred - mean.numpy()).reshape(len(pixels), -1)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def test_weights_are_a_gaussian_of_one_pixel():
    gaussian = np.exp(-(np.arange(-3, 4) ** 2) / 2)
    assert np.abs(np.array(WEIGHTS) - 256 * gaussian / gaussian.sum()).max() < 0.5
    assert sum(WEIGHTS) == 256


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_residuals_are_the_definition(shape, device):
    images, mean = pictures(*shape), mean_of(*shape[1:])
    got = high_pass_residual(images.to(device), mean.to(device)).cpu()
    assert got.dtype == torch.float32 and got.shape == (shape[0], shape[1] * shape[2] * 3)
    np.testing.assert_allclose(got.numpy(), by_numpy(images, mean), rtol=3e-6, atol=3e-8)


@native
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
def test_residuals_equal_reference(shape, device):
    """On every device the bits are those of the reference on the CPU."""
    images, mean = pictures(*shape), mean_of(*shape[1:])
    for taken in (torch.zeros_like(mean), mean):
        wanted = high_pass_residual_reference(images, taken)
        assert torch.equal(high_pass_residual(images.to(device), taken.to(device)).cpu(), wanted)


@pytest.mark.parametrize("device", DEVICES)
def test_a_constant_image_has_no_residual(device):
    images = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 9, 8, 3).to(device) * 80
    assert not high_pass_residual(images).any()


@pytest.mark.parametrize("device", DEVICES)
def test_the_mean_of_residuals_can_be_taken_off(device):
    """An image less its own residual is nothing."""
    images = pictures(1, 12, 10).to(device)
    own = images[0].double().cpu()
    padded = np.pad(own.numpy(), ((3, 3), (3, 3), (0, 0)), mode="edge")
    kernel = np.outer(WEIGHTS, WEIGHTS) / 65536
    blurred = sum(kernel[i, j] * padded[i : i + 12, j : j + 10] for i in range(7) for j in range(7))
    mean = (own - torch.from_numpy(blurred)).float().to(device)  # exact: fp32 holds the residual
    assert not high_pass_residual(images, mean).any()


def hash_groups(hashes: torch.Tensor) -> set[frozenset[int]]:
    groups: dict[int, set[int]] = {}
    for place, value in enumerate(hashes.flatten().tolist()):
        if value >= 0:
            groups.setdefault(value, set()).add(place)
    return {frozenset(places) for places in groups.values()}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("contrast", [1, 160, 255])
def test_equal_windows_have_equal_hashes_and_others_do_not(contrast, device):
    images = pictures(4, 9, 11) // 100 * 100  # few values: windows repeat
    images[3] = images[0].roll((2, 1), (0, 1))
    got = window_hashes(images.to(device), contrast).cpu()
    assert got.dtype == torch.int64 and got.shape == (4, 7 * 9)
    groups, place, low = {}, 0, []
    for image in images.numpy():
        for y in range(7):
            for x in range(9):
                window = image[y : y + 3, x : x + 3]
                if np.ptp(window.reshape(9, 3).astype(int), axis=0).max() >= contrast:
                    groups.setdefault((window >> 5).tobytes(), set()).add(place)
                else:
                    low.append(place)
                place += 1
    assert hash_groups(got) == {frozenset(places) for places in groups.values()}
    assert bool((got.flatten()[low] == -1).all())


@native
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [s for s in SHAPES if min(s[1:]) >= 3])
def test_hashes_equal_reference(shape, device):
    images = pictures(*shape)
    for contrast in (1, 200, 255):
        wanted = window_hashes_reference(images, contrast)
        assert torch.equal(window_hashes(images.to(device), contrast).cpu(), wanted)


@native
@pytest.mark.parametrize("device", DEVICES)
def test_an_image_is_the_same_in_any_batch_and_layout(device):
    images, mean = pictures(30, 20, 24).to(device), mean_of(20, 24).to(device)
    for op in (lambda x: high_pass_residual(x, mean), lambda x: window_hashes(x, 100)):
        whole = op(images)
        assert torch.equal(whole, torch.cat([op(images[i : i + 1]) for i in range(30)]))
        assert torch.equal(whole[::3], op(images[::3]))
        planar = images.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
        assert torch.equal(whole, op(planar))
        assert len(op(images[:0])) == 0


@native
def test_thread_count_does_not_matter():
    images, threads = pictures(64, 32, 32), torch.get_num_threads()
    try:
        seen = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            seen.append((high_pass_residual(images), window_hashes(images, 100)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in seen[1:] for a, b in zip(seen[0], other))


DIGEST = """
import hashlib, torch
from dlp_fast.ops import high_pass_residual, window_hashes
images = torch.randint(0, 256, (50, 33, 31, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
digest = hashlib.sha256(high_pass_residual(images).numpy().tobytes())
digest.update(window_hashes(images, 230).numpy().tobytes())
print(digest.hexdigest())
"""


@native
def test_instruction_sets_give_the_same_bits():
    """Whatever this processor has of them: the level can be lowered, not raised."""
    digests = set()
    for level in ("baseline", "avx2", ""):
        environment = os.environ | {"DLP_FAST_SIMD": level, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, check=True, capture_output=True, text=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_without_the_native_module(monkeypatch):
    images = pictures(4, 16, 16)
    wanted = high_pass_residual(images), window_hashes(images, 90)
    monkeypatch.setitem(high_pass_residual.__globals__, "native_on", lambda device: False)
    assert torch.equal(high_pass_residual(images), wanted[0])
    assert torch.equal(window_hashes(images, 90), wanted[1])


@native
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [0, 3])
def test_opcheck(batch, device):
    images = pictures(4, 12, 10)[:batch].to(device)
    torch.library.opcheck(torch.ops.dlp_fast.high_pass_residual.default, (images, mean_of(12, 10).to(device)))
    torch.library.opcheck(torch.ops.dlp_fast.window_hashes.default, (images, 100))


IMAGES = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
MEAN = torch.zeros(32, 32, 3)


@pytest.mark.parametrize(
    ("op", "arguments", "error", "match"),
    [
        (high_pass_residual, (IMAGES.numpy(),), TypeError, "images must be a tensor, got ndarray"),
        (high_pass_residual, (IMAGES.float(),), TypeError, "images must be uint8, got torch.float32"),
        (high_pass_residual, (IMAGES[0],), ValueError, r"shape \[b, H, W, 3\], got \[32, 32, 3\]"),
        (high_pass_residual, (IMAGES.new_zeros(1, 257, 8, 3),), ValueError, "1 to 256 pixels .* got 257 x 8"),
        (high_pass_residual, (IMAGES, MEAN.double()), TypeError, "mean must be float32"),
        (
            high_pass_residual,
            (IMAGES, MEAN[1:]),
            ValueError,
            r"mean must have the shape .* got \[31, 32, 3\]",
        ),
        (
            high_pass_residual,
            (IMAGES, MEAN.to("meta")),
            ValueError,
            "mean must be on the device of images, cpu",
        ),
        (window_hashes, (IMAGES[:, :2], 9), ValueError, "3 to 256 pixels .* got 2 x 32"),
        (window_hashes, (IMAGES, 0), ValueError, "contrast must be from 1 to 255, got 0"),
        (window_hashes, (IMAGES, 9.0), TypeError, "contrast must be an int, got float"),
    ],
)
def test_bad_input(op, arguments, error, match):
    with pytest.raises(error, match=match):
        op(*arguments)


@native
@pytest.mark.parametrize(
    ("name", "arguments", "match"),
    [
        ("high_pass_residual", (IMAGES[0], MEAN), "images must have 4 dimensions, got 3"),
        ("high_pass_residual", (IMAGES.float(), MEAN), "images must be uint8"),
        ("high_pass_residual", (IMAGES[:, :, ::2], MEAN), "images must be contiguous"),
        ("high_pass_residual", (IMAGES, MEAN[1:]), "mean must have the shape of one image"),
        ("high_pass_residual", (IMAGES, MEAN.double()), "mean must be float32"),
        ("window_hashes", (IMAGES[:, :2].contiguous(), 9), "images must be 3 to 256 pixels"),
        ("window_hashes", (IMAGES, 256), "contrast must be from 1 to 255"),
    ],
)
def test_the_native_ops_check_too(name, arguments, match):
    with pytest.raises(RuntimeError, match=match):
        getattr(torch.ops.dlp_fast, name)(*arguments)
