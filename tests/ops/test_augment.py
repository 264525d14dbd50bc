"""``augment`` against Pillow, operation by operation, and against what it promises about batches and devices."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from dlp_fast.ops import augment, augment_parameters, augment_reference, build_info, native_available
from dlp_fast.ops.augment import value_table
from dlp_fast.ops.augment_parameters import OPERATIONS, operation_value

SIZES = (8, 31, 32, 64, 224)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CIFAR = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2471, 0.2435, 0.2616)}
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
# the plain view of a single operation: nothing else is drawn
ALONE = {"flip": False, "pad": 0, "operations": 1, "cutout": 0}


def pictures(n: int, height: int, width: int) -> torch.Tensor:
    """Noise, a low-contrast gradient, two values and one value, in turn: histograms of every kind."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    images = torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)
    ramp = torch.linspace(30, 220, width)[None, :, None] * torch.linspace(0.3, 1, height)[:, None, None]
    images[1::4] = (ramp * torch.tensor([1.0, 0.8, 0.55])).to(torch.uint8)
    images[2::4] = torch.where(images[2::4] > 200, 190, 35).to(torch.uint8)
    images[3::4] = images[3::4, :1, :1]
    return images


def as_bytes(view: torch.Tensor) -> torch.Tensor:
    """A float view with mean 0 and std 1 back to uint8 NHWC."""
    return (view.float() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu()


@cache
def ids_of_draws() -> dict[tuple[int, int, bool], int]:
    """For each (operation, level, sign) an id for which it is drawn and carried out (epoch 0, seed 0)."""
    ids = torch.arange(20_000)
    drawn = augment_parameters(ids, 0, 0, height=32, width=32, operations=1)
    found: dict[tuple[int, int, bool], int] = {}
    rows = zip(
        ids.tolist(),
        drawn.operation[:, 0].tolist(),
        drawn.level[:, 0].tolist(),
        drawn.negative[:, 0].tolist(),
    )
    for applied, (id_, *key) in zip(drawn.applied[:, 0].tolist(), rows):
        if applied:
            found.setdefault(tuple(key), id_)
    return found


def by_pillow(pixels: np.ndarray, operation: str, m: int, negative: bool) -> np.ndarray:
    """The operations of FixMatch's reference with their value ranges, written out independently of the package."""
    image = Image.fromarray(pixels)
    sign = -1 if negative else 1
    factor, slope = m * 0.9 / 10 + 0.05, sign * (m * 0.3 / 10)
    affine = {
        "shear_x": (1, slope, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, slope, 1, 0),
        "translate_x": (1, 0, int(slope * image.width), 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, int(slope * image.height)),
    }
    done = {
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "color": lambda: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "equalize": lambda: ImageOps.equalize(image),
        "identity": lambda: image,
        "posterize": lambda: ImageOps.posterize(image, int(m * 4 / 10) + 4),
        "rotate": lambda: image.rotate(sign * int(m * 30 / 10)),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(m * 256 / 10)),
    }
    if operation in affine:
        return np.asarray(image.transform(image.size, Image.Transform.AFFINE, affine[operation]))
    return np.asarray(done[operation]())


@native
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_equals_pillow(operation, size, device):
    draws = [(k, id_) for k, id_ in ids_of_draws().items() if OPERATIONS[k[0]] == operation]
    assert len(draws) == 18  # nine levels, two signs
    kinds = 4 if size < 224 else 1
    images = pictures(len(draws) * kinds, size, size)
    if kinds == 1:
        images = images[torch.arange(len(draws)) % 4]
    ids = torch.tensor([id_ for _, id_ in draws]).repeat_interleave(kinds)
    _, strong = augment(images.to(device), ids.to(device), 0, 0, **ALONE)
    for row, got in enumerate(as_bytes(strong)):
        (_, level, negative), _ = draws[row // kinds]
        wanted = by_pillow(images[row].numpy(), operation, level, negative)
        assert np.array_equal(got.numpy(), wanted), (level, negative, row % kinds)


@native
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "shape", [(90, 32, 32), (40, 8, 8), (40, 31, 33), (24, 64, 40), (5, 224, 224), (4, 256, 256)]
)
def test_views_equal_reference(shape, device):
    images, ids = pictures(*shape).to(device), torch.arange(shape[0], device=device) * 7919 - 13
    for settings in ({}, {"operations": 4, "pad": 7, "cutout": 9, "dtype": torch.bfloat16, **CIFAR}):
        got = augment(images, ids, 3, (1 << 63) + 5, **settings)
        for ours, wanted in zip(got, augment_reference(images, ids, 3, (1 << 63) + 5, **settings)):
            assert torch.equal(ours, wanted)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_normalised_values_and_layout(dtype, device):
    images = torch.arange(256, dtype=torch.uint8).repeat(3, 1).T.reshape(1, 16, 16, 3).contiguous().to(device)
    still = {"flip": False, "pad": 0, "operations": 0, "cutout": 0}
    weak, strong = augment(
        images, torch.zeros(1, dtype=torch.int64, device=device), 0, 0, dtype=dtype, **still, **CIFAR
    )
    mean, std = (torch.tensor(CIFAR[k], dtype=torch.float64).view(3, 1, 1) for k in ("mean", "std"))
    wanted = (images.cpu().double().permute(0, 3, 1, 2) / 255 - mean) / std
    for view in (weak, strong):
        assert view.dtype == dtype and view.shape == (1, 3, 16, 16)
        assert view.is_contiguous(memory_format=torch.channels_last)
        error = (view.cpu().double() - wanted).abs()
        # one rounding to dtype, and fp32's own where x/255 - mean cancels
        assert bool((error <= wanted.abs() * torch.finfo(dtype).eps / 2 + 3e-7).all())


def test_weak_view_only_flips_and_crops():
    images, ids = pictures(32, 12, 9), torch.arange(32)
    weak, strong = augment(images, ids, 1, 2, pad=4, strong=False)
    assert strong is None
    drawn = augment_parameters(ids, 1, 2, height=12, width=9, pad=4)
    for row, got in enumerate(as_bytes(weak)):
        image = images[row].flip(1) if drawn.weak_flip[row] else images[row]
        padded = np.pad(image.numpy(), ((4, 4), (4, 4), (0, 0)), mode="reflect")
        dx, dy = drawn.weak_offset[row].tolist()
        assert np.array_equal(got.numpy(), padded[dy : dy + 12, dx : dx + 9])


def test_cutout_follows_the_reference_rule():
    ids, size = torch.arange(400), 16
    images = torch.zeros(400, 32, 32, 3, dtype=torch.uint8)
    _, strong = augment(images, ids, 0, 9, flip=False, pad=0, operations=0, cutout=size)
    grey = as_bytes(strong) == 127
    assert bool((grey.any(3) == grey.all(3)).all())
    for row, box in enumerate(augment_parameters(ids, 0, 9, height=32, width=32).cutout.tolist()):
        x0, y0, x1, y1 = box
        assert 0 <= x0 < 24 and x1 == min(x0 + size, 31) and 0 <= y0 < 24 and y1 == min(y0 + size, 31)
        wanted = torch.zeros(32, 32, dtype=torch.bool)
        wanted[y0 : y1 + 1, x0 : x1 + 1] = True
        assert torch.equal(grey[row, :, :, 0], wanted)


def test_parameters_have_the_stated_distribution():
    n = 40_000
    drawn = augment_parameters(torch.arange(n), 5, 77, height=32, width=32)
    for flips in (drawn.weak_flip, drawn.strong_flip, drawn.applied, drawn.negative):
        assert abs(flips.double().mean() - 0.5) < 0.01
    assert drawn.level.min() == 1 and drawn.level.max() == 9
    for values, kinds in (
        (drawn.weak_offset, 9),
        (drawn.strong_offset, 9),
        (drawn.operation, 14),
        (drawn.level - 1, 9),
    ):
        share = torch.bincount(values.flatten(), minlength=kinds) / values.numel()
        assert len(share) == kinds and bool((share * kinds - 1).abs().max() < 0.1)
    # independent: two draws of one image, and the weak and the strong view
    pair = torch.stack([drawn.operation[:, 0], drawn.operation[:, 1]]).double()
    assert abs(torch.corrcoef(pair)[0, 1]) < 0.02
    both = torch.stack([drawn.weak_offset[:, 0], drawn.strong_offset[:, 0]]).double()
    assert abs(torch.corrcoef(both)[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("operation", "values"),
    [
        ("brightness", [round(0.09 * m + 0.05, 2) for m in range(1, 10)]),
        ("posterize", [4, 4, 5, 5, 6, 6, 6, 7, 7]),
        ("rotate", list(range(3, 30, 3))),
        ("solarize", [231, 205, 180, 154, 128, 103, 77, 52, 26]),
        ("shear_x", [round(0.03 * m, 2) for m in range(1, 10)]),
        ("translate_x", [int(0.03 * m * 32) for m in range(1, 10)]),
    ],
)
def test_value_ranges(operation, values):
    assert [operation_value(operation, m, side=32) for m in range(1, 10)] == pytest.approx(values)


@native
@pytest.mark.parametrize("device", DEVICES)
def test_an_image_is_the_same_in_any_batch(device):
    images, ids = pictures(50, 32, 32).to(device), torch.randint(0, 1 << 60, (50,), device=device)
    whole = augment(images, ids, 7, 8)
    again = augment(images, ids, 7, 8)
    order = torch.randperm(50, device=device)
    shuffled = augment(images[order], ids[order], 7, 8)
    single = [augment(images[i : i + 1], ids[i : i + 1], 7, 8) for i in range(50)]
    for view in range(2):
        assert torch.equal(whole[view], again[view])
        assert torch.equal(whole[view][order], shuffled[view])
        assert torch.equal(whole[view], torch.cat([s[view] for s in single]))


@native
def test_thread_count_does_not_matter():
    images, ids, threads = pictures(64, 32, 32), torch.arange(64), torch.get_num_threads()
    try:
        views = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            views.append(augment(images, ids, 0, 0))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in views[1:] for a, b in zip(views[0], other))


DIGEST = """
import hashlib, torch
from dlp_fast.ops import augment
images = torch.randint(0, 256, (200, 33, 31, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
digest = hashlib.sha256()
for dtype in (torch.float32, torch.bfloat16):
    for view in augment(images, torch.arange(200), 1, 2, operations=4, dtype=dtype):
        digest.update(view.float().contiguous().numpy().tobytes())
print(digest.hexdigest())
"""


@native
def test_instruction_sets_give_the_same_bits():
    """Whatever this processor has of them: the level can be lowered, not raised."""
    digests = set()
    for level in ("baseline", "avx2", "avx512", ""):
        environment = os.environ | {"DLP_FAST_SIMD": level, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", DIGEST], env=environment, check=True, capture_output=True, text=True
        )
        digests.add(done.stdout)
    assert len(digests) == 1


def test_epoch_seed_and_id_each_change_the_images():
    images, ids = pictures(1, 32, 32).expand(16, -1, -1, -1), torch.arange(16)
    base = augment(images, ids, 0, 0)[1]
    assert len(torch.unique(base.flatten(1), dim=0)) == 16
    for other in (augment(images, ids, 1, 0), augment(images, ids, 0, 1), augment(images, ids + 16, 0, 0)):
        assert not torch.equal(base, other[1])


@pytest.mark.parametrize("device", DEVICES)
def test_empty_and_non_contiguous(device):
    nothing = torch.empty(0, 32, 32, 3, dtype=torch.uint8, device=device)
    weak, strong = augment(nothing, torch.empty(0, dtype=torch.int64, device=device), 0, 0)
    assert weak.shape == strong.shape == (0, 3, 32, 32)
    images, ids = pictures(12, 20, 24).to(device), torch.arange(12, device=device)
    wanted = augment(images[::3].contiguous(), ids[::3].contiguous(), 0, 0)
    from_slices = augment(images[::3], ids[::3], 0, 0)
    planar = images[::3].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    from_planes = augment(planar, ids[::3], 0, 0)
    for view in range(2):
        assert torch.equal(wanted[view], from_slices[view]) and torch.equal(wanted[view], from_planes[view])


def test_images_are_not_written_to():
    images = pictures(8, 32, 32)
    before = images.clone()
    augment(images, torch.arange(8), 0, 0, operations=6)
    assert torch.equal(images, before)


def test_without_the_native_module(monkeypatch):
    images, ids = pictures(6, 32, 32), torch.arange(6)
    wanted = augment(images, ids, 0, 0)
    monkeypatch.setitem(augment.__globals__, "native_on", lambda device: False)
    assert all(torch.equal(a, b) for a, b in zip(wanted, augment(images, ids, 0, 0)))
    assert augment(images, ids, 0, 0, strong=False)[1] is None


@native
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("strong", [True, False])
@pytest.mark.parametrize("batch", [0, 3])
def test_opcheck(batch, strong, device):
    table = value_table((0.0,) * 3, (1.0,) * 3, torch.float16, torch.device(device))
    images, ids = pictures(4, 32, 24)[:batch].to(device), torch.arange(batch, device=device)
    torch.library.opcheck(
        torch.ops.dlp_fast.augment.default, (images, ids, table, 1, 2, True, 4, 2, 10, 16, strong)
    )


IMAGES, IDS = torch.zeros(2, 32, 32, 3, dtype=torch.uint8), torch.arange(2)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"images": IMAGES.numpy()}, TypeError, "images must be a tensor, got ndarray"),
        ({"images": IMAGES.float()}, TypeError, "images must be uint8, got torch.float32"),
        ({"images": IMAGES[0]}, ValueError, r"images must have the shape \[b, H, W, 3\], got \[32, 32, 3\]"),
        (
            {"images": IMAGES.permute(0, 3, 1, 2)},
            ValueError,
            r"images must have the shape .* got \[2, 3, 32, 32\]",
        ),
        ({"images": IMAGES[:, :7]}, ValueError, "images must be 8 to 256 pixels high and wide, got 7 x 32"),
        ({"images": IMAGES.new_zeros(2, 32, 257, 3)}, ValueError, "8 to 256 pixels .* got 32 x 257"),
        ({"ids": IDS.int()}, TypeError, "ids must be int64, got torch.int32"),
        ({"ids": IDS[:1]}, ValueError, r"ids must hold one id for each of the 2 images, got the shape \[1\]"),
        ({"ids": IDS.to("meta")}, ValueError, "ids must be on the device of images, cpu, got meta"),
        ({"epoch": -1}, ValueError, "epoch must be from 0 to 4294967295, got -1"),
        ({"epoch": 1 << 32}, ValueError, "epoch must be from 0 to 4294967295, got 4294967296"),
        ({"epoch": 1.0}, TypeError, "epoch must be an int, got float"),
        ({"seed": 1 << 64}, ValueError, "seed must be from 0 to 18446744073709551615"),
        ({"pad": 32}, ValueError, "pad must be from 0 to 31, got 32"),
        ({"operations": 17}, ValueError, "operations must be from 0 to 16, got 17"),
        ({"magnitude": 1}, ValueError, "magnitude must be from 2 to 10, got 1"),
        ({"magnitude": 11}, ValueError, "magnitude must be from 2 to 10, got 11"),
        ({"cutout": -1}, ValueError, "cutout must be from 0 to 256, got -1"),
        ({"mean": (0.5,)}, ValueError, "mean must hold three numbers, got 1"),
        ({"std": (0.5, 0.0, 0.5)}, ValueError, "std must be above 0"),
        (
            {"dtype": torch.float64},
            TypeError,
            "dtype must be float32, float16 or bfloat16, got torch.float64",
        ),
    ],
)
def test_bad_input(change, error, match):
    arguments = {"images": IMAGES, "ids": IDS, "epoch": 0, "seed": 0} | change
    with pytest.raises(error, match=match):
        augment(**arguments)


@native
@pytest.mark.parametrize(
    ("position", "value", "match"),
    [
        (0, IMAGES[0], "images must have 4 dimensions, got 3"),
        (0, IMAGES.float(), "images must be uint8"),
        (0, IMAGES[:, :, ::2], "images must be contiguous"),
        (0, IMAGES[:, :4].contiguous(), "8 to 256 pixels"),
        (1, IDS[:1], "ids must hold 2 ids"),
        (2, torch.zeros(3, 255), r"table must have the shape \[3, 256\]"),
        (2, torch.zeros(3, 256, dtype=torch.float64), "table must be float32, float16 or bfloat16"),
        (3, -1, "epoch must be in"),
        (6, 32, "pad must be"),
        (7, 17, "operations must be"),
        (8, 11, "magnitude must be"),
        (9, 257, "cutout must be"),
    ],
)
def test_the_native_op_checks_too(position, value, match):
    arguments = [IMAGES, IDS, torch.zeros(3, 256), 0, 0, True, 4, 2, 10, 16, True]
    arguments[position] = value
    with pytest.raises(RuntimeError, match=match):
        torch.ops.dlp_fast.augment(*arguments)
