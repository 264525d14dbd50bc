"""Batch norm over the batch of all ranks (Ioffe and Szegedy 2015, of a batch that lies on several devices).

torch.nn.SyncBatchNorm is for GPUs alone and takes the place of the layers; this one lends itself to the layers for the
time of a forward pass, on any device, so that a network that was trained with it is the same network.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dlp_fast.engine.watch import in_words
from dlp_fast.errors import ConfigError

LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def batch_norms(model: nn.Module) -> list[nn.Module]:
    """The batch-norm layers of `model` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, LAYERS) and m.running_mean is not None]


@contextmanager
def synced(model: nn.Module) -> Iterator[None]:
    """Within it, a forward pass of `model` in training mode takes batch statistics over all ranks.

    Raises ConfigError where a layer does more than batch norm, such as timm's that hold an activation too.
    """
    layers = [m for m in model.modules() if isinstance(m, LAYERS)]
    for layer in layers:
        if type(layer) not in LAYERS:
            raise ConfigError(
                f"sync_batch_norm: this network has layers of type {type(layer).__name__}, whose statistics cannot be "
                "taken over all processes. Leave the option out, or take another network."
            )
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


class _Sum(torch.autograd.Function):
    """The sum over all ranks; so is its gradient, since every rank's loss hangs on every rank's images."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        with in_words(total.device):
            dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient)


def _forward(layer: nn.Module, x: Tensor) -> Tensor:
    if not layer.training:
        return type(layer).forward(layer, x)
    axes = [d for d in range(x.dim()) if d != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    with torch.autocast(x.device.type, enabled=False):  # the statistics in fp32, as torch keeps them
        wide = x.float()
        count = torch.full((1,), x.numel() / x.shape[1], dtype=torch.float32, device=x.device)
        total = _Sum.apply(torch.cat([wide.sum(axes), count]))
        n = total[-1]
        mean = total[:-1] / n
        centred = wide - mean.view(shape)
        variance = _Sum.apply((centred * centred).sum(axes)) / n
        y = centred * torch.rsqrt(variance + layer.eps).view(shape)
        if layer.affine:
            y = y * layer.weight.view(shape) + layer.bias.view(shape)
        if layer.running_mean is not None:
            _remember(layer, mean.detach(), variance.detach() * n / (n - 1))
    return y.to(x.dtype)


@torch.no_grad()
def _remember(layer: nn.Module, mean: Tensor, variance: Tensor) -> None:
    """The running statistics, as the layer itself would keep them."""
    layer.num_batches_tracked.add_(1)
    if layer.momentum is None:  # cumulative, every batch alike
        share = 1.0 / layer.num_batches_tracked.to(mean.dtype)
    else:
        share = layer.momentum
    layer.running_mean.add_(share * (mean - layer.running_mean))
    layer.running_var.add_(share * (variance - layer.running_var))


@torch.no_grad()
def join_statistics(model: nn.Module, batches: int) -> None:
    """Running statistics that are means over `batches` batches of this rank become those over the batches of all."""
    layers = batch_norms(model)
    if not layers:
        return
    parts = [t for m in layers for t in (m.running_mean, m.running_var)]
    weight = torch.full((1,), float(batches), device=parts[0].device)
    flat = torch.cat([*(t * batches for t in parts), weight])
    with in_words(flat.device):
        dist.all_reduce(flat)
    for mine, joined in zip(parts, (flat[:-1] / flat[-1]).split([t.numel() for t in parts]), strict=True):
        mine.copy_(joined)
    for layer in layers:
        layer.num_batches_tracked.fill_(int(flat[-1]))
