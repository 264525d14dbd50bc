"""A person's decisions: a column `override` in samples.csv (keep, drop, suspect), read back and checked."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dlp_fast import ops
from dlp_fast.errors import DataError
from dlp_fast.runs.names import FORMULA_STARTS, csv_cell, printable
from dlp_fast.runs.tables import read_table
from dlp_fast.selection.partition import Selection, places

OVERRIDES = ("keep", "drop", "suspect")


@dataclass(frozen=True)
class Overrides:
    """keep, drop, suspect: int64 ids, ascending.

    keep: the label is right; drop: detection and stages 2 and 3 do not use the image; suspect: the image is treated as
    poisoned.
    """

    keep: Tensor
    drop: Tensor
    suspect: Tensor

    @property
    def fingerprint(self) -> str:
        """Hash of what is decided, empty where nothing is."""
        labels = self.labels()
        text = "\n".join(f"{i} {labels[i]}" for i in sorted(labels))
        return hashlib.sha256(text.encode()).hexdigest() if text else ""

    @property
    def counts(self) -> dict[str, int]:
        """How many images have each override label."""
        return {label: len(getattr(self, label)) for label in OVERRIDES}

    def labels(self) -> dict[int, str]:
        """The override label of each image that has one, by id."""
        return {i: label for label in OVERRIDES for i in getattr(self, label).tolist()}


def is_id(text: str, n: int) -> bool:
    """Whether `text` is a number from 0 to n - 1, in plain digits."""
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < n


def shorten(text: str) -> str:
    return repr(printable(text[:20]))


def no_overrides() -> Overrides:
    none = torch.empty(0, dtype=torch.int64)
    return Overrides(none, none, none)


def read_decisions(file: Path, paths: tuple[str, ...]) -> Overrides:
    """The overrides in `file` (samples.csv or samples.parquet with the columns sample_id and override, and path if it
    is there; also as spreadsheet programs save it) for the images `paths`, by id.

    Raises DataError, naming the row, for an unknown or doubled id, an unknown word, a formula, or another image set.
    """

    def wrong(row: int | None, what: str) -> DataError:
        where = f"decisions file {file}" + ("" if row is None else f", row {row}")
        return DataError(f"{where}: {what}")

    try:
        names, rows = read_table(file)
    except (OSError, ValueError) as error:
        raise wrong(None, f"cannot be read ({error}); expected samples.csv with a column override") from None
    missing = [name for name in ("sample_id", "override") if name not in names]
    if missing:
        raise wrong(
            None,
            f"no column {' and no column '.join(missing)}; add a column override (keep, drop, suspect) to the "
            "samples.csv of the run",
        )
    found: dict[int, str] = {}
    seen: set[int] = set()
    for number, cells in enumerate(rows, start=2):
        if len(cells) != len(names):
            raise wrong(number, f"expected {len(names)} cells")
        row = dict(zip(names, cells))
        word = row["override"].strip().lower()
        if word.startswith(FORMULA_STARTS):
            raise wrong(
                number, f"override {shorten(word)} begins like a formula; write keep, drop or suspect"
            )
        if word and word not in OVERRIDES:
            raise wrong(number, f"override {shorten(word)} is unknown; write keep, drop, suspect or nothing")
        if not is_id(row["sample_id"], len(paths)):
            raise wrong(
                number, f"sample_id {shorten(row['sample_id'])} is unknown; ids go from 0 to {len(paths) - 1}"
            )
        i = int(row["sample_id"])
        if i in seen:
            raise wrong(number, f"sample_id {i} stands there twice; leave one row")
        seen.add(i)
        if "path" in names and row["path"] != csv_cell(paths[i]):
            raise wrong(
                number, f"image {i} is {csv_cell(paths[i])} in this image set; the file is of another one"
            )
        if word:
            found[i] = word

    def ids(word: str) -> Tensor:
        return torch.tensor(sorted(i for i, w in found.items() if w == word), dtype=torch.int64)

    return Overrides(*(ids(word) for word in OVERRIDES))


def apply(chosen: Selection, over: Overrides, to_unlearn: int) -> Selection:
    """The Selection after a person's decisions; of the suspects, the `to_unlearn` most suspicious are unlearnt."""
    if not over.fingerprint:
        return chosen
    n = len(chosen.score)

    def mask(ids: Tensor) -> Tensor:
        inside = torch.zeros(n, dtype=torch.bool)
        inside[ids] = True
        return inside

    keep, drop, suspect = mask(over.keep), mask(over.drop), mask(over.suspect)
    # what a person suspects ranks before all, what a person keeps after all
    score = chosen.score.clone()
    score[over.suspect] = score.min().clamp(max=0) - 1
    score[keep | drop] = chosen.score.max() + 1
    order = ops.select(score, n).lowest
    suspected = (mask(chosen.suspected_poisoned) | suspect) & ~keep & ~drop
    clean = chosen.suspected_clean
    trusted = (mask(chosen.trusted) | keep) & ~suspect & ~drop
    unlabeled = mask(chosen.unlabeled) & ~keep & ~suspect & ~drop
    poisoned = order[suspected[order]]
    unlearnt = (mask(chosen.to_unlearn) | suspect) & ~keep & ~drop
    return replace(
        chosen,
        score=score,
        rank=places(order),
        named=(chosen.named | suspect) & ~keep & ~drop,
        suspected_poisoned=poisoned,
        suspected_clean=clean[~suspect[clean] & ~drop[clean]],
        to_unlearn=order[unlearnt[order]][: len(chosen.to_unlearn) or to_unlearn],
        trusted=trusted.nonzero().flatten(),
        unlabeled=unlabeled.nonzero().flatten(),
        left_out=over.drop,
    )
