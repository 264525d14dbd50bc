"""Batch norm followed by ReLU, by one native operation where that is the same."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dlp_fast.ops import batch_norm_relu

FUSED_ON = {"cpu"}
"""Kinds of device where one operation does both. Not on a GPU: nobody has timed it there yet (`fused_also_on`)."""


@contextlib.contextmanager
def fused_also_on(kind: str) -> Iterator[None]:
    """One operation on devices of `kind` too, so that both can be timed there."""
    before = FUSED_ON.copy()
    FUSED_ON.add(kind)
    try:
        yield
    finally:
        FUSED_ON.intersection_update(before)


def active(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """``torch.relu(norm(x))``, by one operation on the devices of `FUSED_ON`. A layer that others have taken hold of,
    by a hook or a `forward` of its own, is called as it is, and so is every layer while a network is traced, exported
    or compiled.
    """
    if x.device.type not in FUSED_ON or _is_held(norm) or _is_traced():
        return torch.relu(norm(x))
    share = norm.momentum
    if norm.training:
        norm.num_batches_tracked.add_(1)
        share = 1 / int(norm.num_batches_tracked) if share is None else share  # None: every batch alike
    return batch_norm_relu(
        x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.training, share or 0.0, norm.eps
    )


def _is_held(norm: nn.BatchNorm2d) -> bool:
    return (
        type(norm) is not nn.BatchNorm2d
        or "forward" in vars(norm)
        or norm.running_mean is None
        or norm.weight is None
        or bool(
            norm._forward_hooks or norm._forward_pre_hooks or norm._backward_hooks or norm._backward_pre_hooks
        )
    )


def _is_traced() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.compiler.is_exporting()
