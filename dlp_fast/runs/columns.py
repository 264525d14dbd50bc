"""Long columns of a checkpoint, each in a file of its own, so that one that did not change is not written again."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlp_fast.runs.files import sha256, sync
from dlp_fast.runs.mapped import MAPPED_FROM, mapped

LONG = 1 << 20  # bytes of a column that is worth a file


def are_columns(tensor: Tensor) -> bool:
    """Whether a tensor is one column [n] or several [k, n], and these are long."""
    return tensor.ndim in (1, 2) and tensor.shape[-1] * tensor.element_size() >= LONG and tensor.shape[0] > 0


class Columns:
    """The files, each named by the SHA-256 of what is in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.used: set[str] = set()

    def keep(self, tensor: Tensor) -> dict[str, Any]:
        """Write the columns of `tensor` that are not there yet; what is returned tells `read` where they are."""
        names = [self._keep(row) for row in tensor.detach().cpu().reshape(-1, tensor.shape[-1])]
        return {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "names": names,
        }

    def _keep(self, column: Tensor) -> str:
        content = column.contiguous().view(torch.uint8).numpy()
        name = hashlib.sha256(content).hexdigest()
        self.used.add(name)
        file = self.folder / name
        if file.is_file() and file.stat().st_size == content.nbytes:
            return name
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / "draft"
        try:
            draft.write_bytes(memoryview(content))
            sync(draft)
            os.replace(draft, file)
        finally:
            draft.unlink(missing_ok=True)
        return name

    def commit(self) -> None:
        """Let the disk have their names too."""
        if self.used:
            sync(self.folder)

    def read(self, kept: dict[str, Any]) -> Tensor:
        """The tensor that `keep` was given; ValueError where a file is not what its name says."""
        dtype, shape = getattr(torch, kept["dtype"]), tuple(kept["shape"])
        large = dtype == torch.float16 and shape[-1] >= MAPPED_FROM
        tensor = mapped(shape, dtype, self.folder) if large else torch.empty(shape, dtype=dtype)
        for row, name in zip(tensor.view(-1, shape[-1]), kept["names"], strict=True):
            file = self.folder / str(name)
            if sha256(file) != name:
                raise ValueError(f"column {name[:12]} does not match its SHA-256")
            size = row.numel() * row.element_size()
            row.copy_(torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).view(dtype))
        return tensor

    def forget(self, wanted: Iterable[str]) -> None:
        """Take away all but the files `wanted`."""
        with contextlib.suppress(OSError):
            for name in {entry.name for entry in self.folder.iterdir()} - set(wanted):
                (self.folder / name).unlink(missing_ok=True)
