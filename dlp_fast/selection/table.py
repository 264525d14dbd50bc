"""The table of samples.csv: one line an image."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlp_fast.runs.names import csv_cell
from dlp_fast.selection.partition import Selection


def samples_table(
    paths: tuple[str, ...],
    labels: Tensor,
    classes: tuple[str, ...],
    chosen: Selection,
    entropy: Tensor,
    overrides: dict[int, str],
) -> dict[str, list[Any]]:
    """The columns of samples.csv by name, in the order of the ids.

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
    columns: dict[str, list[Any]] = {
        "sample_id": list(range(len(paths))),
        "path": [csv_cell(path) for path in paths],
        "label": [names[label] for label in labels.tolist()],
        "score": chosen.score.tolist(),
        "entropy": entropy.tolist(),
        "rank": chosen.rank.tolist(),
        "decision": decision,
    }
    if overrides:
        columns["override"] = [overrides.get(i, "") for i in range(len(paths))]
    return columns
