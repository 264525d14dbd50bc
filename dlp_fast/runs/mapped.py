"""Columns of a set that is large: two bytes a value, in a file that the system reads and writes as it sees fit."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlp_fast.runs.files import write_failed

MAPPED_FROM = 1_000_000  # images; below, columns are fp32 in memory


def column_table(rows: int, n: int, folder: Path | None) -> Tensor:
    """Zeros [rows, n]: fp32 in memory, or, of MAPPED_FROM images on, fp16 in a file in `folder` (None: where temporary
    files lie) that is gone from there at once, and from the disk with the tensor.

    fp16 keeps a loss or entropy to 1 part in 2,000, and losses down to 6e-8. Raises ResourceError where the disk has no
    room.
    """
    if n < MAPPED_FROM or not rows:
        return torch.zeros(rows, n)
    return mapped((rows, n), torch.float16, folder)


def mapped(shape: tuple[int, ...], dtype: torch.dtype, folder: Path | None) -> Tensor:
    """Zeros of this shape in such a file."""
    count = int(torch.Size(shape).numel())
    place = Path(folder or tempfile.gettempdir())
    handle, name = -1, ""
    try:
        place.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".columns-", dir=place)
        if hasattr(os, "posix_fallocate"):  # room now, not a bus error later
            os.posix_fallocate(handle, 0, count * dtype.itemsize)
        else:
            os.truncate(handle, count * dtype.itemsize)
        return torch.from_file(name, shared=True, size=count, dtype=dtype).view(shape)
    except OSError as error:
        raise write_failed(error, place, count * dtype.itemsize) from None
    finally:
        if handle >= 0:
            os.close(handle)
            os.unlink(name)


def copied(value: Any) -> Any:
    """A copy of nested dicts and lists; tensors in files, which nobody changes any more, are shared."""
    if isinstance(value, Tensor):
        return value if is_mapped(value) else copy.deepcopy(value)
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}
    return [copied(inner) for inner in value] if isinstance(value, list) else copy.deepcopy(value)


def is_mapped(tensor: Tensor) -> bool:
    """Whether the tensor lies in a file."""
    return tensor.device.type == "cpu" and tensor.untyped_storage().filename is not None
