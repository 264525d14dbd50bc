"""batch_norm_relu against eager torch, forward and backward: first equal but for the order of sums, then timed."""

from __future__ import annotations

import pytest
import torch

from dlp_fast.ops import batch_norm_relu, batch_norm_relu_reference, native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="native ops are not built")
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}  # of values of about 1


class Layer:
    """A layer's input [images, 16, 32, 32] in channels-last, and one pass forward and backward through `op`."""

    def __init__(self, dtype: torch.dtype, timed: bool):
        generator = torch.Generator().manual_seed(0)
        shape = (128 if timed else 4, 16, 32, 32)
        self.x, self.gradient = (
            torch.randn(shape, generator=generator).to(dtype).contiguous(memory_format=torch.channels_last)
            for _ in range(2)
        )
        self.weight = torch.rand(16, generator=generator) + 0.5
        self.bias = torch.randn(16, generator=generator) * 0.1

    def passed(self, op) -> tuple[torch.Tensor, torch.Tensor]:
        """(output, gradient of the input)."""
        x = self.x.detach().requires_grad_()
        weight, bias = (of.detach().requires_grad_() for of in (self.weight, self.bias))
        y = op(x, weight, bias, torch.zeros(16), torch.ones(16), True)
        y.backward(self.gradient)
        return y.detach(), x.grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("who", ["ours", "eager"])
def test_batch_norm_relu(benchmark, dtype, who):
    layer = Layer(dtype, benchmark.enabled)
    for ours, eager in zip(
        layer.passed(batch_norm_relu), layer.passed(batch_norm_relu_reference), strict=True
    ):
        off = (ours.float() - eager.float()).abs() > TOLERANCE[dtype]
        assert off.float().mean() < 1e-3  # at the edge of the ReLU a rounding decides
    benchmark.group = f"batch norm and ReLU, forward and backward, {list(layer.x.shape)}, {dtype}"
    op = batch_norm_relu if who == "ours" else batch_norm_relu_reference
    benchmark.pedantic(layer.passed, args=(op,), rounds=20, warmup_rounds=2)
