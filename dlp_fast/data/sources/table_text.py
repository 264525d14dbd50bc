"""A table as it stands in its file: CSV, TSV, JSON lines or Parquet; which columns hold paths, labels and splits; and
its cells.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from dlp_fast.data.quarantine import IMAGE_SUFFIXES
from dlp_fast.data.sources.table_json import JSON_SUFFIXES, json_records
from dlp_fast.errors import DataError
from dlp_fast.runs.names import counted, listing, printable

PATHS = (
    *("path", "filepath", "file_path", "image_path", "img_path", "filename", "file_name", "file", "fname"),
    *("image", "img", "image_name", "image_id", "img_id", "id", "uri", "url", "image_url", "img_url"),
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
    names, lines = _content(table, where)
    columns = find_columns(names)
    if columns is None:
        names, lines = one_hot(names, list(lines), where)
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
                f"{where}: column {printable(str(names[columns.path]))} holds the pictures themselves. Such files are "
                "read by pyarrow (pip install pyarrow), where that column is called image"
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
        rows.append(Row(number, _local(cells[0]), western(cells[1]), western(split)))
    if unlabeled:
        raise DataError(
            f"{where}: row {unlabeled[0]} has no path or no label ({counted(len(unlabeled), 'such row')}); every row "
            "needs both: fill them in, or take the rows out"
        )
    if not rows:
        raise DataError(f"{where}: no rows; expected one a picture under the header")
    rows, told = _whole_numbers(rows, where)
    told += tell_several(where, {row.label for row in rows})
    return rows, [f"{where}: {one}" for one in ([columns.told] if columns.told else [])] + told


def read_paths(table: Path, where: str) -> list[str]:
    """The paths of all rows, whether there is a column of labels or not. DataError: no column of paths, no rows."""
    names, lines = _content(table, where)
    plain = [_plain(name) for name in names]
    at = next((plain.index(name) for name in PATHS if name in plain), None)
    if at is None:
        raise DataError(
            f"{where}: its columns are {listing([printable(str(n)[:80]) for n in names], 12) or 'none'}; expected one "
            f"of paths ({', '.join(PATHS[:6])}, ...)"
        )
    paths = [_local(_cell(line[at])) for _, line in lines if at < len(line)]
    paths = [western(path) for path in paths if path]
    if not paths:
        raise DataError(f"{where}: no rows; expected one a picture under the header")
    return paths


def _content(table: Path, where: str) -> tuple[list[str], Iterable[tuple[int, list[Any]]]]:
    """(names of columns, numbered rows) of a table of any format."""
    suffix = table.suffix.lower()
    if suffix in JSON_SUFFIXES:
        return json_records(table, where)
    return _parquet(table, where) if suffix in (".parquet", ".pq") else _text(table, where)


def find_columns(names: list[str]) -> Columns | None:
    """Where the columns are, by their names; None where there is none of paths or of labels. Of two columns of which
    one holds the paths, the other one holds the labels.
    """
    plain = [_plain(name) for name in names]

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


def one_hot(
    names: list[str], lines: list[tuple[int, list[Any]]], where: str
) -> tuple[list[str], Iterable[tuple[int, list[Any]]]]:
    """A table of a column of paths and one column a class, of which each row has 1 in one and 0 in the others, as one
    of paths and labels (and splits); any other table as it is. DataError: a row with several ones, or with none.
    """
    plain = [_plain(name) for name in names]
    path = next((plain.index(name) for name in PATHS if name in plain), None)
    aside = {path, *(i for i, name in enumerate(plain) if not name or name in (*SPLITS, *FLAGS))}
    classes = [i for i in range(len(names)) if i not in aside]

    def cells(line: list[Any]) -> list[str]:
        return [_cell(line[i]).partition(".0")[0] if i < len(line) else "" for i in classes]

    full = [(number, line) for number, line in lines if any(_cell(cell) for cell in line)]
    if path is None or len(classes) < 2 or not full:
        return names, lines
    if not all(cell in ("0", "1") for _, line in full for cell in cells(line)):
        return names, lines
    made = []
    for number, line in full:
        ones = [i for i, cell in zip(classes, cells(line), strict=True) if cell == "1"]
        if len(ones) != 1:
            said = listing([printable(str(names[i])) for i in ones], 3) if ones else "none of its classes"
            raise DataError(f"{where}: row {number} is of {said}; a picture has one label here")
        made.append((number, [*line, str(names[ones[0]]).strip()]))
    return [*names, "label"], made


def tell_several(where: str, labels: set[str]) -> list[str]:
    """A line where a label reads like several ones, such as cats|dogs."""
    for label in sorted(labels):
        parts = [part.strip(" '\"[]") for part in re.split(r"[|;,]", label)]
        if len(parts) > 1 and labels & set(parts):
            return [
                f"{where}: label {printable(label[:80])} reads like {len(parts)} labels. A picture has one here, so "
                "that each such combination is a class of its own"
            ]
    return []


def _plain(name: Any) -> str:
    """The name of a column in small letters, with underscores between its words."""
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


def _local(path: str) -> str:
    """The path that an address of this machine's files, file:///..., stands for; any other one as it is."""
    return unquote(re.sub(r"^file:(//(localhost)?(?=/))?", "", path)) if path.startswith("file:/") else path


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
    code = _encoding(data)
    text = data.decode(code, "surrogateescape" if code == "utf-8-sig" else "replace").replace("\0", "\ufffd")
    text, skipped, mark = _without_preamble(text.removeprefix("\ufeff"))
    tried = {mark: _header(text, mark) for mark in (",", ";", "\t", "|")}
    best = mark or next((one for one, names in tried.items() if find_columns(names)), None)
    best = best or max(tried, key=lambda one: len(tried[one]))
    names = tried[best]

    def lines() -> Iterator[tuple[int, list[str]]]:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=best)
        try:
            next(reader, None)
            for line in reader:
                number = skipped + reader.line_num
                if any(cell.strip() for cell in line[len(names) :]):
                    raise DataError(
                        f"{where}: row {number} has {len(line)} cells, and the header {len(names)}; where a path or a "
                        f"label has {'a comma' if best == ',' else repr(best)} in it, put it in double quotes"
                    )
                yield number, line
        except csv.Error as error:
            raise DataError(f"{where}: line {skipped + reader.line_num} is no CSV ({error})") from None

    return names, lines()


def _header(text: str, mark: str) -> list[str]:
    """The names of the columns where `mark` stands between cells; a name in quotes may have line ends in it."""
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=mark), [])
    except csv.Error:
        return []  # told where the rows are read, if no other mark is between the cells


def _encoding(data: bytes) -> str:
    """UTF-16 by its mark, or by every second byte being zero in a text of Latin letters; else UTF-8."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    first = data[:2000]
    half = max(1, len(first) // 2)
    for code, zeros in (("utf-16-be", first[::2]), ("utf-16-le", first[1::2])):
        if zeros.count(0) > 0.7 * half:
            return code
    return "utf-8-sig"


def _without_preamble(text: str) -> tuple[str, int, str | None]:
    """(the text from its header on, lines before it, the mark between cells where a line says it): comments that begin
    with #, empty lines, and Excel's line sep=; come before it.
    """
    skipped, mark = 0, None
    while found := re.match(r"[ \t]*(#[^\r\n]*|sep=(.)[^\r\n]*)?(\r\n|\r|\n)", text):
        if (found[1] or "").startswith("#") and find_columns(re.split("[,;\t|]", found[1].lstrip("# "))):
            return text[text.index("#") + 1 :], skipped, mark  # "# path,label": the header itself
        skipped, text, mark = skipped + 1, text[found.end() :], found[2] or mark
    return text, skipped, mark if mark in (",", ";", "\t", "|") else None


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
