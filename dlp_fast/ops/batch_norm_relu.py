"""Batch norm and ReLU in one: forward and backward pass each read the input twice and write once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dlp_fast.ops.library import native_available, native_on

GROUP = 16
"""Channels that the kernel works at a time; other numbers of channels are worked by plain torch."""

DTYPES = {"cpu": (torch.float32, torch.bfloat16), "cuda": (torch.float32, torch.bfloat16, torch.float16)}
ALIGNMENT = 16
"""Bytes at whose multiples a tensor must begin on a GPU."""


def batch_norm_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``relu(batch_norm(x))`` (Ioffe and Szegedy 2015) as ``torch.nn.functional`` defines it, with its gradients.

    For channels-last fp32 and bf16, and fp16 on a GPU, a native kernel does both at once. Sums are fp32 over blocks of
    8,192 values and float64 over the blocks, in an order that hangs neither on threads nor on the processor: CPU and
    GPU give the same bits. All else, and running statistics where gradients are asked for, goes to
    ``batch_norm_relu_reference``.

    Args:
        x: [b, channels, H, W], fp32, bf16 or fp16; at least two values a channel where ``training``.
        weight, bias, running_mean, running_var: fp32 [channels].
        training: normalise by the statistics of this batch, and let them enter the running ones, which are changed in
            place, with share ``momentum``; else by the running ones.
        eps: added to the variance.

    Returns:
        The shape, dtype and layout of ``x``.

    Raises:
        ValueError: one value a channel, where ``training``.
    """
    if not has_kernel(x, weight, bias, training):
        return batch_norm_relu_reference(x, weight, bias, running_mean, running_var, training, momentum, eps)
    if not training:
        return torch.ops.dlp_fast.batch_norm_relu_eval(x, weight, bias, running_mean, running_var, eps)
    y, _, _ = TrainingPass.apply(x, weight, bias, running_mean, running_var, momentum, eps)
    return y


def batch_norm_relu_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``batch_norm_relu`` in plain torch; sums are in another order."""
    return torch.relu(F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps))


def has_kernel(x: Tensor, weight: Tensor, bias: Tensor, training: bool) -> bool:
    """Whether ``batch_norm_relu`` works these by its native kernel."""
    count = x.numel() // max(x.shape[1], 1)
    return (
        x.dtype in DTYPES.get(x.device.type, ())
        and weight.dtype == bias.dtype == torch.float32
        and x.shape[1] % GROUP == 0
        and (count > 1 if training else count > 0 and not _asks_for_gradient(x, weight, bias))
        and x.is_contiguous(memory_format=torch.channels_last)
        and _is_aligned(x)
        and native_on(x.device)
    )


def _is_aligned(x: Tensor) -> bool:
    return x.device.type == "cpu" or x.storage_offset() * x.element_size() % ALIGNMENT == 0


def _asks_for_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


class TrainingPass(torch.autograd.Function):
    """(y, mean and variance of the batch); by hand, for torch registers no gradient for an op that changes tensors."""

    @staticmethod
    def forward(x, weight, bias, running_mean, running_var, momentum, eps):
        return torch.ops.dlp_fast.batch_norm_relu(x, weight, bias, running_mean, running_var, momentum, eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, *running, _, ctx.eps = inputs
        _, mean, var = output
        torch.autograd.graph.increment_version(running)
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, bias, mean, var)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        if not _is_aligned(gradient):
            gradient = gradient.clone(memory_format=torch.channels_last)
        gradients = torch.ops.dlp_fast.batch_norm_relu_backward(gradient, *ctx.saved_tensors, ctx.eps)
        return *gradients, None, None, None, None


if native_available():

    @torch.library.register_fake("dlp_fast::batch_norm_relu")
    def _(x, weight, bias, running_mean, running_var, momentum, eps):
        return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)

    @torch.library.register_fake("dlp_fast::batch_norm_relu_eval")
    def _(x, weight, bias, mean, var, eps):
        return torch.empty_like(x)

    @torch.library.register_fake("dlp_fast::batch_norm_relu_backward")
    def _(gradient, x, weight, bias, mean, var, eps):
        return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
