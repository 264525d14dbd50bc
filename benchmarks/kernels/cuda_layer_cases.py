"""The case of cuda_events.py that works on a layer of a network: batch norm with ReLU, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmarks.kernels.cuda_cases import name_of
from benchmarks.kernels.cuda_timing import Bench, Call
from dlp_fast.ops import batch_norm_relu, batch_norm_relu_reference

# images, channels, side: of WRN-16-1 at 32 px, a supervised step and a FixMatch step; the last of a ResNet-18 at 224 px
LAYERS = (
    (128, 16, 32, torch.bfloat16),
    (960, 16, 32, torch.bfloat16),
    (960, 32, 16, torch.bfloat16),
    (960, 64, 8, torch.bfloat16),
    (64, 512, 7, torch.bfloat16),
    (960, 16, 32, torch.float32),
)
COMPILED = 2  # layers that torch.compile is given: it takes seconds for each
STEP = {"eager": 2.0, "copy": 0.6}
EVAL = {"eager": 1.5, "copy": 0.8}


@dataclass
class Layer:
    """What both passes through one layer are given: x, weight and bias are leaves."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    gradient: Tensor
    running: tuple[Tensor, Tensor]

    @staticmethod
    def drawn(images: int, channels: int, side: int, dtype: torch.dtype) -> Layer:
        """On the CPU."""
        generator = torch.Generator().manual_seed(channels)
        shape = images, channels, side, side
        x, gradient = (
            torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
            for _ in range(2)
        )
        weight, bias = (
            torch.rand(channels, generator=generator) + 0.5,
            torch.rand(channels, generator=generator),
        )
        return Layer(x, weight, bias, gradient, (torch.zeros(channels), torch.ones(channels)))

    def on(self, device: str) -> Layer:
        x, weight, bias = (
            leaf.to(device, copy=True).requires_grad_() for leaf in (self.x, self.weight, self.bias)
        )
        mean, variance = (t.to(device, copy=True) for t in self.running)
        return Layer(x, weight, bias, self.gradient.to(device), (mean, variance))

    def step(self, op: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        """y and the gradients of x, weight and bias."""
        y = op(self.x, self.weight, self.bias, *self.running, True)
        return y, *torch.autograd.grad(y, (self.x, self.weight, self.bias), self.gradient)

    def evaluated(self, op: Callable[..., Tensor]) -> Tensor:
        with torch.no_grad():
            return op(self.x, self.weight, self.bias, *self.running, False)

    def outcome(self) -> tuple[Tensor, ...]:
        return *self.step(batch_norm_relu), self.evaluated(batch_norm_relu), *self.running


def batch_norms(bench: Bench) -> None:
    """As graphs, as a step runs them, and launched one by one: eager has some ten kernels a layer, ours four."""
    compiled = bench.compiled(batch_norm_relu_reference)
    for number, (images, channels, side, dtype) in enumerate(LAYERS):
        of = f"of [{images}, {channels}, {side}, {side}] {name_of(dtype)}"
        if bench.late(f"batch_norm_relu {of}"):
            continue
        given = Layer.drawn(max(2, bench.few(images * side * side) // (side * side)), channels, side, dtype)
        for ours, wanted in zip(given.on(bench.device).outcome(), given.on("cpu").outcome(), strict=True):
            assert torch.equal(ours.cpu(), wanted), "CUDA and CPU differ"
        layer = given.on(bench.device)
        ops = {"ours": batch_norm_relu, "eager": batch_norm_relu_reference}
        calls: dict[str, Call] = {who: bench.graphed(partial(layer.step, op)) for who, op in ops.items()}
        calls |= {f"{who} with its launches": partial(layer.step, op) for who, op in ops.items()}
        goals = STEP
        if number < COMPILED:
            calls["compile"], goals = bench.graphed(partial(layer.step, compiled)), STEP | {"compile": 1.0}
        size = float(layer.x.nbytes)
        bench.measure(f"batch_norm_relu, forward and backward, {of}", 8 * size, calls, goals)
        calls = {who: bench.graphed(partial(layer.evaluated, op)) for who, op in ops.items()}
        bench.measure(f"batch_norm_relu, eval, {of}", 2 * size, calls, EVAL)
