"""Tables as people give them back: CSV saved by any spreadsheet program, or Parquet."""

from __future__ import annotations

import csv
import io
from pathlib import Path

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


def _parquet(content: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ResourceError(f"reading Parquet needs the package pyarrow: {advice('parquet')}") from None
    try:
        table = parquet.read_table(io.BytesIO(content))
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from None
    columns = [["" if v is None else str(v) for v in column.to_pylist()] for column in table.columns]
    return [name.strip().lower() for name in table.column_names], [list(row) for row in zip(*columns)]
