"""Small pictures: brought down, joined to sheets, and encoded for a page that loads nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

LOSSLESS_SIDE = 48  # pixels: up to here PNG, so that a trigger of single pixels is seen as it is
ACROSS = 10  # thumbnails in a row of a sheet, and rows
LOSSLESS_BYTES = 6_000_000  # of sheets; what comes after them is JPEG
QUALITY = 90  # of JPEG


def shrink(pictures: Tensor, longest: int) -> Tensor:
    """uint8 [b, h, w, 3] at most `longest` pixels a side."""
    height, width = pictures.shape[1:3]
    if max(height, width) <= longest:
        return pictures
    scale = longest / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if not len(pictures):
        return pictures.new_zeros(0, size[1], size[0], 3)
    small = [np.asarray(Image.fromarray(p.numpy()).resize(size, Image.Resampling.BOX)) for p in pictures]
    return torch.from_numpy(np.stack(small))


def source(pixels: np.ndarray) -> str:
    """A picture, uint8 [h, w, 3] or [h, w], as a data: address."""
    lossless = max(pixels.shape[:2]) <= LOSSLESS_SIDE
    return _address(_png(pixels) if lossless else _jpeg(pixels, QUALITY), lossless)


def sheets(thumbnails: Tensor, most_bytes: int) -> list[str]:
    """Sheets of ACROSS x ACROSS thumbnails, uint8 [k, h, w, 3], row by row, as data: addresses.

    The first are lossless where thumbnails are small. All together have at most `most_bytes` characters: where they
    would have more, JPEG gets coarser, and then the last sheets are left out.
    """
    if most_bytes <= 0 or not len(thumbnails):
        return []
    joined = [_joined(part.numpy()) for part in thumbnails.split(ACROSS * ACROSS)]
    small = max(thumbnails.shape[1:3]) <= LOSSLESS_SIDE
    first: list[str] = []
    for pixels in joined if small else ():
        address = _address(_png(pixels), True)
        if sum(map(len, first)) + len(address) > min(LOSSLESS_BYTES, most_bytes):
            break
        first.append(address)
    for quality in (QUALITY, 75, 50):
        found = first + [_address(_jpeg(pixels, quality), False) for pixels in joined[len(first) :]]
        if sum(map(len, found)) <= most_bytes:
            return found
    return found[: _fitting(found, most_bytes)]


def _fitting(parts: Sequence[str], most: int) -> int:
    return int((np.cumsum([len(part) for part in parts]) <= most).sum())


def _joined(pictures: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: a last sheet has as many rows as it needs."""
    k, height, width, _ = pictures.shape
    rows = -(-k // ACROSS)
    padded = np.zeros((rows * ACROSS, height, width, 3), dtype=np.uint8)
    padded[:k] = pictures
    grid = padded.reshape(rows, ACROSS, height, width, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grid.reshape(rows * height, ACROSS * width, 3))


def _png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG", optimize=True)
    return data.getvalue()


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=quality, subsampling=0)
    return data.getvalue()


def _address(content: bytes, png: bool) -> str:
    return f"data:image/{'png' if png else 'jpeg'};base64,{base64.b64encode(content).decode()}"
