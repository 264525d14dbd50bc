"""A table as it stands in its file: CSV, TSV or Parquet; which columns hold paths, labels and splits; and its cells."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlp_fast.data.quarantine import IMAGE_SUFFIXES
from dlp_fast.errors import DataError
from dlp_fast.runs.names import counted, listing, printable

PATHS = (
    *("path", "filepath", "file_path", "image_path", "img_path", "filename", "file_name", "file", "fname"),
    *("image", "img", "image_name", "image_id", "img_id", "id"),
)
LABELS = ("label", "labels", "class", "class_name", "classname", "category", "target", "label_name")
SPLITS = ("split", "set", "subset", "partition")
FLAGS = {"is_valid": "val", "is_val": "val", "is_validation": "val", "is_test": "test", "is_train": "train"}
"""Columns of true and false, and the split that true means, as fastai has them."""
_TRUE, _FALSE = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no", "")


@dataclass(frozen=True)
class Row:
    """One row: its number in the file (the header is 1), what it says, and the path below the folder of the images."""

    number: int
    path: str
    label: str
    split: str


@dataclass(frozen=True)
class Columns:
    """Where the columns of paths, labels and splits are; `flag`: what true means where the split is true or false."""

    path: int
    label: int
    split: int | None = None
    flag: str | None = None
    told: str | None = None


def read_rows(table: Path, where: str) -> tuple[list[Row], list[str]]:
    """All rows as they stand there, and what is to be said of the columns and labels.

    Raises DataError: no such columns, a row without path or label, a split that is neither true nor false.
    """
    names, lines = (
        _parquet(table, where) if table.suffix.lower() in (".parquet", ".pq") else _text(table, where)
    )
    columns = find_columns(names)
    if columns is None:
        raise DataError(
            f"{where}: its columns are {', '.join(printable(str(n)[:80]) for n in names[:12]) or 'none'}; expected a "
            f"header line with a column of paths ({', '.join(PATHS[:6])}, ...) and one of labels "
            f"({', '.join(LABELS[:4])}, ...){_missing_header(names)}"
        )
    rows, unlabeled = [], []
    for number, line in lines:
        if columns.path < len(line) and isinstance(line[columns.path], (dict, bytes)):
            raise DataError(
                f"{where}: column {printable(str(names[columns.path]))} holds the pictures themselves, and paths were "
                "expected. Give its rows from Python: dlp_fast.defend(datasets.load_dataset('parquet', "
                "data_files=FILE)['train'])"
            )
        cells = [
            _cell(line[at]) if at is not None and at < len(line) else ""
            for at in (columns.path, columns.label, columns.split)
        ]
        if not any(cells[:2]):
            continue  # an empty line
        if not cells[0] or not cells[1]:
            unlabeled.append(number)
        split = cells[2] if columns.flag is None else _flagged(cells[2], columns.flag, where, number)
        rows.append(Row(number, cells[0], western(cells[1]), western(split)))
    if unlabeled:
        raise DataError(
            f"{where}: row {unlabeled[0]} has no path or no label ({counted(len(unlabeled), 'such row')}); every row "
            "needs both: fill them in, or take the rows out"
        )
    if not rows:
        raise DataError(f"{where}: no rows; expected one a picture under the header")
    rows, told = _whole_numbers(rows, where)
    return rows, [f"{where}: {one}" for one in ([columns.told] if columns.told else [])] + told


def find_columns(names: list[str]) -> Columns | None:
    """Where the columns are, by their names; None where there is none of paths or of labels. Of two columns of which
    one holds the paths, the other one holds the labels.
    """
    plain = [re.sub(r"[\s-]+", "_", str(name).strip().lower()) for name in names]

    def first(wanted: Iterable[str]) -> int | None:
        return next((plain.index(name) for name in wanted if name in plain), None)

    path, label, split, flag = first(PATHS), first(LABELS), first(SPLITS), first(FLAGS)
    if path is not None and label is None and len(plain) == 2:
        label = 1 - path
    if path is None or label is None:
        return None
    others = [str(names[i]) for i, name in enumerate(plain) if name in LABELS and i != label]
    told = (
        f"labels are those of column {printable(str(names[label]))}, and not of {listing(others)}"
        if others
        else None
    )
    if split is None and flag is not None:
        return Columns(path, label, flag, FLAGS[plain[flag]], told)
    return Columns(path, label, split, None, told)


def western(text: str) -> str:
    """`text` of which bytes are not UTF-8 (they stand for themselves), as Windows' code page for Western Europe."""
    if text.isascii() or not any("\udc80" <= c <= "\udcff" for c in text):
        return text
    return os.fsencode(text).decode("cp1252", "replace")


def _missing_header(names: list[str]) -> str:
    """What to do where the first line seems to be a row already."""
    if any(str(name).strip().lower().endswith(IMAGE_SUFFIXES) for name in names):
        return ". The first line looks like a picture: put path,label above it"
    return ""


def _flagged(cell: str, means: str, where: str, number: int) -> str:
    folded = cell.lower()
    if folded not in (*_TRUE, *_FALSE):
        raise DataError(f"{where}: row {number} says {printable(cell)!r}; expected true or false")
    if means == "train":
        return "train" if folded in _TRUE else "test"
    return means if folded in _TRUE else "train"


def _whole_numbers(rows: list[Row], where: str) -> tuple[list[Row], list[str]]:
    """Rows whose labels are whole numbers where all of them are, some with a point and zeros, as pandas writes them."""
    labels = {row.label for row in rows}
    if not all(re.fullmatch(r"-?\d+(\.0+)?", label) for label in labels) or not any(
        "." in one for one in labels
    ):
        return rows, []
    whole = [Row(row.number, row.path, row.label.partition(".")[0], row.split) for row in rows]
    return whole, [
        f"{where}: labels such as {min(one for one in labels if '.' in one)} are taken as whole numbers"
    ]


def _cell(value: Any) -> str:
    return "" if value is None or value != value else str(value).strip()


def _text(table: Path, where: str) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """(header, numbered lines) of a CSV file with commas, semicolons, tabs or bars, in UTF-8 or UTF-16; bytes that are
    neither stand for themselves.
    """
    try:
        data = table.read_bytes()
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror})") from None
    for start, what in (
        (b"\x1f\x8b", "gzip"),
        (b"PK\x03\x04", "a zip archive or a spreadsheet"),
        (b"PAR1", "Parquet"),
    ):
        if data.startswith(start):
            raise DataError(f"{where}: it is {what}, and no text; unpack it, or save it as CSV")
    code = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    text = data.decode(code, "surrogateescape" if code == "utf-8-sig" else "replace").replace("\0", "\ufffd")
    header = next(iter(text.splitlines()), "")
    tried = {mark: next(csv.reader([header], delimiter=mark), []) for mark in (",", ";", "\t", "|")}
    best = next((mark for mark, names in tried.items() if find_columns(names)), None)
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
