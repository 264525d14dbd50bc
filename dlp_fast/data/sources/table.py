"""A table of paths and labels: CSV, TSV or Parquet, and the folder that the images lie in."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dlp_fast.config import DataConfig
from dlp_fast.data.image_index import ImageIndex, image_index
from dlp_fast.data.quarantine import reasons_and_remedy
from dlp_fast.data.scan import Progress, Quarantined, scan_files
from dlp_fast.data.scan_answers import ScanRecord
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.indexed import data_set
from dlp_fast.data.sources.labels import by_bytes, refuse_unusable_names
from dlp_fast.errors import DataError
from dlp_fast.runs.names import listing, printable

SUFFIXES = (".csv", ".tsv", ".parquet", ".pq")
PATHS = (
    "path",
    "filepath",
    "file_path",
    "image_path",
    "img_path",
    "filename",
    "file_name",
    "file",
    "image",
    "img",
)
PATHS += ("image_name", "image_id", "img_id", "id")
LABELS = ("label", "labels", "class", "class_name", "classname", "category", "target", "label_name")
SPLITS = ("split", "set", "subset", "partition")
TRAIN, TEST = ("train", "training"), ("test", "testing")
VALIDATION = ("val", "valid", "validation", "dev", "eval")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".bmp", ".webp", ".tif", ".tiff", ".gif")


@dataclass(frozen=True)
class Row:
    """One row: its number in the file (the header is 1), what it says, and the path below the folder of the images."""

    number: int
    path: str
    label: str
    split: str


def load_table(
    table: str | Path,
    options: DataConfig,
    *,
    loader: str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """The images that `table` names, below `options.images` or, where that is unset, below the table's own folder.

    Columns are found by their names, see PATHS, LABELS and SPLITS; without a split column all rows are training images.
    Images are numbered by class and path, whatever the order of the rows.

    Raises DataError: no such columns, a row without a label, one file under two labels, or no usable image of a class.
    """
    table, where = Path(table), printable(str(table))
    folder = options.images or table.resolve().parent
    if not folder.is_dir():
        raise DataError(
            f"{printable(str(folder))}: no such folder; give --dataset.images the folder of {where}'s paths"
        )
    root = os.path.realpath(folder)
    rows, quarantine = _placed(_rows(table, where), root, os.path.abspath(folder))
    rows, warnings = _once(rows, where)
    splits, more = _by_split(rows, where)
    warnings += more
    paths = list(dict.fromkeys(row.path for part in splits.values() for row in part))
    _tell_missing(root, paths, where)
    limits = options.model_dump(include={"max_megapixels", "max_megabytes", "workers", "follow_links"})
    records, rejected = scan_files(root, paths, **limits, cache=cache, progress=progress)
    quarantine = sorted(quarantine + rejected, key=lambda item: os.fsencode(item.path))
    usable = {record.path: record for record in records}
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


def _rows(table: Path, where: str) -> list[Row]:
    """All rows as they stand there."""
    names, lines = (
        _parquet(table, where) if table.suffix.lower() in (".parquet", ".pq") else _text(table, where)
    )
    columns = _columns(names)
    if columns is None:
        raise DataError(
            f"{where}: its columns are {', '.join(printable(str(n)) for n in names[:12]) or 'none'}; expected a header "
            f"line with a column of paths ({', '.join(PATHS[:6])}, ...) and one of labels "
            f"({', '.join(LABELS[:4])}, ...)"
        )
    path, label, split = columns
    rows, unlabeled = [], []
    for number, line in lines:
        cells = [_cell(line[at]) if at is not None and at < len(line) else "" for at in (path, label, split)]
        if not any(cells[:2]):
            continue  # an empty line
        if not cells[0] or not cells[1]:
            unlabeled.append(number)
        rows.append(Row(number, *cells))
    if unlabeled:
        raise DataError(
            f"{where}: row {unlabeled[0]} has no path or no label ({len(unlabeled):,} such rows); every row "
            "needs both: "
            "fill them in, or take the rows out"
        )
    if not rows:
        raise DataError(f"{where}: no rows; expected one a picture under the header")
    return rows


def _cell(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip()


def _columns(names: list[str]) -> tuple[int, int, int | None] | None:
    """Where the columns of paths, labels and splits are; None where one of the first two is not there."""
    plain = [str(name).strip().lower().replace(" ", "_") for name in names]

    def first(wanted: Iterable[str]) -> int | None:
        return next((plain.index(name) for name in wanted if name in plain), None)

    path, label = first(PATHS), first(LABELS)
    return None if path is None or label is None else (path, label, first(SPLITS))


def _text(table: Path, where: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """(header, numbered lines) of a CSV file with commas, semicolons, tabs or bars, in UTF-8 or UTF-16."""
    try:
        data = table.read_bytes()
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror})") from None
    code = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = data.decode(code, "surrogateescape" if code == "utf-8-sig" else "replace").replace("\0", "\ufffd")
    header = next(iter(text.splitlines()), "")
    tried = {mark: next(csv.reader([header], delimiter=mark), []) for mark in (",", ";", "\t", "|")}
    best = next((mark for mark, names in tried.items() if _columns(names)), None)
    best = best or max(tried, key=lambda mark: len(tried[mark]))

    def lines() -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=best)
        try:
            next(reader, None)
            for line in reader:
                yield reader.line_num, line
        except csv.Error as error:
            raise DataError(f"{where}: line {reader.line_num} is no CSV ({error})") from None

    return tried[best], lines()


def _parquet(table: Path, where: str) -> tuple[list[str], Iterator[tuple[int, list[Any]]]]:
    """The same of a Parquet file, by pyarrow or pandas, whichever is installed."""
    try:
        try:
            import pyarrow.parquet
        except ImportError:
            import pandas

            columns = {str(name): column.tolist() for name, column in pandas.read_parquet(table).items()}
        else:
            columns = pyarrow.parquet.read_table(table).to_pydict()
    except ImportError:
        raise DataError(
            f"{where}: Parquet is read by pyarrow (pip install pyarrow); or save it as CSV"
        ) from None
    except Exception as error:  # whatever a damaged file does to either library
        raise DataError(f"{where}: cannot be read as Parquet ({type(error).__name__}: {error})") from None
    return list(columns), enumerate((list(row) for row in zip(*columns.values())), start=2)


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
        if not os.path.lexists(os.path.join(root, path)):
            path = next(
                (path + s for s in _IMAGE_SUFFIXES if os.path.isfile(os.path.join(root, path + s))), path
            )
        placed.append(Row(row.number, path, row.label, row.split))
    if not placed:
        raise DataError(
            f"{printable(rows[0].path)} and all other paths lead out of {printable(root)}; give --dataset.images the "
            "folder that holds them"
        )
    held = {row.label for row in placed}
    gone = by_bytes([row.label for row in rows if row.label not in held])
    if gone:
        raise DataError(
            f"all paths of class {listing(gone)} lead out of {printable(root)}; give --dataset.images a folder that "
            "holds them too, or take the rows out"
        )
    return placed, refused


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
            f"{printable(other.label)!r} in row {other.number} ({len(clashes):,} such rows); a picture has "
            "one label here"
        )
    twice = len(rows) - len(seen)
    return list(seen.values()), [
        f"{where}: {twice:,} rows say what others say, and count once"
    ] if twice else []


def _by_split(rows: list[Row], where: str) -> tuple[dict[str, list[Row]], list[str]]:
    """Training and, where there are any, test rows; and what is to be said of the others."""
    known = {
        name: kind
        for kind, names in (("train", TRAIN), ("test", TEST), ("val", VALIDATION))
        for name in names
    }
    parts: dict[str, list[Row]] = {}
    for row in rows:
        kind = known.get(row.split.lower(), "train" if not row.split else None)
        if kind is None:
            raise DataError(
                f"{where}: row {row.number} is of split {printable(row.split)!r}; expected train, test or validation"
            )
        parts.setdefault(kind, []).append(row)
    if "train" not in parts:
        raise DataError(f"{where}: no row is of split train; there are {', '.join(sorted(parts))}")
    warnings = []
    if "val" in parts and "test" in parts:
        warnings.append(
            f"{where}: {len(parts.pop('val')):,} validation rows not read, since there are test rows"
        )
    elif "val" in parts:
        parts["test"] = parts.pop("val")
        warnings.append(f"{where}: no test rows; the validation rows are the test set")
    return {split: parts[split] for split in ("train", "test") if split in parts}, warnings


def _tell_missing(root: str, paths: list[str], where: str) -> None:
    """DataError where no file is there at all: then it is the folder that is wrong."""
    if not any(os.path.lexists(os.path.join(root, path)) for path in paths):
        raise DataError(
            f"{where}: none of its {len(paths):,} files is in {printable(root)}, such as {printable(paths[0])}; give "
            "--dataset.images the folder that the paths start from"
        )


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
