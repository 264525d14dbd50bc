"""Triggers as tensors that a kernel reads: patches, blends and residuals for images of one size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

PATCH, BLEND, MASKED_BLEND, ADDITIVE = range(4)
# Opacity 1 in fixed point; csrc/inject_trigger.h says why 15 bits.
OPACITY_BITS = 15
OPACITY_ONE = 1 << OPACITY_BITS
# Values of one trigger begin at multiples of this many, so that kernels load whole vectors.
_ALIGN = 64


@dataclass(frozen=True, eq=False)
class TriggerTable:
    """Triggers for images of one size, as tensors that a kernel reads; build one with the class methods.

    A trigger is an opaque patch, a blend (``(1 - a) x + a t``) or an additive residual (``clamp(x + r, 0,
    255)``) on a rectangle of the image. Opacity is fixed point with 15 fraction bits, ``a = floor(32768 alpha
    + 1/2) / 32768``, and the blend is rounded half up in exact integer arithmetic, ``floor(v + 1/2)``: the
    same bytes on every device.

    Attributes:
        records: int64 [triggers, 9]: kind, top, left, height, width (pixels), start in ``overlay``, start in
            ``terms``, values from one row of terms to the next (0: one row for all), weight
            (-32768 alpha).
        overlay: uint8 [values]: the pixels that patches and blends bring, height x width x 3 for each.
        terms: int16 [values]: weights (-32768 alpha) of masked blends, residuals of additive triggers.
        size: (height, width) in pixels that images must have; None: any size that holds ``extent``.
        extent: (height, width) in pixels, the least size that holds all triggers.
    """

    records: Tensor
    overlay: Tensor
    terms: Tensor
    size: tuple[int, int] | None
    extent: tuple[int, int]

    @classmethod
    def patch(
        cls, image: Tensor, top: int, left: int, *, size: tuple[int, int] | None = None
    ) -> TriggerTable:
        """An opaque patch (BadNets, Gu et al. 2017).

        Args:
            image: uint8 [h, w, 3], the patch.
            top, left: row and column of its upper left pixel.
            size: (height, width) of the images; None: any that hold the patch.

        Raises:
            TypeError, ValueError: dtype or shape of ``image``; a patch that leaves the image.
        """
        _check_pixels("image", image, torch.uint8)
        height, width = image.shape[:2]
        if top < 0 or left < 0:
            raise ValueError(f"top and left must be 0 or more, got top={top}, left={left}")
        if size is not None and (top + height > size[0] or left + width > size[1]):
            raise ValueError(
                f"image must fit: {height} x {width} pixels at row {top}, column {left} leave "
                f"{size[0]} x {size[1]}"
            )
        record = [PATCH, top, left, height, width, 0, 0, 0, 0]
        return cls._single(record, image, None, size)

    @classmethod
    def blend(cls, image: Tensor, alpha: float | Tensor) -> TriggerTable:
        """A blend with a whole image (Blended, Chen et al. 2017; with a mask: TrojanNN, Liu et al. 2018).

        Args:
            image: uint8 [H, W, 3], what is blended in.
            alpha: its opacity from 0 to 1: one number, or floating [H, W], one for each pixel. Only the
                rectangle around the pixels with ``alpha > 0`` is ever touched.

        Raises:
            TypeError, ValueError: dtype or shape of either; opacity outside 0 to 1 or not a number.
        """
        _check_pixels("image", image, torch.uint8)
        size = (image.shape[0], image.shape[1])
        if not isinstance(alpha, Tensor):
            if not 0.0 <= alpha <= 1.0:
                raise ValueError(f"alpha must be from 0 to 1, got {alpha}")
            weight = -math.floor(alpha * OPACITY_ONE + 0.5)
            return cls._single([BLEND, 0, 0, *size, 0, 0, 0, weight], image, None, size)
        if not alpha.is_floating_point():
            raise TypeError(f"alpha must be a number or a floating tensor, got dtype {alpha.dtype}")
        if tuple(alpha.shape) != size:
            raise ValueError(
                f"alpha must have the image's shape [{size[0]}, {size[1]}], got {list(alpha.shape)}"
            )
        if not bool(((alpha >= 0) & (alpha <= 1)).all()):
            raise ValueError("alpha must be from 0 to 1 at every pixel")
        weights = -torch.floor(alpha.double() * OPACITY_ONE + 0.5).to(torch.int32)
        top, left, height, width = _bounding_box(weights != 0)
        box = (slice(top, top + height), slice(left, left + width))
        terms = weights[box].to(torch.int16).unsqueeze(-1).expand(height, width, 3)
        record = [MASKED_BLEND, top, left, height, width, 0, 0, width * 3, 0]
        return cls._single(record, image[box], terms, size)

    @classmethod
    def additive(cls, residual: Tensor) -> TriggerTable:
        """A residual, added and clamped to 0..255 (SIG's sinusoid, Barni et al. 2019; adversarial noise).

        Args:
            residual: int16 [H, W, 3], in levels of 1/255. Only the rectangle around its nonzero pixels is
                ever touched; where all rows are equal (a sinusoid along the columns), one row is stored.

        Raises:
            TypeError, ValueError: dtype or shape of ``residual``.
        """
        _check_pixels("residual", residual, torch.int16)
        size = (residual.shape[0], residual.shape[1])
        top, left, height, width = _bounding_box((residual != 0).any(-1))
        terms = residual[top : top + height, left : left + width]
        row = width * 3
        if height > 1 and bool((terms == terms[:1]).all()):
            terms, row = terms[:1], 0
        return cls._single([ADDITIVE, top, left, height, width, 0, 0, row, 0], None, terms, size)

    @classmethod
    def stack(cls, tables: Sequence[TriggerTable]) -> TriggerTable:
        """One table of all triggers of ``tables``, numbered in their order.

        Raises:
            ValueError: no tables, tables for different image sizes, or on different devices.
        """
        if not tables:
            raise ValueError("tables must hold at least one TriggerTable, got none")
        sizes = {table.size for table in tables if table.size is not None}
        if len(sizes) > 1:
            raise ValueError(f"tables must be for one image size, got {sorted(sizes)}")
        devices = {table.records.device for table in tables}
        if len(devices) > 1:
            raise ValueError(f"tables must be on one device, got {sorted(map(str, devices))}")
        size = next(iter(sizes), None)
        extent = (max(t.extent[0] for t in tables), max(t.extent[1] for t in tables))
        if size is not None and (extent[0] > size[0] or extent[1] > size[1]):
            raise ValueError(
                f"tables must fit {size[0]} x {size[1]} pixels, got a trigger that reaches {extent}"
            )
        records, overlay_start, terms_start = [], 0, 0
        for table in tables:
            moved = table.records.clone()
            moved[:, 5] += overlay_start
            moved[:, 6] += terms_start
            records.append(moved)
            overlay_start += table.overlay.numel()
            terms_start += table.terms.numel()
        overlay, terms = torch.cat([t.overlay for t in tables]), torch.cat([t.terms for t in tables])
        return cls(torch.cat(records), overlay, terms, size, extent)

    def to(self, device: torch.device | str) -> TriggerTable:
        """This table on another device."""
        return replace(
            self,
            records=self.records.to(device),
            overlay=self.overlay.to(device),
            terms=self.terms.to(device),
        )

    @property
    def device(self) -> torch.device:
        """Where the table's tensors are."""
        return self.records.device

    def __len__(self) -> int:
        return self.records.shape[0]

    @classmethod
    def _single(
        cls, record: list[int], overlay: Tensor | None, terms: Tensor | None, size: tuple[int, int] | None
    ) -> TriggerTable:
        source = overlay if overlay is not None else terms
        assert source is not None
        return cls(
            torch.tensor([record], dtype=torch.int64, device=source.device),
            _aligned(overlay, torch.uint8, source.device),
            _aligned(terms, torch.int16, source.device),
            size,
            (record[1] + record[3], record[2] + record[4]),
        )


def _check_pixels(name: str, values: Tensor, dtype: torch.dtype) -> None:
    if values.dtype != dtype:
        raise TypeError(f"{name} must be {dtype}, got {values.dtype}")
    if values.dim() != 3 or values.shape[2] != 3 or 0 in values.shape:
        raise ValueError(
            f"{name} must have shape [height, width, 3] with at least one pixel, got {list(values.shape)}"
        )


def _bounding_box(touched: Tensor) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the true pixels; of nothing, an empty box."""
    if not bool(touched.any()):
        return 0, 0, 0, 0
    rows, columns = touched.any(1).nonzero().flatten(), touched.any(0).nonzero().flatten()
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) + 1 - top, int(columns[-1]) + 1 - left


def _aligned(values: Tensor | None, dtype: torch.dtype, device: torch.device) -> Tensor:
    if values is None:
        return torch.zeros(0, dtype=dtype, device=device)
    padded = torch.zeros(-(-values.numel() // _ALIGN) * _ALIGN, dtype=dtype, device=device)
    padded[: values.numel()] = values.reshape(-1)
    return padded
