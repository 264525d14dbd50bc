"""Batch norm and ReLU in one: forward and backward pass each read the input twice and write once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dlp_fast.ops.library import native_available

GROUP = 16
"""Channels that the kernel works at a time; other numbers of channels are worked by plain torch."""


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

    On a CPU, for channels-last fp32 and bf16, a native kernel does both at once. Sums are fp32 over blocks of 8,192
    values and float64 over the blocks, in an order that hangs neither on threads nor on the processor. All else, and
    running statistics where gradients are asked for, goes to ``batch_norm_relu_reference``.

    Args:
        x: [b, channels, H, W], fp32 or bf16; at least two values a channel where ``training``.
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
    y, mean, var = torch.ops.dlp_fast.batch_norm_relu(x, weight, bias, eps)
    count = x.numel() // x.shape[1]
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (count / (count - 1)), momentum)
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
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.bfloat16)
        and weight.dtype == bias.dtype == torch.float32
        and x.shape[1] % GROUP == 0
        and (count > 1 if training else count > 0 and not _asks_for_gradient(x, weight, bias))
        and x.is_contiguous(memory_format=torch.channels_last)
        and native_available()
    )


def _asks_for_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, ctx.eps = inputs
    _, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, bias, mean, var)


def _backward(ctx: Any, gradient: Tensor, *_: None) -> tuple[Tensor | None, ...]:
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    return *torch.ops.dlp_fast.batch_norm_relu_backward(gradient, *ctx.saved_tensors, ctx.eps), None


if native_available():
    torch.library.register_autograd("dlp_fast::batch_norm_relu", _backward, setup_context=_remember)

    @torch.library.register_fake("dlp_fast::batch_norm_relu")
    def _(x, weight, bias, eps):
        return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)

    @torch.library.register_fake("dlp_fast::batch_norm_relu_eval")
    def _(x, weight, bias, mean, var, eps):
        return torch.empty_like(x)

    @torch.library.register_fake("dlp_fast::batch_norm_relu_backward")
    def _(gradient, x, weight, bias, mean, var, eps):
        return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(weight)
