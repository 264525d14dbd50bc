"""A person's decisions: a column `override` in samples.csv (keep, drop, suspect, relabel), read back and checked."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from dlp_fast import ops
from dlp_fast.errors import DataError
from dlp_fast.runs.names import FORMULA_STARTS, csv_cell, printable
from dlp_fast.runs.tables import read_table
from dlp_fast.selection.partition import Selection, places

OVERRIDES = ("keep", "drop", "suspect", "relabel")


def _nobody() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True)
class Overrides:
    """keep, drop, suspect, relabel: int64 ids, ascending.

    keep: the label is right; drop: detection and stages 2 and 3 do not use the image; suspect: the image is treated as
    poisoned; relabel: as keep, under another label: `new_labels`, int64, in the order of `relabel`.
    """

    keep: Tensor
    drop: Tensor
    suspect: Tensor
    relabel: Tensor = field(default_factory=_nobody)
    new_labels: Tensor = field(default_factory=_nobody)

    @property
    def fingerprint(self) -> str:
        """Hash of what is decided, empty where nothing is."""
        labels, new = self.labels(), dict(zip(self.relabel.tolist(), self.new_labels.tolist()))
        text = "\n".join(f"{i} {labels[i]}" + (f" {new[i]}" if i in new else "") for i in sorted(labels))
        return hashlib.sha256(text.encode()).hexdigest() if text else ""

    @property
    def counts(self) -> dict[str, int]:
        """How many images have each override label."""
        return {label: len(getattr(self, label)) for label in OVERRIDES}

    def labels(self) -> dict[int, str]:
        """The override label of each image that has one, by id."""
        return {i: label for label in OVERRIDES for i in getattr(self, label).tolist()}

    @property
    def right(self) -> Tensor:
        """int64 ids of the images whose label a person says is right, after relabeling."""
        return torch.cat([self.keep, self.relabel])

    def relabeled(self, labels: Tensor) -> Tensor:
        """`labels`, int64 [n], with the new ones in it; detection has seen those that came with the images."""
        if not len(self.relabel):
            return labels
        new = labels.clone()
        new[self.relabel] = self.new_labels
        return new


def is_id(text: str, n: int) -> bool:
    """Whether `text` is a number from 0 to n - 1, in plain digits."""
    return text.isascii() and text.isdecimal() and len(text) < 20 and int(text) < n


def shorten(text: str) -> str:
    return repr(printable(text[:20]))


def no_overrides() -> Overrides:
    return Overrides(_nobody(), _nobody(), _nobody())


def read_decisions(
    file: Path, paths: tuple[str, ...], labels: Tensor | None = None, classes: tuple[str, ...] = ()
) -> Overrides:
    """The overrides in `file` (samples.csv or samples.parquet with the columns override and sample_id or path, or both;
    also as spreadsheet programs save it) for the images `paths`, by id. With relabel, the column label has the new one.

    A path alone may be longer or shorter than that of the image set, where just one image can be meant.

    Args: labels: int64 [n], as the images came; classes: names; where they are missing, nothing can be relabeled.
    Raises DataError, naming the row, for an unknown, doubled or ambiguous image, an unknown word, a formula, another
    image set, or a label that is no class, or is another one without the word relabel.
    """

    def wrong(row: int | None, what: str) -> DataError:
        where = f"decisions file {file}" + ("" if row is None else f", row {row}")
        return DataError(f"{where}: {what}")

    names, rows = _table(file, wrong)
    images, naming = _Images(paths), _Labels(labels, classes)
    found: dict[int, str] = {}
    new: dict[int, int] = {}
    seen: set[int] = set()
    for number, cells in enumerate(rows, start=2):
        if len(cells) != len(names):
            raise wrong(number, f"expected {len(names)} cells")
        row = dict(zip(names, cells))
        word = row["override"].strip().lower()
        if word.startswith(FORMULA_STARTS):
            raise wrong(
                number,
                f"override {shorten(word)} begins like a formula; write keep, drop, suspect or relabel",
            )
        if word and word not in OVERRIDES:
            raise wrong(
                number, f"override {shorten(word)} is unknown; write keep, drop, suspect, relabel or nothing"
            )
        try:
            i = images.named_in(row)
            label = naming.new_in(row, i, word)
        except ValueError as error:
            raise wrong(number, str(error)) from None
        if i in seen:
            raise wrong(number, f"sample_id {i} stands there twice; leave one row")
        seen.add(i)
        if word:
            found[i] = "keep" if word == "relabel" and label is None else word
        if label is not None:
            new[i] = label

    def ids(word: str) -> Tensor:
        return torch.tensor(sorted(i for i, w in found.items() if w == word), dtype=torch.int64)

    relabeled = torch.tensor([new[i] for i in sorted(new)], dtype=torch.int64)
    return Overrides(*(ids(word) for word in OVERRIDES), relabeled)


def _table(file: Path, wrong: Callable[[int | None, str], DataError]) -> tuple[list[str], list[list[str]]]:
    """(names of columns, rows) of `file`; `wrong` makes the error where it cannot be read or has not the columns."""
    try:
        names, rows = read_table(file)
    except (OSError, ValueError) as error:
        raise wrong(None, f"cannot be read ({error}); expected samples.csv with a column override") from None
    missing = [] if "override" in names else ["override"]
    missing += [] if {"sample_id", "path"} & set(names) else ["sample_id or path"]
    if missing:
        raise wrong(
            None,
            f"no column {' and no column '.join(missing)}; add a column override (keep, drop, suspect, relabel) to the "
            "samples.csv of the run",
        )
    return names, rows


class _Labels:
    """New labels by what a row says in its column label: the name of a class as samples.csv writes it."""

    def __init__(self, labels: Tensor | None, classes: tuple[str, ...]):
        self.labels, self.classes = labels, classes
        self.place = {csv_cell(name): i for i, name in enumerate(classes)}

    def new_in(self, row: dict[str, str], i: int, word: str) -> int | None:
        """The new label of image `i`; None where it stays. ValueError: relabel without a class, or the reverse."""
        cell = row.get("label", "")
        said = self.place.get(cell, self.place.get(cell.strip()))
        if word == "relabel":
            if said is None or self.labels is None:
                few = ", ".join(list(self.place)[:8]) + (", ..." if len(self.place) > 8 else "")
                told = f"label {shorten(cell)} is none of {few or 'the classes'}" if cell else "no label"
                raise ValueError(f"relabel, and {told}; write the right class in the column label")
            return None if said == int(self.labels[i]) else said
        if said is not None and self.labels is not None and word in ("", "keep"):
            now = int(self.labels[i])
            if said != now:
                raise ValueError(
                    f"label {shorten(cell)}, and image {i} came as {shorten(csv_cell(self.classes[now]))}; write "
                    "relabel in the column override to change it, or put the label back"
                )
        return None


class _Images:
    """Images by what a row says of them: the id, or the path as samples.csv writes it, or with more or fewer folders
    before it.
    """

    def __init__(self, paths: tuple[str, ...]):
        self.paths = paths
        self.exact = {csv_cell(path): i for i, path in enumerate(paths)}
        self.by_name: dict[str, list[tuple[str, int]]] = {}
        for i, path in enumerate(paths):
            cell = printable(path)
            self.by_name.setdefault(cell.rpartition("/")[2], []).append((f"/{cell}", i))

    def named_in(self, row: dict[str, str]) -> int:
        """The id of the image that a row of the file is of; ValueError where that is none, or not one."""
        if "sample_id" not in row:
            meant = self.meant(row["path"])
            if len(meant) == 1:
                return meant[0]
            told = f"fits {len(meant)} images; give more of it" if meant else "is of no image of this set"
            raise ValueError(f"path {printable(row['path'][:200])} {told}")
        n = len(self.paths)
        if not is_id(row["sample_id"], n):
            raise ValueError(f"sample_id {shorten(row['sample_id'])} is unknown; ids go from 0 to {n - 1}")
        i = int(row["sample_id"])
        if row.get("path", csv_cell(self.paths[i])) != csv_cell(self.paths[i]):
            raise ValueError(
                f"image {i} is {csv_cell(self.paths[i])} in this image set; the file is of another one"
            )
        return i

    def meant(self, cell: str) -> list[int]:
        """Ids of the images that `cell` can mean."""
        if cell in self.exact:
            return [self.exact[cell]]
        given = "/" + cell.removeprefix("'").removeprefix("./").lstrip("/")
        others = self.by_name.get(given.rpartition("/")[2], [])
        return [i for path, i in others if path.endswith(given) or given.endswith(path)]


def apply(chosen: Selection, over: Overrides, to_unlearn: int) -> Selection:
    """The Selection after a person's decisions; of the suspects, the `to_unlearn` most suspicious are unlearnt."""
    if not over.fingerprint:
        return chosen
    n = len(chosen.score)

    def mask(ids: Tensor) -> Tensor:
        inside = torch.zeros(n, dtype=torch.bool)
        inside[ids] = True
        return inside

    keep, drop, suspect = mask(over.right), mask(over.drop), mask(over.suspect)
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
        mislabeled=(mask(chosen.mislabeled) & ~keep & ~drop & ~suspect).nonzero().flatten(),
    )
