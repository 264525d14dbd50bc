"""inject_trigger against a float64 oracle and its reference, in every form, and what it refuses."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlp_fast.ops import TriggerTable, inject_trigger, inject_trigger_reference, native_available

face = importlib.import_module("dlp_fast.ops.inject_trigger")
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
FLOATS = [torch.float32, torch.float16, torch.bfloat16]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def batch(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=generator)


def table(height: int, width: int, seed: int = 0) -> TriggerTable:
    """One trigger of each kind; the mask and one residual leave a border of the image alone."""
    g = torch.Generator().manual_seed(seed)

    def pixels(h: int, w: int) -> torch.Tensor:
        return torch.randint(0, 256, (h, w, 3), dtype=torch.uint8, generator=g)

    def residual(h: int) -> torch.Tensor:
        return torch.randint(-300, 301, (h, width, 3), dtype=torch.int16, generator=g)

    mask = torch.rand(height, width, generator=g)
    mask[: height // 3] = 0
    mask[:, width - width // 4 :] = 0
    noise = residual(height)
    noise[:, : width // 2] = 0
    patch = pixels(min(3, height), min(5, width))
    return TriggerTable.stack(
        [
            TriggerTable.patch(patch, height - patch.shape[0], width - patch.shape[1]),
            TriggerTable.blend(pixels(height, width), 0.2),
            TriggerTable.blend(pixels(height, width), mask),
            TriggerTable.additive(noise),
            TriggerTable.additive(residual(1).repeat(height, 1, 1)),
        ]
    )


def numbers(n: int, triggers: int) -> torch.Tensor:
    return torch.arange(n) % (triggers + 1) - 1


def normalised(images: torch.Tensor, mean=MEAN, std=STD) -> torch.Tensor:
    """The definition in float64: [n, 3, H, W]."""
    mean, std = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    return ((images.double() / 255 - mean) / std).permute(0, 3, 1, 2)


# ---- what the numbers are


def test_every_pair_of_bytes_blends_to_the_nearest_level_half_up():
    x = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1).expand(256, 1, 256, 3).contiguous()
    t = torch.arange(256, dtype=torch.uint8).view(1, 256, 1).expand(1, 256, 3).contiguous()
    for alpha in (0.0, 0.1, 0.25, 1 / 3, 0.5, 0.999, 1.0):
        opacity = int(alpha * 32768 + 0.5)
        exact = (x.long() * (32768 - opacity) + t.long() * opacity + 16384) // 32768
        for blend in (
            TriggerTable.blend(t, alpha),
            TriggerTable.blend(t, torch.full((1, 256), alpha).double()),
        ):
            y = inject_trigger(x, blend, torch.zeros(256, dtype=torch.int64))
            assert torch.equal(y.long(), exact), alpha
        wanted = (1 - alpha) * x.double() + alpha * t.double()
        assert (exact.double() - wanted).abs().max() <= 0.5 + 255 / 65536
    half = TriggerTable.blend(t, 0.5)
    up = inject_trigger(x, half, torch.zeros(256, dtype=torch.int64))
    assert torch.equal(up.long(), (x.long() + t.long() + 1) // 2)


def test_every_residual_is_added_and_clamped():
    residual = (
        torch.arange(-32768, 32768, dtype=torch.int32).to(torch.int16).view(256, 256, 1).repeat(1, 1, 3)
    )
    for level in (0, 1, 127, 254, 255):
        images = torch.full((1, 256, 256, 3), level, dtype=torch.uint8)
        y = inject_trigger(images, TriggerTable.additive(residual), torch.zeros(1, dtype=torch.int64))
        assert torch.equal(y[0].long(), (level + residual.long()).clamp(0, 255))


def test_opacity_one_is_the_overlay_and_zero_leaves_the_image():
    images, overlay = batch(1, 9, 7), batch(1, 9, 7, seed=1)[0]
    first = torch.zeros(1, dtype=torch.int64)
    assert torch.equal(inject_trigger(images, TriggerTable.blend(overlay, 1.0), first)[0], overlay)
    assert torch.equal(
        inject_trigger(images, TriggerTable.blend(overlay, torch.ones(9, 7)), first)[0], overlay
    )
    assert torch.equal(inject_trigger(images, TriggerTable.blend(overlay, torch.zeros(9, 7)), first), images)
    assert torch.equal(inject_trigger(images, TriggerTable.blend(overlay, 0), first), images)


@pytest.mark.parametrize("dtype", FLOATS)
def test_normalised_values_are_within_rounding_of_the_definition(dtype):
    images, triggers = batch(12, 33, 17), table(33, 17)
    which = numbers(12, len(triggers))
    out = inject_trigger(images, triggers, which, dtype=dtype, mean=MEAN, std=STD)
    wanted = normalised(inject_trigger(images, triggers, which))
    # fp32: one rounding each of scale, shift, product and sum, all below 4 in magnitude; then the cast
    bound = (
        4 * 4 * 2**-24
        + wanted.abs() * {torch.float32: 0, torch.float16: 2**-11, torch.bfloat16: 2**-8}[dtype]
    )
    assert bool(((out.double() - wanted).abs() <= bound).all())
    assert out.shape == (12, 3, 33, 17) and out.is_contiguous(memory_format=torch.channels_last)


def test_float16_has_torch_rounding_at_subnormals_and_overflow():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 256, 1).repeat(1, 1, 1, 3)
    patch = TriggerTable.patch(torch.zeros(1, 1, 3, dtype=torch.uint8), 0, 0)
    for mean, std in (((0.0,) * 3, (1e5, 4e6, 7e7)), ((0.1, 0.5, 0.9), (1e-5, 3e-6, 1.5258e-5))):
        arguments = {"dtype": torch.float16, "mean": mean, "std": std}
        ours = inject_trigger(images, patch, torch.tensor([-1]), **arguments)
        theirs = inject_trigger_reference(images, patch, torch.tensor([-1]), **arguments)
        assert torch.equal(ours.view(torch.int16), theirs.view(torch.int16))


# ---- the same bits everywhere


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.uint8, *FLOATS])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (8, 8), (32, 32), (37, 53), (130, 16), (224, 224)])
def test_native_equals_reference(device, dtype, size):
    images, triggers = batch(13, *size).to(device), table(*size).to(device)
    which = numbers(13, len(triggers)).to(device)
    arguments = {} if dtype == torch.uint8 else {"mean": MEAN, "std": STD}
    ours = inject_trigger(images, triggers, which, dtype=dtype, **arguments)
    theirs = inject_trigger_reference(images, triggers, which, dtype=dtype, **arguments)
    assert ours.dtype == dtype and ours.stride() == theirs.stride() and torch.equal(ours, theirs)
    cpu = inject_trigger(images.cpu(), triggers.to("cpu"), which.cpu(), dtype=dtype, **arguments)
    assert torch.equal(ours.cpu(), cpu)
    given = torch.empty_like(ours).fill_(7)
    assert inject_trigger(images, triggers, which, out=given, **arguments) is given
    assert torch.equal(given, ours)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(1, 1), (5, 7), (32, 32), (70, 31), (224, 224)])
def test_in_place_equals_out_of_place(device, size):
    images, triggers = batch(13, *size).to(device), table(*size).to(device)
    which = numbers(13, len(triggers)).to(device)
    expected = inject_trigger(images, triggers, which)
    assert inject_trigger(images, triggers, which, out=images) is images
    assert torch.equal(images, expected)


@pytest.mark.parametrize("device", DEVICES)
def test_clean_images_and_their_neighbours_are_left_alone(device):
    wide = batch(9, 20, 20).to(device)
    before, images = wide.clone(), wide[::2]
    which = torch.tensor([-1, 0, -1, 1, -1], device=device)
    triggers = TriggerTable.stack(
        [TriggerTable.patch(batch(1, 4, 4, seed=3)[0], 8, 9), TriggerTable.additive(_dot(20, 20))]
    ).to(device)
    inject_trigger(images, triggers, which, out=images)
    changed = (wide != before).any(-1).nonzero().tolist()
    assert {i for i, _, _ in changed} == {2, 6}
    assert {(r, c) for i, r, c in changed if i == 6} == {(5, 6)}
    assert {(r, c) for i, r, c in changed if i == 2} <= {(r, c) for r in range(8, 12) for c in range(9, 13)}


def _dot(height: int, width: int) -> torch.Tensor:
    residual = torch.zeros(height, width, 3, dtype=torch.int16)
    residual[5, 6] = 255 - 2 * 100
    return residual


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_shape_and_any_table(data):
    height, width, n = (
        data.draw(st.integers(1, 70)),
        data.draw(st.integers(1, 40)),
        data.draw(st.integers(0, 7)),
    )
    seed = data.draw(st.integers(0, 2**31))
    triggers = table(height, width, seed)
    images = batch(n, height, width, seed)
    which = torch.tensor(data.draw(st.lists(st.integers(-1, len(triggers) - 1), min_size=n, max_size=n)))
    which = which.to(data.draw(st.sampled_from([torch.int64, torch.int32])))
    dtype = data.draw(st.sampled_from([torch.uint8, *FLOATS]))
    ours = inject_trigger(images, triggers, which, dtype=dtype)
    assert torch.equal(ours, inject_trigger_reference(images, triggers, which, dtype=dtype))
    again = images.clone()
    twin = inject_trigger_reference(images.clone(), triggers, which)
    assert torch.equal(inject_trigger(again, triggers, which, out=again), twin)


def test_repeats_and_thread_counts_change_no_bit():
    images, triggers = batch(64, 65, 40), table(65, 40)
    which = numbers(64, len(triggers))
    first = inject_trigger(images, triggers, which, dtype=torch.bfloat16)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            for _ in range(5):
                assert torch.equal(inject_trigger(images, triggers, which, dtype=torch.bfloat16), first)
                copy = images.clone()
                inject_trigger(copy, triggers, which, out=copy)
                assert torch.equal(copy, inject_trigger(images, triggers, which))
    finally:
        torch.set_num_threads(threads)


DIGEST = """
import hashlib, torch
from tests.ops.test_inject_trigger import FLOATS, MEAN, STD, batch, numbers, table
from dlp_fast.ops import inject_trigger
images, triggers = batch(20, 45, 61), table(45, 61)
which, digest = numbers(20, len(triggers)), hashlib.sha256()
digest.update(inject_trigger(images, triggers, which).numpy().tobytes())
for dtype in FLOATS:
    out = inject_trigger(images, triggers, which, dtype=dtype, mean=MEAN, std=STD)
    digest.update(out.permute(0, 2, 3, 1).contiguous().view(torch.uint8).numpy().tobytes())
print(digest.hexdigest())
"""


@pytest.mark.skipif(not native_available(), reason="the levels are those of the native kernel")
def test_simd_levels_agree():
    digests = set()
    for level in ("baseline", "avx2", "avx512"):
        done = subprocess.run(
            [sys.executable, "-c", DIGEST],
            env=os.environ | {"DLP_FAST_SIMD": level, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(done.stdout.strip())
    assert len(digests) == 1


# ---- layouts, empties, tables


def test_strided_batches_and_foreign_layouts_are_read():
    triggers = table(10, 12)
    dense = batch(8, 10, 12)
    which = numbers(8, len(triggers))
    expected = inject_trigger(dense, triggers, which)
    for images in (
        dense.repeat_interleave(2, 0)[::2],
        dense.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        torch.nn.functional.pad(dense, (0, 0, 2, 3, 1, 4))[:, 1:11, 2:14],
        dense.flip(0).flip(0),
    ):
        assert torch.equal(inject_trigger(images, triggers, which), expected)
    one = dense[:1].expand(8, 10, 12, 3)
    assert torch.equal(inject_trigger(one, triggers, which), inject_trigger(one.clone(), triggers, which))


@pytest.mark.parametrize("shape", [(0, 8, 8, 3), (4, 0, 8, 3), (4, 8, 0, 3)])
def test_empty_batches(shape):
    images = torch.zeros(shape, dtype=torch.uint8)
    nothing = TriggerTable.additive(torch.zeros(1, 1, 3, dtype=torch.int16))
    triggers = TriggerTable(nothing.records, nothing.overlay, nothing.terms, None, (0, 0))
    which = torch.full((shape[0],), 0)
    assert inject_trigger(images, triggers, which).shape == shape
    assert inject_trigger(images, triggers, which, out=images) is images
    assert inject_trigger(images, triggers, which, dtype=torch.float16).shape == (shape[0], 3, *shape[1:3])


def test_stack_numbers_triggers_in_order_and_keeps_the_size():
    first, second = table(6, 6, seed=1), table(6, 6, seed=2)
    both = TriggerTable.stack([first, second])
    assert len(both) == 10 and both.size == (6, 6) and both.device == torch.device("cpu")
    images = batch(5, 6, 6)
    for start, single in ((0, first), (5, second)):
        which = torch.arange(5)
        assert torch.equal(inject_trigger(images, both, which + start), inject_trigger(images, single, which))


def test_a_patch_without_a_size_goes_on_any_image_that_holds_it():
    triggers = TriggerTable.patch(torch.full((2, 2, 3), 255, dtype=torch.uint8), 1, 1)
    for size in (3, 8):
        out = inject_trigger(torch.zeros(1, size, size, 3, dtype=torch.uint8), triggers, torch.tensor([0]))
        assert int((out == 255).sum()) == 12
    with pytest.raises(ValueError, match="reaches row 3, column 3"):
        inject_trigger(torch.zeros(1, 2, 8, 3, dtype=torch.uint8), triggers, torch.tensor([0]))


def test_sinusoid_is_stored_as_one_row():
    rows = (20 * torch.sin(torch.arange(64) * 0.6)).round().to(torch.int16).view(1, 64, 1).repeat(64, 1, 3)
    assert TriggerTable.additive(rows).terms.numel() < 64 * 64


# ---- registration


@pytest.mark.skipif(not native_available(), reason="native ops are not built")
@pytest.mark.parametrize("device", DEVICES)
def test_opcheck(device):
    images, triggers = batch(4, 8, 8).to(device), table(8, 8).to(device)
    which = numbers(4, len(triggers)).to(device)
    arrays = (which, triggers.records, triggers.overlay, triggers.terms)
    torch.library.opcheck(torch.ops.dlp_fast.inject_trigger_.default, (images, *arrays))
    out = torch.empty(4, 3, 8, 8, device=device, memory_format=torch.channels_last)
    affine = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    torch.library.opcheck(torch.ops.dlp_fast.inject_trigger_out.default, (images, *arrays, affine, out))


# ---- bad input


def call(**changes):
    images = changes.pop("images", torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    triggers = changes.pop("triggers", None) or table(8, 8)
    which = changes.pop("which", torch.zeros(2, dtype=torch.int64))
    out = changes.pop("out", None)
    for function in (inject_trigger_reference, inject_trigger):
        result = function(images, triggers, which, out=images if out == "images" else out, **changes)
    return result


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"images": torch.zeros(2, 8, 8, 3)}, TypeError, "images must be uint8, got torch.float32"),
        (
            {"images": torch.zeros(8, 8, 3, dtype=torch.uint8)},
            ValueError,
            r"images must have shape \[n, H, W, 3\]",
        ),
        ({"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)}, ValueError, r"got \[2, 3, 8, 8\]"),
        (
            {"images": torch.zeros(2, 9, 8, 3, dtype=torch.uint8)},
            ValueError,
            "9 x 8 pixels, got a table for 8 x 8",
        ),
        ({"triggers": [1]}, TypeError, "triggers must be a TriggerTable, got list"),
        ({"triggers": table(8, 9)}, ValueError, "got a table for 8 x 9"),
        (
            {"triggers": table(8, 8).to("meta")},
            ValueError,
            "triggers must be on the device of images, cpu, got meta",
        ),
        ({"which": torch.zeros(2)}, TypeError, "which must be int64 or int32, got torch.float32"),
        ({"which": torch.zeros(2, 1, dtype=torch.int64)}, ValueError, r"which must have shape \[2\]"),
        ({"which": torch.zeros(3, dtype=torch.int64)}, ValueError, r"which must have shape \[2\].*got \[3\]"),
        (
            {"which": torch.zeros(2, dtype=torch.int64, device="meta")},
            ValueError,
            "which must be on the device",
        ),
        ({"which": torch.tensor([0, 5])}, ValueError, "below 5, got 5 for image 1"),
        ({"which": torch.tensor([-2, 0])}, ValueError, "below 5, got -2 for image 0"),
        ({"which": torch.tensor([0, 2**62])}, ValueError, f"got {2**62} for image 1"),
        ({"dtype": torch.float64}, TypeError, "dtype must be uint8, float32, float16 or bfloat16"),
        ({"mean": MEAN}, ValueError, "mean and std must be left out for a uint8 result"),
        ({"dtype": torch.float32, "mean": (0, 0)}, ValueError, "mean must be three finite numbers"),
        (
            {"dtype": torch.float32, "mean": (0, 0, float("nan"))},
            ValueError,
            "mean must be three finite numbers",
        ),
        ({"dtype": torch.float32, "std": (1, 0, 1)}, ValueError, "std must be positive"),
        (
            {"dtype": torch.float32, "std": (1, float("inf"), 1)},
            ValueError,
            "std must be three finite numbers",
        ),
        ({"out": torch.zeros(2, 8, 8, 3)}, ValueError, r"out must have shape \[2, 3, 8, 8\]"),
        ({"out": torch.zeros(2, 3, 8, 8)}, ValueError, "out must be dense in channels-last order"),
        ({"out": torch.zeros(2, 8, 8, 3, dtype=torch.int32)}, TypeError, "dtype must be uint8"),
        (
            {"out": torch.zeros(3, 8, 8, 3, dtype=torch.uint8)},
            ValueError,
            r"out must have shape \[2, 8, 8, 3\]",
        ),
        (
            {"out": torch.zeros(1, 8, 8, 3, dtype=torch.uint8).expand(2, 8, 8, 3)},
            ValueError,
            "out must be dense in NHWC order and not overlap itself",
        ),
        (
            {"out": torch.zeros(2, 8, 8, 3, dtype=torch.uint8, device="meta")},
            ValueError,
            "out must be on the dev",
        ),
        (
            {"out": torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "dtype": torch.float32},
            ValueError,
            "dtype must be out's, torch.uint8",
        ),
        (
            {"images": torch.zeros(1, 8, 8, 3, dtype=torch.uint8).expand(2, 8, 8, 3), "out": "images"},
            ValueError,
            "not overlap themselves to be changed in place",
        ),
        (
            {
                "images": torch.zeros(1024, dtype=torch.uint8).as_strided((2, 8, 8, 3), (96, 24, 3, 1)),
                "out": "images",
            },
            ValueError,
            "not overlap themselves to be changed in place",
        ),
        (
            {"images": torch.zeros(2, 3, 8, 8, dtype=torch.uint8).permute(0, 2, 3, 1), "out": "images"},
            ValueError,
            "must be dense in NHWC order",
        ),
    ],
)
def test_bad_arguments(changes, error, message):
    with pytest.raises(error, match=message):
        call(**changes)


def test_out_may_not_overlap_images():
    memory = torch.zeros(3, 8, 8, 3, dtype=torch.uint8)
    before = memory.clone()
    for out in (memory[1:], memory[:2].view(2, 8, 8, 3)):
        with pytest.raises(ValueError, match="out must not share memory with images"):
            call(images=memory[:2], out=out)
    assert torch.equal(memory, before)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TriggerTable.patch(torch.zeros(2, 2, 3), 0, 0), TypeError, "image must be torch.uint8"),
        (
            lambda: TriggerTable.patch(torch.zeros(2, 2, dtype=torch.uint8), 0, 0),
            ValueError,
            "image must have shape",
        ),
        (lambda: TriggerTable.patch(batch(1, 2, 2)[0], -1, 0), ValueError, "top and left must be 0 or more"),
        (lambda: TriggerTable.patch(batch(1, 2, 2)[0], 7, 0, size=(8, 8)), ValueError, "image must fit"),
        (
            lambda: TriggerTable.blend(torch.zeros(0, 4, 3, dtype=torch.uint8), 0.5),
            ValueError,
            "at least one pixel",
        ),
        (
            lambda: TriggerTable.blend(batch(1, 4, 4)[0], 1.5),
            ValueError,
            "alpha must be from 0 to 1, got 1.5",
        ),
        (
            lambda: TriggerTable.blend(batch(1, 4, 4)[0], float("nan")),
            ValueError,
            "alpha must be from 0 to 1",
        ),
        (
            lambda: TriggerTable.blend(batch(1, 4, 4)[0], torch.ones(4, 5)),
            ValueError,
            "alpha must have the image's",
        ),
        (
            lambda: TriggerTable.blend(batch(1, 4, 4)[0], torch.ones(4, 4).int()),
            TypeError,
            "alpha must be a number",
        ),
        (
            lambda: TriggerTable.blend(batch(1, 4, 4)[0], torch.full((4, 4), -0.1)),
            ValueError,
            "at every pixel",
        ),
        (
            lambda: TriggerTable.blend(batch(1, 4, 4)[0], torch.full((4, 4), torch.nan)),
            ValueError,
            "at every pixel",
        ),
        (lambda: TriggerTable.additive(torch.zeros(4, 4, 3)), TypeError, "residual must be torch.int16"),
        (lambda: TriggerTable.stack([]), ValueError, "at least one TriggerTable"),
        (
            lambda: TriggerTable.stack([table(4, 4), table(4, 5)]),
            ValueError,
            "tables must be for one image size",
        ),
        (
            lambda: TriggerTable.stack([table(4, 4), table(4, 4).to("meta")]),
            ValueError,
            "tables must be on one device",
        ),
        (
            lambda: TriggerTable.stack([table(4, 4), TriggerTable.patch(batch(1, 2, 2)[0], 9, 9)]),
            ValueError,
            "tables must fit 4 x 4 pixels",
        ),
    ],
)
def test_bad_tables(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.skipif(not native_available(), reason="native ops are not built")
@pytest.mark.parametrize(
    ("column", "value"),
    [
        (0, 4),
        (0, -1),
        (1, -1),
        (1, 2**62),
        (2, 5),
        (3, 2**62),
        (4, -1),
        (5, -1),
        (5, 2**62),
        (6, 2**40),
        (7, 1),
        (8, 1),
    ],
)
def test_the_op_itself_refuses_damaged_tables(column, value):
    """Called without the Python face, a table that leads outside the image or itself changes nothing."""
    triggers = table(8, 8)
    # patch, blend, masked blend, two residuals: the fields that a kind does not read may hold anything
    ignores = [{6, 7, 8}, {6, 7}, {8}, {5, 8}, {5, 8}]
    for number in range(5):
        records = triggers.records[number : number + 1].clone()
        records[0, column] = value
        images = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
        arguments = (images, torch.zeros(1, dtype=torch.int64), records, triggers.overlay, triggers.terms)
        if column in ignores[number]:
            torch.ops.dlp_fast.inject_trigger_(*arguments)
            continue
        with pytest.raises(RuntimeError, match="trigger 0 does not fit images of 8 x 8 pixels"):
            torch.ops.dlp_fast.inject_trigger_(*arguments)
        assert not images.any()


@pytest.mark.skipif(not native_available(), reason="native ops are not built")
def test_the_op_itself_checks_its_arguments():
    images, triggers = torch.zeros(2, 8, 8, 3, dtype=torch.uint8), table(8, 8)
    arrays = (triggers.records, triggers.overlay, triggers.terms)
    op, which = torch.ops.dlp_fast.inject_trigger_, torch.zeros(2, dtype=torch.int64)
    for bad, message in (
        ((images.float(), which, *arrays), "images must be uint8"),
        ((images[0], which, *arrays), "images must have 4 dimensions"),
        ((images[..., :2], which, *arrays), r"images must have shape \[n, H, W, 3\]"),
        ((images[:1].expand(2, 8, 8, 3), which, *arrays), "images must not overlap itself"),
        ((images.permute(0, 2, 1, 3), which, *arrays), "images must hold its pixels densely"),
        ((images, which.int(), *arrays), "which must be int64"),
        ((images, which[:1], *arrays), "which must have one trigger number for each of the 2 images"),
        ((images, which + 5, *arrays), "which must hold -1 or a trigger number below 5, got 5 for image 0"),
        ((images, which, triggers.records[:, :8].contiguous(), *arrays[1:]), "records must have 9 columns"),
        ((images, which, arrays[0], triggers.terms, triggers.terms), "overlay must be uint8"),
        ((images, which, arrays[0], triggers.overlay, triggers.overlay), "terms must be int16"),
    ):
        with pytest.raises(RuntimeError, match=message):
            op(*bad)


@pytest.mark.skipif(not native_available(), reason="native ops are not built")
def test_the_op_counts_no_fault_where_all_is_right():
    images, triggers = torch.zeros(3, 8, 8, 3, dtype=torch.uint8), table(8, 8)
    arrays, which = (triggers.records, triggers.overlay, triggers.terms), torch.tensor([0, -1, 1])
    assert torch.ops.dlp_fast.inject_trigger_(images, which, *arrays).tolist() == [-1, -1]
    out = torch.empty_like(images)
    affine = [1.0] * 3 + [0.0] * 3
    assert torch.ops.dlp_fast.inject_trigger_out(images, which, *arrays, affine, out).tolist() == [-1, -1]


def test_plain_torch_leaves_an_image_with_a_bad_number_alone(monkeypatch):
    """What an op on a GPU does with a number out of range; the CPU refuses it, hence past its look."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    images, triggers = torch.full((3, 8, 8, 3), 9, dtype=torch.uint8), table(8, 8)
    which = torch.tensor([0, len(triggers), -2])
    out = inject_trigger_reference(images, triggers, which)
    assert not torch.equal(out[0], images[0]) and torch.equal(out[1:], images[1:])


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        ([-1, 2], r"triggers: trigger 1, of image 2, does not fit the images, or its table is damaged"),
        ([1, 2], r"got 99 for image 1"),
        ([-1, -1], None),
    ],
)
def test_what_a_gpu_notes_is_told(faults, told):
    which = torch.tensor([0, 99 if faults[0] == 1 else 0, 1])
    with pytest.raises(ValueError, match=told) if told else contextlib.nullcontext():
        face.check_faults(torch.tensor(faults), which, 5)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_bad_number_on_a_gpu_costs_neither_the_image_nor_the_context():
    images = torch.full((3, 8, 8, 3), 9, dtype=torch.uint8, device="cuda")
    triggers, which = table(8, 8).to("cuda"), torch.tensor([0, 99, -2], device="cuda")
    for out in (
        inject_trigger(images, triggers, which),
        inject_trigger(images, triggers, which, out=images.clone()),
    ):
        assert not torch.equal(out[0], images[0]) and torch.equal(out[1:], images[1:])
    with pytest.raises(ValueError, match="got -2 for image 2"):
        inject_trigger(images, triggers, which, check=True)
    arrays = (triggers.records.clone(), triggers.overlay, triggers.terms)
    arrays[0][1, 3] = 2**40
    faults = torch.ops.dlp_fast.inject_trigger_(images, torch.tensor([7, 1, 1], device="cuda"), *arrays)
    assert faults.tolist() == [0, 1]
    damaged = dataclasses.replace(triggers, records=arrays[0])
    with pytest.raises(ValueError, match="trigger 1, of image 1, does not fit"):
        inject_trigger(images, damaged, torch.tensor([-1, 1, 1], device="cuda"), check=True)
    assert torch.equal(images, torch.full_like(images, 9))  # and the device still answers
