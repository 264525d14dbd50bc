"""Trigger injection: patch, blend or residual onto chosen images of a uint8 batch, optionally normalised."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dlp_fast.ops.library import native_available, native_on
from dlp_fast.ops.trigger_table import (
    ADDITIVE,
    MASKED_BLEND,
    OPACITY_BITS,
    OPACITY_ONE,
    PATCH,
    TriggerTable,
)

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


def inject_trigger(
    images: Tensor,
    triggers: TriggerTable,
    which: Tensor,
    *,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    check: bool = False,
) -> Tensor:
    """Puts trigger ``which[i]`` on image ``i``; in place with ``out=images``, else into another tensor.

    In place only the rectangle that the trigger covers is changed, and only in poisoned images. A floating
    result is normalised in the same pass, ``(pixel / 255 - mean) / std``, computed in fp32 as
    ``fl(fl(pixel * scale) + shift)`` with ``scale = 1 / (255 std)`` and ``shift = -mean / std``, then rounded
    to nearest even. All results, the floating ones too, have the same bits on CPU and GPU and in the
    plain-torch reference.

    Args:
        images: uint8 [n, H, W, 3], RGB. In place: each image dense in memory, images not overlapping.
        triggers: the table, made for H x W pixels, on the device of ``images``.
        which: int64 or int32 [n]: number of the trigger for each image, -1 to leave it.
        out: where to write: ``images`` itself; a uint8 [n, H, W, 3]; or a floating [n, 3, H, W] tensor in
            channels-last memory. Otherwise it must not share memory with ``images``.
        dtype: of a new result: uint8 (default, or ``out``'s), float32, float16 or bfloat16.
        mean, std: three numbers each, in units of 0..1 pixels (default 0 and 1); only for floating results.
        check: on a GPU, whether to wait for the device and raise where a number in ``which`` is out of range or
            its record does not fit; unchecked, such an image is left without a trigger. On a CPU it raises always.

    Returns:
        ``out``, or a new tensor: uint8 [n, H, W, 3], or ``dtype`` [n, 3, H, W] in channels-last memory.

    Raises:
        TypeError: dtype of an argument.
        ValueError: shape, device, range or memory layout of an argument. On a CPU nothing was written then.
    """
    which, out, affine = _prepare(images, triggers, which, out, dtype, mean, std)
    table = (triggers.records, triggers.overlay, triggers.terms)
    on_gpu = images.device.type != "cpu"  # on a CPU `which` was looked at above
    if not native_on(images.device):
        if check and on_gpu:
            _check_range(which, len(triggers))
        return _reference(images, triggers, which, out, affine)
    if out is images:
        faults = torch.ops.dlp_fast.inject_trigger_(images, which, *table)
    else:
        faults = torch.ops.dlp_fast.inject_trigger_out(_dense(images), which, *table, affine, out)
    if check and on_gpu:
        check_faults(faults, which, len(triggers))
    return out


def inject_trigger_reference(
    images: Tensor,
    triggers: TriggerTable,
    which: Tensor,
    *,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Tensor:
    """:func:`inject_trigger` in plain torch, bit for bit; one pass for each trigger that occurs."""
    which, out, affine = _prepare(images, triggers, which, out, dtype, mean, std)
    return _reference(images, triggers, which, out, affine)


def _reference(
    images: Tensor, triggers: TriggerTable, which: Tensor, out: Tensor, affine: list[float]
) -> Tensor:
    poisoned = images if out is images else images.clone(memory_format=torch.contiguous_format)
    for number, record in enumerate(triggers.records.tolist()):
        _, top, left, height, width, *_ = record
        rows = (which == number).nonzero().flatten()
        box = (rows, slice(top, top + height), slice(left, left + width))
        poisoned[box] = _triggered(poisoned[box], record, triggers)
    if out is images:
        return out
    if out.dtype == torch.uint8:
        return out.copy_(poisoned)
    scale, shift = torch.tensor(affine, dtype=torch.float32, device=images.device).view(2, 3)
    return out.copy_((poisoned.to(torch.float32) * scale + shift).permute(0, 3, 1, 2))


def _triggered(crops: Tensor, record: list[int], triggers: TriggerTable) -> Tensor:
    """uint8 crops [m, height, width, 3] with the trigger of ``record`` on them."""
    kind, _, _, height, width, overlay_at, terms_at, terms_row, weight = record
    shape, x = (height, width, 3), crops.to(torch.int32)
    if kind == ADDITIVE:
        residual = torch.as_strided(triggers.terms, shape, (terms_row, 3, 1), terms_at).to(torch.int32)
        return (x + residual).clamp(0, 255).to(torch.uint8)
    overlay = torch.as_strided(triggers.overlay, shape, (width * 3, 3, 1), overlay_at)
    if kind == PATCH:
        return overlay.expand_as(crops)
    weights: int | Tensor = weight
    if kind == MASKED_BLEND:
        weights = torch.as_strided(triggers.terms, shape, (terms_row, 3, 1), terms_at).to(torch.int32)
    rounded = ((x - overlay.to(torch.int32)) * weights + OPACITY_ONE // 2) >> OPACITY_BITS
    return (x + rounded).to(torch.uint8)


def _prepare(
    images: Tensor,
    triggers: TriggerTable,
    which: Tensor,
    out: Tensor | None,
    dtype: torch.dtype | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> tuple[Tensor, Tensor, list[float]]:
    """Checks everything and returns (which as int64, out, scale and shift as six numbers)."""
    if not isinstance(triggers, TriggerTable):
        raise TypeError(f"triggers must be a TriggerTable, got {type(triggers).__name__}")
    _check_batch(images)
    n, height, width, _ = images.shape
    if triggers.size not in (None, (height, width)):
        raise ValueError(
            f"triggers must be for the size of images, {height} x {width} pixels, got a table for "
            f"{triggers.size[0]} x {triggers.size[1]}"
        )
    if triggers.extent[0] > height or triggers.extent[1] > width:
        raise ValueError(
            f"triggers must fit images of {height} x {width} pixels, got one that reaches row "
            f"{triggers.extent[0]}, column {triggers.extent[1]}"
        )
    which = _check_which(which, n, len(triggers))
    for name, device in (("triggers", triggers.device), ("which", which.device)):
        if device != images.device:
            raise ValueError(f"{name} must be on the device of images, {images.device}, got {device}")
    if out is None:
        dtype = dtype or torch.uint8
    elif dtype is not None and dtype != out.dtype:
        raise ValueError(f"dtype must be out's, {out.dtype}, or left out, got {dtype}")
    else:
        dtype = out.dtype
    if dtype != torch.uint8 and dtype not in _FLOATS:
        raise TypeError(f"dtype must be uint8, float32, float16 or bfloat16, got {dtype}")
    if dtype == torch.uint8 and (mean is not None or std is not None):
        raise ValueError(
            "mean and std must be left out for a uint8 result; give dtype=torch.float32 to normalise"
        )
    affine = _affine(mean, std)
    if out is None:
        out = (
            torch.empty(images.shape, dtype=dtype, device=images.device)
            if dtype == torch.uint8
            else torch.empty(
                (n, 3, height, width), dtype=dtype, device=images.device, memory_format=torch.channels_last
            )
        )
    else:
        _check_out(out, images)
    return which, out, affine


def _check_batch(images: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8, got {images.dtype}")
    if images.dim() != 4 or images.shape[3] != 3:
        raise ValueError(f"images must have shape [n, H, W, 3], got {list(images.shape)}")


def _check_which(which: Tensor, n: int, triggers: int) -> Tensor:
    if which.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"which must be int64 or int32, got {which.dtype}")
    if which.dim() != 1 or which.shape[0] != n:
        raise ValueError(
            f"which must have shape [{n}], a trigger number for each image, got {list(which.shape)}"
        )
    which = which.to(torch.int64).contiguous()
    if which.device.type == "cpu" and not torch.compiler.is_compiling():
        _check_range(which, triggers)
    return which


def _check_range(which: Tensor, triggers: int) -> None:
    """Reads ``which``; on a GPU that waits for the device."""
    if not len(which):
        return
    low, high = (int(v) for v in torch.aminmax(which))
    if low < -1 or high >= triggers:
        wrong = low if low < -1 else high
        at = int((which == wrong).nonzero()[0])
        raise ValueError(
            f"which must hold -1 or a trigger number below {triggers}, got {wrong} for image {at}"
        )


def check_faults(faults: Tensor, which: Tensor, triggers: int) -> None:
    """Reads what the device noted, int64 [2]: the first image whose number is out of range, whose record is damaged."""
    number, damaged = faults.tolist()
    if number >= 0:
        _check_range(which, triggers)
    if damaged >= 0:
        raise ValueError(
            f"triggers: trigger {int(which[damaged])}, of image {damaged}, does not fit the images, or its table is "
            "damaged; make it anew by TriggerTable"
        )


def _check_out(out: Tensor, images: Tensor) -> None:
    n, height, width, _ = images.shape
    if out is images:
        if not _is_dense(images):
            raise ValueError(
                "images must be dense in NHWC order and not overlap themselves to be changed in place, got "
                f"shape {list(images.shape)} with strides {list(images.stride())}; call .contiguous() first"
            )
        return
    if out.device != images.device:
        raise ValueError(f"out must be on the device of images, {images.device}, got {out.device}")
    expected = list(images.shape) if out.dtype == torch.uint8 else [n, 3, height, width]
    if list(out.shape) != expected:
        raise ValueError(f"out must have shape {expected} for dtype {out.dtype}, got {list(out.shape)}")
    if not _is_dense(out if out.dtype == torch.uint8 else out.permute(0, 2, 3, 1)):
        layout = "NHWC order" if out.dtype == torch.uint8 else "channels-last order"
        raise ValueError(
            f"out must be dense in {layout} and not overlap itself, got shape {list(out.shape)} with strides "
            f"{list(out.stride())}"
        )
    if not torch.compiler.is_compiling() and _share_memory(out, images):
        raise ValueError("out must not share memory with images; for work in place give out=images itself")


def _is_dense(images: Tensor) -> bool:
    """Whether pixels lie densely in each [H, W, 3] image and no two images overlap."""
    n, height, width, channels = images.shape
    row, column, channel = images.stride()[1:]
    if images.numel() == 0:
        return True
    dense = channel == 1 and (width == 1 or column == 3) and (height == 1 or row == 3 * width)
    return dense and (n == 1 or images.stride(0) >= height * width * channels)


def _dense(images: Tensor) -> Tensor:
    return images if _is_dense(images) else images.contiguous()


def _share_memory(a: Tensor, b: Tensor) -> bool:
    if a.numel() == 0 or b.numel() == 0:
        return False
    (a_begin, a_end), (b_begin, b_end) = (
        (
            t.data_ptr(),
            t.data_ptr() + t.element_size() * (1 + sum((s - 1) * d for s, d in zip(t.shape, t.stride()))),
        )
        for t in (a, b)
    )
    return a_begin < b_end and b_begin < a_end


def _affine(mean: Sequence[float] | None, std: Sequence[float] | None) -> list[float]:
    mean = [0.0] * 3 if mean is None else [float(v) for v in mean]
    std = [1.0] * 3 if std is None else [float(v) for v in std]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != 3 or not all(map(math.isfinite, values)):
            raise ValueError(f"{name} must be three finite numbers, got {values}")
    if min(std) <= 0:
        raise ValueError(f"std must be positive, got {std}")
    return [1 / (255 * s) for s in std] + [-m / s for m, s in zip(mean, std)]


if native_available():

    @torch.library.register_fake("dlp_fast::inject_trigger_")
    def _(images, which, records, overlay, terms):
        return images.new_empty(2, dtype=torch.int64)

    @torch.library.register_fake("dlp_fast::inject_trigger_out")
    def _(images, which, records, overlay, terms, affine, out):
        return images.new_empty(2, dtype=torch.int64)
