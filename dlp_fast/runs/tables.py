"""Tables as people give them back: CSV saved by any spreadsheet program, or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dlp_fast.errors import ResourceError
from dlp_fast.runs.install import advice

PARQUET = b"PAR1"
SEPARATORS = ",;\t"


def read_table(file: Path) -> tuple[list[str], list[list[str]]]:
    """(column names in lower case, rows of text cells) of `file`; which format it has, its first bytes say.

    CSV may be in UTF-8 (with or without a mark) or in Windows' western code page, separated by commas, semicolons or
    tabs: what spreadsheet programs make of a file when they save it. Raises OSError, ValueError (csv.Error is told as
    one), and ResourceError for Parquet without pyarrow.
    """
    content = file.read_bytes()
    if content.startswith(PARQUET):
        return _parquet(content)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252")
    first = text.split("\n", 1)[0]
    separator = max(SEPARATORS, key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    if not rows:
        raise ValueError("the file is empty")
    names = [name.strip().lower() for name in rows[0]]
    return names, [row for row in rows[1:] if row]


def column_of(file: Path, name: str) -> list[str]:
    """The text cells of one column of `file`, none where it has none of that name. Errors as in `read_table`."""
    if is_parquet(file):
        return as_texts(read_columns(file, (name,)).get(name, []))
    names, rows = read_table(file)
    place = names.index(name) if name in names else None
    return [] if place is None else [row[place] for row in rows if len(row) > place]


def is_parquet(file: Path) -> bool:
    """Whether the file begins as Parquet does. Raises OSError."""
    with file.open("rb") as opened:
        return opened.read(len(PARQUET)) == PARQUET


def read_columns(file: Path, names: Sequence[str]) -> dict[str, Any]:
    """Those of the columns `names` that the Parquet file has: numbers as arrays, texts as lists; without a row of
    Python's. Errors as in `read_table`.
    """
    pyarrow, parquet = _arrow()
    try:
        there = {name.strip().lower(): name for name in parquet.read_schema(file).names}
        table = parquet.read_table(file, columns=[there[name] for name in names if name in there])
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    columns = {}
    for name in names:
        if name in there:
            column = table.column(there[name])
            numeric = pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type)
            columns[name] = column.to_numpy() if numeric else column.to_pylist()
    return columns


def as_texts(column: Iterable[Any]) -> list[str]:
    """The cells of a column as texts; "" for what is missing, which pandas writes as null or NaN."""
    return ["" if cell is None or cell != cell else str(cell) for cell in column]


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ResourceError(f"reading Parquet needs the package pyarrow: {advice('parquet')}") from None
    return pyarrow, parquet


def _parquet(content: bytes) -> tuple[list[str], list[list[str]]]:
    pyarrow, parquet = _arrow()
    try:
        table = parquet.read_table(io.BytesIO(content))
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    columns = [as_texts(column.to_pylist()) for column in table.columns]
    return [name.strip().lower() for name in table.column_names], [list(row) for row in zip(*columns)]
