"""Atomic, hashed, resumable state: safetensors and JSON, nothing is ever unpickled.

A checkpoint is a folder `checkpoints/<number>` with tensors.safetensors, state.json and, written last,
manifest.json with the SHA-256 of both. It appears under its name by one rename, after everything is on disk; the
one before it is kept, so that a damaged newest one costs a few seconds of work and not the run. Long columns, of sets
of hundreds of thousands of images, lie in `checkpoints/columns`, and only those that changed are written.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from dlp_fast.errors import DataError, ResourceError
from dlp_fast.runs.columns import Columns, are_columns
from dlp_fast.runs.files import sha256, sync, write_failed

FORMAT = 1
KEEP = 2
COLUMNS, MANIFEST = "columns", "manifest.json"
NAMES = ("tensors.safetensors", "state.json")


def flatten(value: Any, prefix: str, tensors: dict[str, torch.Tensor], columns: Columns | None = None) -> Any:
    """`value` with each tensor moved to `tensors`, or to `columns` where it is long, and a {"tensor": key} or
    {"columns": …} put in its place, for JSON.
    """
    if isinstance(value, torch.Tensor):
        if columns is not None and are_columns(value):
            return {"columns": columns.keep(value)}
        tensors[prefix] = value.detach().cpu().contiguous().clone()
        return {"tensor": prefix}
    if isinstance(value, dict):
        return {"items": [[k, flatten(v, f"{prefix}.{k}", tensors, columns)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [flatten(v, f"{prefix}.{i}", tensors, columns) for i, v in enumerate(value)]}
    return {"plain": value}


def unflatten(value: Any, tensors: dict[str, torch.Tensor], columns: Columns | None = None) -> Any:
    kind, content = next(iter(value.items()))
    if kind == "columns" and columns is not None:
        return columns.read(content)
    if kind == "tensor":
        return tensors[content]
    if kind == "items":
        return {k: unflatten(v, tensors, columns) for k, v in content}
    if kind == "list":
        return [unflatten(v, tensors, columns) for v in content]
    return content


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, folder: Path, run: str | None = None):
        """`run`: what tells this run from others; a checkpoint that was copied from another run is passed over."""
        self.folder, self.run = folder, run
        self.warnings: list[str] = []

    def _numbers(self) -> list[int]:
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit())

    def save(self, state: Any) -> Path:
        """Write `state` (nested dicts and lists of tensors and JSON values) as the newest checkpoint.

        Raises ResourceError where the disk is full or cannot be written; the checkpoints before stay.
        """
        tensors: dict[str, torch.Tensor] = {}
        columns = Columns(self.folder / COLUMNS)
        number = (self._numbers() or [0])[-1] + 1
        building, final = self.folder / "building", self.folder / str(number)
        needed = 0
        try:
            plain = json.dumps(flatten(state, "s", tensors, columns)).encode()
            columns.commit()
            needed = len(plain) + sum(t.numel() * t.element_size() for t in tensors.values())
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            save_file(tensors, building / "tensors.safetensors")
            (building / "state.json").write_bytes(plain)
            manifest = {
                "format": FORMAT,
                "run": self.run,
                "sha256": {name: sha256(building / name) for name in NAMES},
            } | ({"columns": sorted(columns.used)} if columns.used else {})
            (building / MANIFEST).write_text(json.dumps(manifest))
            for path in (*(building / name for name in NAMES), building / MANIFEST, building):
                sync(path)
            os.rename(building, final)
            sync(self.folder)
        except OSError as error:
            shutil.rmtree(building, ignore_errors=True)
            raise write_failed(error, self.folder, needed) from error
        except SafetensorError as error:  # its writer wraps the system's error in its own
            shutil.rmtree(building, ignore_errors=True)
            raise ResourceError(
                f"the checkpoint in {self.folder} cannot be written ({error}; {needed:,} bytes needed). "
                "The one before it is intact: free some space and run the same command again."
            ) from error
        for old in self._numbers()[:-KEEP]:
            shutil.rmtree(self.folder / str(old), ignore_errors=True)
        self._forget_columns(columns)
        return final

    def _forget_columns(self, columns: Columns) -> None:
        """Take away those that no checkpoint needs; all stay where one cannot say what it needs."""
        if not columns.folder.is_dir():
            return
        try:
            manifests = [json.loads((self.folder / str(k) / MANIFEST).read_text()) for k in self._numbers()]
            columns.forget({name for manifest in manifests for name in manifest.get("columns", [])})
        except (OSError, ValueError, AttributeError):
            return

    def load(self) -> Any | None:
        """The newest whole state, or None where there is none. A damaged one is passed over with a warning."""
        for number in reversed(self._numbers()):
            folder = self.folder / str(number)
            try:
                return self._read(folder)
            except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError) as error:
                self.warnings.append(f"checkpoint {folder} is damaged ({error}) and passed over")
        return None

    def _read(self, folder: Path) -> Any:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise DataError(
                f"checkpoint {folder} has format {manifest['format']}, this version of dlp_fast reads {FORMAT}. "
                "Finish the run with the version that began it, or start anew with another --out."
            )
        if not {"format", "sha256"} <= manifest.keys() <= {"format", "sha256", "run", "columns"}:
            raise ValueError("its manifest has other keys")
        if self.run is not None and manifest.get("run", self.run) != self.run:
            raise ValueError("it is of another run")
        for name in NAMES:
            if sha256(folder / name) != manifest["sha256"][name]:
                raise ValueError(f"{name} does not match its SHA-256")
        tensors = load_file(folder / "tensors.safetensors")
        state = json.loads((folder / "state.json").read_text())
        return unflatten(state, tensors, Columns(self.folder / COLUMNS))
