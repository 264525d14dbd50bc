"""A fair rival in Triton: rows in registers, one read, exp once an element; the usual formula, so not tail-exact."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

VALUES = 4096  # of a program: several short rows, or one long one


@triton.jit
def _kernel(x, out, n, classes, stride, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row < n)[:, None] & (column < classes)[None, :]
    at = row.to(tl.int64)[:, None] * stride + column[None, :]
    v = tl.load(x + at, mask=inside, other=-float("inf")).to(tl.float32)
    t = tl.where(inside, v - tl.max(v, 1)[:, None], 0.0)
    e = tl.where(inside, tl.exp(t), 0.0)
    s = tl.sum(e, 1)
    bits = (tl.log(s) - tl.sum(e * t, 1) / s) * 1.4426950408889634
    tl.store(out + row, bits, mask=row < n)


def entropy(x: torch.Tensor) -> torch.Tensor:
    """fp32 [n], bits, of contiguous logits [n, C] with C up to 65,536."""
    n, classes = x.shape
    columns = triton.next_power_of_2(classes)
    rows = max(1, VALUES // columns)
    out = torch.empty(n, device=x.device)
    _kernel[(triton.cdiv(n, rows),)](
        x, out, n, classes, x.stride(0), ROWS=rows, COLUMNS=columns, num_warps=4 if columns <= 4096 else 16
    )
    return out
