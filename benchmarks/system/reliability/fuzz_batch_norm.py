"""batch_norm_relu against its sums written out in plain torch, in their order: random shapes, dtypes, extreme values.

    python -m benchmarks.system.reliability.fuzz_batch_norm --count 1000 --out RESULT.json

Everything is compared to the bit: the output, the statistics of the batch, the running ones, eval mode and all
gradients. Values of a moderate size are compared with torch in float64 too.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.system.reliability.fuzz_ops import Draw, fuzz, generator_of, numbers
from benchmarks.system.reliability.promise import Promise, Trial, main
from dlp_fast import ops

BLOCK, CHAINS, SLOTS, LANES, PAIRS = 8192, 4, 8, 32, 4096  # those of csrc/batch_norm_math.h
CHANNELS = (16, 32, 48, 80, 528, 1040, 4112)  # the last: blocks of one row, one part
DTYPES = (torch.float32, torch.bfloat16)


class Layer(NamedTuple):
    """x, gradient: [rows, channels], fp32 numbers that `dtype` holds; the others fp32 [channels]."""

    x: Tensor
    gradient: Tensor
    weight: Tensor
    bias: Tensor
    running: tuple[Tensor, Tensor]
    momentum: float
    eps: float
    dtype: torch.dtype

    def picture(self, values: Tensor) -> Tensor:
        """[rows, channels] as [1, channels, rows, 1]."""
        return values.to(self.dtype)[None, :, None].permute(0, 3, 1, 2)


def tree(sums: Tensor) -> Tensor:
    while len(sums) > 1:
        sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
    return sums[0]


def chained(values: Tensor) -> Tensor:
    """fp32 sums over the rows of a block."""
    chains = torch.zeros(CHAINS, values.shape[1])
    for rows in values.split(CHAINS):
        chains[: len(rows)] += rows
    return (chains[0] + chains[1]) + (chains[2] + chains[3])


def joined(pairs: list[Tensor], channels: int) -> Tensor:
    """float64 [2, channels] of those of all blocks."""
    most = max(1, PAIRS // channels)
    of_part = -(-len(pairs) // most)
    lanes = torch.zeros(LANES, 2, channels, dtype=torch.float64)
    for part, first in enumerate(range(0, len(pairs), of_part)):
        slots = torch.zeros(SLOTS, 2, channels, dtype=torch.float64)
        for i, pair in enumerate(pairs[first : first + of_part]):
            slots[i % SLOTS] += pair
        lanes[part % LANES] += tree(slots)
    return tree(lanes)


def blocks(values: Tensor) -> tuple[Tensor, ...]:
    return values.split(max(1, BLOCK // values.shape[1]))


def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    pairs = []
    for block in blocks(x):
        first = chained(block)
        second = chained((block - first / torch.tensor(float(len(block)))).square())
        wide = first.double()
        pairs.append(torch.stack([wide, second.double() + wide * wide / len(block)]))
    first, second = joined(pairs, x.shape[1])
    mean = first / len(x)
    variance = (second - first * mean) / len(x)
    return mean.float(), torch.where(variance < 0, 0.0, variance).float()


def affine(of: Layer, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(scale, shift, 1 / deviation), fp32."""
    inverse = (1 / (variance.double() + of.eps).sqrt()).float()
    scale = of.weight * inverse
    return scale, of.bias - mean * scale, inverse


def rectified(y: Tensor) -> Tensor:
    return torch.where(y <= 0, 0.0, y)


def gradients(of: Layer, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of x, weight and bias."""
    scale, shift, inverse = affine(of, mean, variance)
    g = torch.where(of.x * scale + shift <= 0, 0.0, of.gradient)
    products = g * (of.x - mean)
    pairs = [torch.stack([chained(a), chained(b)]).double() for a, b in zip(blocks(g), blocks(products))]
    first, second = joined(pairs, len(mean))
    wide, n = inverse.double(), len(of.x)
    of_input = (-scale.double() * wide * wide * second / n).float()
    constant = (-scale.double() * first / n).float()
    return scale * g + (of_input * (of.x - mean) + constant), (second * wide).float(), first.float()


def moved(before: Tensor, to: Tensor, momentum: float) -> Tensor:
    share = torch.tensor(momentum)
    return before + share * (to - before) if share < 0.5 else to - (to - before) * (1 - share)


def written_out(of: Layer) -> tuple[Tensor, ...]:
    mean, variance = statistics(of.x)
    scale, shift, _ = affine(of, mean, variance)
    unbiased = variance * torch.tensor(len(of.x) / (len(of.x) - 1.0))
    running = moved(of.running[0], mean, of.momentum), moved(of.running[1], unbiased, of.momentum)
    by_running = affine(of, *running)
    y, still = (rectified(of.x * a[0] + a[1]) for a in ((scale, shift), by_running))
    dx, *rest = gradients(of, mean, variance)
    return (*(t.to(of.dtype) for t in (y, still, dx)), *rest, mean, variance, *running)


def native(of: Layer) -> tuple[Tensor, ...]:
    """The same by the kernels."""
    x, gradient = of.picture(of.x), of.picture(of.gradient)
    running, by = [t.clone() for t in of.running], torch.ops.dlp_fast
    y, mean, variance = by.batch_norm_relu(x, of.weight, of.bias, *running, of.momentum, of.eps)
    still = by.batch_norm_relu_eval(x, of.weight, of.bias, *running, of.eps)
    dx, *rest = by.batch_norm_relu_backward(gradient, x, of.weight, of.bias, mean, variance, of.eps)
    flat = (t.permute(0, 2, 3, 1).reshape(of.x.shape) for t in (y, still, dx))
    return (*flat, *rest, mean, variance, *running)


def drawn(draw: Draw) -> Layer:
    channels = draw(st.sampled_from(CHANNELS))
    rows = draw(st.integers(2, 40 if channels > 100 else 1200))
    dtype, finite = draw(st.sampled_from(DTYPES)), draw(st.booleans())
    x, gradient = (numbers(draw, (rows, channels), dtype, finite).float() for _ in range(2))
    g = generator_of(draw)
    weight, bias = torch.randn(channels, generator=g), torch.randn(channels, generator=g)
    running = torch.randn(channels, generator=g), torch.rand(channels, generator=g)
    momentum, eps = draw(st.sampled_from((0.0, 0.01, 0.1, 0.5, 1.0))), draw(st.sampled_from((1e-5, 1e-3)))
    return Layer(x, gradient, weight, bias, running, momentum, eps, dtype)


def near_float64(of: Layer, found: tuple[Tensor, ...]) -> None:
    """Where values are of a size: mean and variance within 1e-5 of a deviation, what the face returns beside them."""
    size = of.x.abs().max()
    spread = of.x.double().std(0, correction=0)
    if not (1e-3 < size < 1e3) or bool((spread < 1e-2 * size).any()):
        return
    mean, variance = found[5:7]
    assert bool(((mean - of.x.double().mean(0)).abs() <= 1e-5 * spread).all())
    assert bool(((variance - spread.square()).abs() <= 1e-5 * spread.square()).all())
    running = [t.clone() for t in of.running]
    x = of.picture(of.x)
    y = ops.batch_norm_relu(x, of.weight, of.bias, *running, True, of.momentum, of.eps)
    wide = [t.double() for t in (x, of.weight, of.bias, *of.running)]
    expected = ops.batch_norm_relu_reference(*wide, True, of.momentum, of.eps)
    tolerance = 1e-5 if of.dtype == torch.float32 else 4e-3
    assert bool(((y - expected).abs() <= tolerance * (expected.abs() + 3 * of.weight.abs().max() + 3)).all())


def batch_norm_relu(draw: Draw) -> None:
    of = drawn(draw)
    found = native(of)
    for number, (ours, theirs) in enumerate(zip(found, written_out(of), strict=True)):
        assert ours.dtype == theirs.dtype and torch.equal(ours.isnan(), theirs.isnan()), number
        assert torch.equal(ours.nan_to_num(0.0), theirs.nan_to_num(0.0)), number
    near_float64(of, found)


def trials(count: int, rng: random.Random, _: Path) -> Iterator[Trial]:
    try:
        fuzz(batch_norm_relu, count, rng.randrange(2**32))
    except AssertionError as error:
        yield Trial(False, str(error)[:300])
    else:
        yield Trial(True, "batch_norm_relu", number=count)


PROMISE = Promise(
    "batch norm with ReLU",
    "batch_norm_relu gives what its sums give when they are written out in their order, forward and backward",
    "random shapes, dtypes and extreme values by hypothesis; values of a moderate size also beside torch in float64",
    trials,
    full=20_000,
    sample=100,
    part=1_000,
)

if __name__ == "__main__":
    main(PROMISE)
