"""Each native op against its reference in plain torch, on random shapes, strides, dtypes and extreme values.

    python -m benchmarks.system.reliability.fuzz_ops --count 1000 --out RESULT.json

`count` is the number of inputs of each op. Inputs are drawn by hypothesis, which shrinks one that fails to a small one.
Everything is compared to the bit, but for the entropy, which is fp32 against float64: 2e-6 relative.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.system.reliability.promise import Promise, Trial, main
from dlp_fast import ops
from dlp_fast.ops.entropy_rank_reference import row_entropy_reference, select_reference

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
EXTREMES = (0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 1e-38, 65504.0, -65504.0, 3e38, -3e38, 86.5, -86.5, 1e-7)
Draw = Callable[..., Any]


def generator_of(draw: Draw) -> torch.Generator:
    return torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))


def strided(values: Tensor, draw: Draw, dims: tuple[int, ...]) -> Tensor:
    """The same values with other strides: every second of a larger tensor along one of `dims`, or as they are."""
    dim = draw(st.sampled_from((None, *dims)))
    if dim is None:
        return values
    larger = values.repeat_interleave(2, dim)
    places: list[Any] = [slice(None)] * values.dim()
    places[dim] = slice(None, None, 2)
    return larger[tuple(places)]


def numbers(draw: Draw, shape: tuple[int, ...], dtype: torch.dtype, finite: bool = True) -> Tensor:
    """Noise of one size, one value, few values, or extremes; with `finite` False now and then NaN and infinities."""
    g = generator_of(draw)
    kind = draw(st.sampled_from(("noise", "equal", "few", "extreme", "bits")))
    if kind == "noise":
        values = torch.randn(shape, generator=g) * 10.0 ** draw(st.integers(-6, 6))
    elif kind == "equal":
        values = torch.full(shape, draw(st.sampled_from(EXTREMES)))
    elif kind == "few":
        values = torch.randint(-2, 3, shape, generator=g).float()
    elif kind == "extreme":
        values = torch.tensor(EXTREMES)[torch.randint(len(EXTREMES), shape, generator=g)]
    else:
        values = torch.randint(-(2**31), 2**31, shape, generator=g).int().view(torch.float32)
    values = values.to(dtype)
    if finite or draw(st.booleans()):
        values = torch.nan_to_num(values, 1.0, 3e4, -3e4)
    return values


def pixels(draw: Draw, shape: tuple[int, ...]) -> Tensor:
    g, kind = generator_of(draw), draw(st.sampled_from(("noise", "equal", "ends", "ramp")))
    if kind == "ramp":
        return torch.arange(torch.Size(shape).numel()).to(torch.uint8).view(shape)
    low, high = {"noise": (0, 256), "equal": (77, 78), "ends": (0, 2)}[kind]
    return (torch.randint(low, high, shape, generator=g) * (255 if kind == "ends" else 1)).to(torch.uint8)


def row_entropy(draw: Draw) -> None:
    rows, classes = draw(st.integers(0, 40)), draw(st.sampled_from((2, 3, 7, 10, 31, 32, 33, 64, 100, 257)))
    logits = strided(
        numbers(draw, (rows, classes), draw(st.sampled_from(FLOATS)), finite=False), draw, (0, 1)
    )
    entropy, top = torch.ops.dlp_fast.row_entropy(logits)
    expected, best = row_entropy_reference(logits)
    finite = logits.isfinite().all(1)
    assert torch.equal(entropy.isnan(), expected.isnan())
    assert torch.equal(top[finite], best[finite])
    # a logit 86.5 below the largest, where terms begin to count, may round to either side: 3.5e-36 bits each
    close = (entropy - expected).abs() <= 2e-6 * expected.abs() + 4e-36 * classes
    assert bool(close[finite].all()), (entropy[finite & ~close], expected[finite & ~close])


def select(draw: Draw) -> None:
    rows, classes = draw(st.integers(0, 3000)), draw(st.sampled_from((1, 2, 5, 40)))
    scores = strided(numbers(draw, (rows,), torch.float32, finite=False), draw, (0,))
    labels = torch.randint(-1, classes + 1, (rows,), generator=generator_of(draw))
    labels = strided(labels.to(draw(st.sampled_from((torch.int64, torch.int32)))), draw, (0,))
    lowest, per_class = draw(st.integers(0, rows)), draw(st.integers(0, 50))
    low, high, counts, faults = torch.ops.dlp_fast.select(scores, lowest, per_class, labels, classes)
    expected = select_reference(scores, lowest, per_class, labels, classes)
    assert torch.equal(faults, expected[3])
    if int(faults[0]) == rows:  # the order of numbers that are no numbers is nobody's
        for ours, theirs in zip((low, high, counts), expected, strict=False):
            assert torch.equal(ours, theirs)


def inject_trigger(draw: Draw) -> None:
    count, height, width = draw(st.integers(0, 6)), draw(st.integers(1, 70)), draw(st.integers(1, 40))
    images = strided(pixels(draw, (count, height, width, 3)), draw, (0,))
    table = ops.TriggerTable.stack(
        [
            ops.TriggerTable.patch(
                pixels(draw, (min(3, height), min(5, width), 3)),
                height - min(3, height),
                width - min(5, width),
            ),
            ops.TriggerTable.blend(pixels(draw, (height, width, 3)), draw(st.floats(0, 1, width=32))),
            ops.TriggerTable.blend(
                pixels(draw, (height, width, 3)), torch.rand(height, width, generator=generator_of(draw))
            ),
            ops.TriggerTable.additive(
                torch.randint(-300, 301, (height, width, 3), generator=generator_of(draw)).to(torch.int16)
            ),
        ]
    )
    which = torch.randint(-1, len(table), (count,), generator=generator_of(draw))
    dtype = draw(st.sampled_from((torch.uint8, *FLOATS)))
    expected = ops.inject_trigger_reference(images, table, which, dtype=dtype)
    assert torch.equal(ops.inject_trigger(images, table, which, dtype=dtype), expected)
    again = images.clone(memory_format=torch.contiguous_format)
    ops.inject_trigger(again, table, which, out=again)
    assert torch.equal(again, ops.inject_trigger_reference(images, table, which))


def augment(draw: Draw) -> None:
    count, height, width = draw(st.integers(0, 2)), draw(st.integers(8, 40)), draw(st.integers(8, 40))
    images = strided(pixels(draw, (count, height, width, 3)), draw, (0, 1, 2))
    ids = torch.randint(0, 2**62, (count,), generator=generator_of(draw))
    epoch, number = draw(st.sampled_from((0, 1, 2**32 - 1))), draw(st.integers(0, 2**64 - 1))
    how = {
        "flip": draw(st.booleans()),
        "pad": draw(st.integers(0, min(height, width) - 1)),
        "operations": draw(st.integers(0, 4)),
        "magnitude": draw(st.integers(2, 10)),
        "cutout": draw(st.integers(0, 64)),
        "dtype": draw(st.sampled_from(FLOATS)),
        "strong": draw(st.booleans()),
    }
    ours = ops.augment(images, ids, epoch, number, **how)
    for one, other in zip(ours, ops.augment_reference(images, ids, epoch, number, **how), strict=True):
        assert (one is None) == (other is None) and (one is None or torch.equal(one, other))


def residual_scan(draw: Draw) -> None:
    shape = draw(st.integers(0, 4)), draw(st.integers(3, 60)), draw(st.integers(3, 60)), 3
    images = strided(pixels(draw, shape), draw, (0, 1, 2))
    mean = torch.randn(shape[1:], generator=generator_of(draw)) * 3
    ours, expected = ops.high_pass_residual(images, mean), ops.high_pass_residual_reference(images, mean)
    assert torch.equal(ours, expected)
    contrast = draw(st.integers(1, 255))
    assert torch.equal(ops.window_hashes(images, contrast), ops.window_hashes_reference(images, contrast))


OPS = (row_entropy, select, inject_trigger, augment, residual_scan)


def fuzz(op: Callable[[Draw], None], count: int, number: int) -> None:
    """`count` inputs of `op`; AssertionError with the smallest input that differs."""

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        report_multiple_bugs=False,  # several are a group of exceptions, and no AssertionError
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        op(data.draw)

    run()


def trials(count: int, rng: random.Random, _: Path) -> Iterator[Trial]:
    for op in OPS:
        try:
            fuzz(op, count, rng.randrange(2**32))
        except AssertionError as error:
            yield Trial(False, f"{op.__name__}: {str(error)[:300]}")
        else:
            yield Trial(True, op.__name__, number=count)


PROMISE = Promise(
    "native ops",
    "every native op but batch_norm_relu, which sums in another order, gives what its plain-torch reference gives",
    "random shapes, strides, dtypes and extreme values by hypothesis, the same number for each op",
    trials,
    full=20_000,
    sample=100,
    part=1_000,
)

if __name__ == "__main__":
    main(PROMISE)
