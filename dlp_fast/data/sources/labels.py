"""Labels that are names, as numbers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dlp_fast.errors import DataError
from dlp_fast.runs.names import printable


def numbered(labels: Any, name: str, classes: Sequence[str] | None) -> tuple[Any, Sequence[str] | None]:
    """(labels as positions in the classes, the classes) where `labels` are names; both as given where they are not.

    Args: name: of the argument, for errors; classes: None: the labels that there are, in the order of their bytes.
    Raises DataError: a label that is no name among names, an empty one, or one that `classes` lack; with the row.
    """
    if isinstance(labels, torch.Tensor) or not hasattr(labels, "__len__"):
        return labels, classes
    kind = labels.dtype.kind if isinstance(labels, np.ndarray) else None
    values = list(labels) if kind in (None, "U", "O") and np.ndim(labels) <= 1 else []
    if not any(isinstance(value, str) for value in values):
        return labels, classes
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"{name}: row {row} has label {value!r}; the others are names, so a name was expected"
            )
    known = tuple(map(str, classes)) if classes is not None else by_bytes(values)
    position = {label: i for i, label in enumerate(known)}
    for row, value in enumerate(values):
        if value not in position:
            shown = ", ".join(map(printable, known[:8])) + (" ..." if len(known) > 8 else "")
            raise DataError(f"{name}: row {row} has label {printable(value)!r}, which is none of {shown}")
    return np.array([position[value] for value in values], dtype=np.int64), known


def by_bytes(names: Sequence[str]) -> tuple[str, ...]:
    """Each name once, in the order of the bytes, as class folders come."""
    return tuple(sorted(set(map(str, names)), key=os.fsencode))


def refuse_unusable_names(names: Sequence[str], where: str) -> None:
    """DataError where a label cannot be the name of a folder, which `export` makes of each."""
    for name in names:
        if name.startswith(".") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
            raise DataError(
                f"{where}: label {printable(name[:80])!r} cannot be the name of a folder (no leading dot, no slash, "
                "at most 255 bytes); rename it"
            )
