"""Resizing and cropping as tensor operations, for a graph that takes pictures of any size (ONNX).

The result is that of `dlp_fast.data.fitting.fit`, Pillow's bilinear filter with antialiasing, to within one of 255
levels: both round to whole levels after each of the two passes, and add up in another order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

GRAPH_FITS = ("squash", "crop")  # of dataset.fit, what can be a part of a graph


class Resizing(nn.Module):
    """uint8 [n, h, w, 3] of any size, n at least 1 -> fp32 [n, height, width, 3], whole levels 0 to 255."""

    def __init__(self, height: int, width: int, fit: str):
        super().__init__()
        self.height, self.width, self.fit = height, width, fit

    def forward(self, images: Tensor) -> Tensor:
        rows, columns = _places(images[0, :, 0, 0]), _places(images[0, 0, :, 0])
        top, bottom, left, right = self.region(rows.max() + 1, columns.max() + 1)
        x = images.permute(0, 3, 1, 2).to(torch.float32)
        x = _levels(x @ _weights(columns, left, right, self.width).T)  # as Pillow does: along the rows first
        x = _levels(_weights(rows, top, bottom, self.height) @ x)
        return x.permute(0, 2, 3, 1)

    def region(self, h: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(top, bottom, left, right) in pixels of what is left of h x w; `fitting.region` for tensors, in fp32."""
        if self.fit == "squash":
            none = torch.zeros_like(h).float()
            return none, h.float(), none, w.float()
        height, width = torch.tensor(self.height), torch.tensor(self.width)
        wide = w * height >= h * width
        whole_h = torch.where(wide, height, torch.maximum(height, h * width // w)).double()
        whole_w = torch.where(wide, torch.maximum(width, w * height // h), width).double()
        top, left = torch.round((whole_h - height) / 2), torch.round((whole_w - width) / 2)
        down, across = h.double() / whole_h, w.double() / whole_w
        bottom = torch.minimum((top + height) * down, h.double())
        right = torch.minimum((left + width) * across, w.double())
        return (top * down).float(), bottom.float(), (left * across).float(), right.float()


def _places(line: Tensor) -> Tensor:
    """0, 1, 2, ... int64, as many as `line` is long; an exported graph learns the length of its input from it."""
    return torch.ones_like(line, dtype=torch.int64).cumsum(0) - 1


def _weights(places: Tensor, start: Tensor, end: Tensor, out: int) -> Tensor:
    """fp32 [out, in]: how much of each input pixel is in each output pixel; a triangle, each row adds up to 1."""
    scale = (end - start).double() / out
    support = torch.clamp(scale, min=1.0)
    centre = start.double() + (torch.arange(out, dtype=torch.float64) + 0.5) * scale
    weights = torch.clamp(1 - (places.double() + 0.5 - centre[:, None]).abs() / support, min=0.0)
    return (weights / weights.sum(1, keepdim=True)).float()


def _levels(x: Tensor) -> Tensor:
    return torch.clamp(torch.floor(x + 0.5), 0, 255)
