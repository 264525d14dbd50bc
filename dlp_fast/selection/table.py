"""The table of samples.csv: one line an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlp_fast.runs.names import csv_cell
from dlp_fast.runs.schema import CSV_ROWS
from dlp_fast.selection.partition import Selection


def samples_table(
    paths: tuple[str, ...],
    labels: Tensor,
    classes: tuple[str, ...],
    chosen: Selection,
    entropy: Tensor,
    overrides: dict[int, str],
) -> dict[str, Sequence[Any]]:
    """The columns of samples.csv by name, in the order of the ids; of more than CSV_ROWS images numbers are arrays.

    Args: labels: int64 [n], after a person's relabeling; entropy: fp32 [n], bits, after stage 1; overrides: a person's
    decision by id; where there are any they are kept in a column of their own.
    """
    decision = ["undecided"] * len(paths)
    for i in chosen.suspected_clean.tolist():
        decision[i] = "suspected_clean"
    for i in chosen.mislabeled.tolist():
        decision[i] = "probably_mislabeled"
    for i in chosen.suspected_poisoned.tolist():
        decision[i] = "suspected_poisoned"
    names = [csv_cell(name) for name in classes]
    listed = _as_list if len(paths) <= CSV_ROWS else _as_array
    columns: dict[str, Sequence[Any]] = {
        "sample_id": listed(torch.arange(len(paths))),
        "path": [csv_cell(path) for path in paths],
        "label": [names[label] for label in labels.tolist()],
        "score": listed(chosen.score),
        "entropy": listed(entropy),
        "rank": listed(chosen.rank),
        "decision": decision,
    }
    if overrides:
        columns["override"] = [overrides.get(i, "") for i in range(len(paths))]
    return columns


def _as_list(values: Tensor) -> list[Any]:
    return values.tolist()


def _as_array(values: Tensor) -> np.ndarray:
    """int64, or float64: what a list would be written as."""
    return (values.double() if values.is_floating_point() else values).numpy()
