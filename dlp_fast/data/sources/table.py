"""A table of paths and labels: CSV, TSV or Parquet, and the folder that the images lie in."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlp_fast.config import DataConfig
from dlp_fast.data.classes import tell_alike, tell_no_labels
from dlp_fast.data.image_index import ImageIndex, image_index
from dlp_fast.data.near import nearest_path
from dlp_fast.data.quarantine import reasons_and_remedy
from dlp_fast.data.scan import Progress, Quarantined, scan_files
from dlp_fast.data.scan_answers import ScanRecord
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.indexed import data_set
from dlp_fast.data.sources.labels import by_bytes, refuse_unusable_names
from dlp_fast.data.sources.table_text import Row, read_rows, western
from dlp_fast.data.split_names import ROLE_OF, tell_validation
from dlp_fast.errors import DataError
from dlp_fast.runs.names import counted, listing, printable

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".bmp", ".webp", ".tif", ".tiff", ".gif")


def load_table(
    table: str | Path,
    options: DataConfig,
    *,
    loader: str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The images that `table` names, below `options.images` or, where that is unset, below the table's own folder.

    Columns are found by their names, see table_text; without a split column all rows are training images.
    Images are numbered by class and path, whatever the order of the rows.

    Raises DataError: no such columns, a row without a label, one file under two labels, or no usable image of a class.
    """
    table, where = Path(table), printable(str(table))
    root, rows, quarantine, warnings = _read(table, options, where)
    splits, more = _by_split(rows, where)
    warnings += more
    usable, rejected = _scanned(root, splits, options, where, cache, progress)
    quarantine = sorted(quarantine + rejected, key=lambda item: os.fsencode(item.path))
    indices = {
        split: replace(index, follow_links=options.follow_links)
        for split, index in _indices(root, splits, usable, quarantine, where, tuple(warnings)).items()
    }
    of_path = {row.path: (split, row.label) for split, part in splits.items() for row in part}
    return data_set(
        printable(table.stem) or "table",
        indices,
        quarantine,
        options,
        class_of=of_path.get,
        loader=loader,
        progress=progress,
    )


def index_table(
    table: str | Path,
    options: DataConfig,
    classes: Sequence[str],
    *,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[ImageIndex, list[Quarantined]]:
    """The test rows of `table`, or all where it has no splits, for a model that has its `classes`: labels are positions
    in them. Its own folder is where paths start from. Raises DataError: a label that is none of them; else as
    `load_table`.
    """
    table, where = Path(table), printable(str(table))
    options = options.model_copy(update={"images": None})
    root, rows, quarantine, warnings = _read(table, options, where)
    if any(row.split for row in rows):
        splits, more = _by_split(rows, where, needed="test")
        rows, warnings = splits["test"], warnings + more
    known = frozenset(classes)
    unknown = by_bytes([row.label for row in rows if row.label not in known])
    if unknown:
        raise DataError(
            f"{where}: label {listing(unknown, 4)} is none of the {len(classes)} classes trained on "
            f"({listing(classes, 8)})"
        )
    usable, rejected = _scanned(root, {"test": rows}, options, where, cache, progress)
    quarantine = sorted(quarantine + rejected, key=lambda item: os.fsencode(item.path))
    by_class: dict[str, list[ScanRecord]] = {name: [] for name in classes}
    for row in sorted(rows, key=lambda row: os.fsencode(row.path)):
        if row.path in usable:
            by_class[row.label].append(usable[row.path])
    if not usable:
        raise DataError(f"{where}: no usable image ({reasons_and_remedy(quarantine)})")
    index = image_index(root, by_class, tuple(classes), tuple(warnings))
    return replace(index, follow_links=options.follow_links), quarantine


def _read(
    table: Path, options: DataConfig, where: str
) -> tuple[str, list[Row], list[Quarantined], list[str]]:
    """(real folder that paths start from, rows with paths below it, rows that lead out of it, what is to be said)."""
    folder = options.images or table.resolve().parent
    if not folder.is_dir():
        raise DataError(
            f"{printable(str(folder))}: no such folder; give --dataset.images the folder of {where}'s paths"
        )
    root = os.path.realpath(folder)
    rows, told = read_rows(table, where)
    rows, quarantine = _placed(rows, root, os.path.abspath(folder))
    rows, warnings = _once(rows, where)
    return root, rows, quarantine, told + warnings


def _scanned(
    root: str,
    splits: dict[str, list[Row]],
    options: DataConfig,
    where: str,
    cache: str | Path | None,
    progress: Progress | None,
) -> tuple[dict[str, ScanRecord], list[Quarantined]]:
    """(what was found of each usable file, by its path; the others)."""
    paths = list(dict.fromkeys(row.path for part in splits.values() for row in part))
    _tell_missing(root, paths, where)
    limits = options.model_dump(include={"max_megapixels", "max_megabytes", "workers", "follow_links"})
    records, rejected = scan_files(root, paths, **limits, cache=cache, progress=progress)
    return {record.path: record for record in records}, rejected


def _placed(rows: list[Row], root: str, given: str) -> tuple[list[Row], list[Quarantined]]:
    """Rows with paths relative to `root`; what leads out of it is left out. `given`: `root` as it was named."""
    placed, refused = [], []
    for row in rows:
        path = row.path
        if "\\" in path and not os.path.lexists(os.path.join(root, path)):
            path = path.replace("\\", "/")
        for base in (root, given) if os.path.isabs(path) else ():
            if path.startswith(base.rstrip("/") + "/"):
                path = os.path.relpath(os.path.normpath(path), base)
                break
        path = os.path.normpath(path)
        if os.path.isabs(path) or path in ("..", ".") or path.startswith("../"):
            detail = f"the path leads out of {root} (--dataset.images)"
            refused.append(Quarantined(row.path, "link_leaves_folder", detail))
            continue
        placed.append(Row(row.number, there(root, path), row.label, row.split))
    if not placed:
        first = rows[0].path.replace("\\", "/")
        advice = _found_instead(root, first.lstrip("/")) or "give --dataset.images the folder that holds them"
        raise DataError(
            f"{printable(rows[0].path)} and all other paths lead out of {printable(root)}; {advice}"
        )
    held = {row.label for row in placed}
    gone = by_bytes([row.label for row in rows if row.label not in held])
    if gone:
        raise DataError(
            f"all paths of class {listing(gone)} lead out of {printable(root)}; give --dataset.images a folder that "
            "holds them too, or take the rows out"
        )
    return placed, refused


def there(root: str, path: str) -> str:
    """`path` below `root` as the file is called: names in Windows' code page and those without an ending are found."""
    if os.path.lexists(os.path.join(root, path)):
        return path
    path = western(path)
    return next((path + s for s in _IMAGE_SUFFIXES if os.path.isfile(os.path.join(root, path + s))), path)


def _once(rows: list[Row], where: str) -> tuple[list[Row], list[str]]:
    """Each file once a split; DataError where it has two labels."""
    seen: dict[tuple[str, str], Row] = {}
    clashes = []
    for row in rows:
        first = seen.setdefault((row.path, row.split), row)
        if first.label != row.label:
            clashes.append((first, row))
    if clashes:
        one, other = clashes[0]
        raise DataError(
            f"{where}: {printable(one.path)} is {printable(one.label)!r} in row {one.number} and "
            f"{printable(other.label)!r} in row {other.number} ({counted(len(clashes), 'such row')}); a picture has "
            "one label here"
        )
    twice = len(rows) - len(seen)
    say = "says what another says, and counts" if twice == 1 else "say what others say, and count"
    return list(seen.values()), [f"{where}: {counted(twice, 'row')} {say} once"] if twice else []


def _by_split(rows: list[Row], where: str, needed: str = "train") -> tuple[dict[str, list[Row]], list[str]]:
    """Training and test rows, where there are any; and what is to be said of the others. DataError where there are none
    of the split `needed`.
    """
    parts: dict[str, list[Row]] = {}
    for row in rows:
        kind = ROLE_OF.get(row.split.casefold()) if row.split else "train"
        if kind is None:
            raise DataError(
                f"{where}: row {row.number} is of split {printable(row.split)!r}; expected train, test or validation"
            )
        parts.setdefault(kind, []).append(row)
    seen = ", ".join(sorted(parts))
    validation, test = parts.pop("validation", []), parts.get("test", [])
    warnings = list(tell_validation(where, len(validation), len(test), "row"))
    if validation and not test:
        parts["test"] = validation
    if needed not in parts:
        raise DataError(f"{where}: no row is of split {needed}; there are {seen}")
    return {split: parts[split] for split in ("train", "test") if split in parts}, warnings


def _tell_missing(root: str, paths: list[str], where: str) -> None:
    """DataError where no file is there at all: then the folder is wrong, or the way that paths are written."""
    if any(os.path.lexists(os.path.join(root, path)) for path in paths):
        return
    raise DataError(
        f"{where}: none of its {len(paths):,} files is in {printable(root)}, such as {printable(paths[0])}; "
        + (_found_instead(root, paths[0]) or "give --dataset.images the folder that the paths start from")
    )


def _found_instead(root: str, path: str) -> str | None:
    """What to do where the file is there under another path, or could never be; None where nothing is found."""
    if re.match(r"[a-z]+:/", path):
        return "these are addresses: download the pictures, and put their paths into the table"
    above = os.path.dirname(root)
    if os.path.lexists(os.path.join(above, path)):
        return f"they are in the folder above it: give --dataset.images {printable(above)}"
    parts = path.split("/")
    for cut in range(1, len(parts)):
        inner = "/".join(parts[cut:])
        if os.path.lexists(os.path.join(root, inner)):
            return f"there is {printable(inner)}: take {printable('/'.join(parts[:cut]))}/ off the paths in the table"
    near = nearest_path(os.path.join(root, path))
    if near and near.casefold() == os.path.join(root, path).casefold():
        return f"there is {printable(os.path.basename(near))}, in other letters: write paths as the files are called"
    return None


def _indices(
    root: str,
    splits: dict[str, list[Row]],
    usable: dict[str, ScanRecord],
    quarantine: list[Quarantined],
    where: str,
    warnings: tuple[str, ...],
) -> dict[str, ImageIndex]:
    classes = by_bytes([row.label for row in splits["train"]])
    refuse_unusable_names(classes, where)
    warnings += (*tell_alike(where, classes), *tell_no_labels(where, classes))
    if len(classes) < 2:
        raise DataError(f"{where}: one class ({printable(classes[0])}); expected at least two labels")
    indices = {}
    for split, rows in splits.items():
        by_class: dict[str, list[ScanRecord]] = {name: [] for name in classes}
        for row in sorted(rows, key=lambda row: os.fsencode(row.path)):
            if row.label not in by_class:
                raise DataError(
                    f"{where}: row {row.number} of split {split} has label {printable(row.label)!r}, which no training "
                    "row has"
                )
            if row.path in usable:
                by_class[row.label].append(usable[row.path])
        empty = [name for name, records in by_class.items() if not records]
        if (empty and split == "train") or len(empty) == len(classes):
            error = DataError(
                f"{where}: no usable image of class {printable(empty[0])} in split {split} "
                f"({reasons_and_remedy(quarantine)}); mend the files, or take the rows out"
            )
            error.quarantine = quarantine
            raise error
        indices[split] = image_index(root, by_class, classes, warnings if split == "train" else ())
    return indices
