"""Records of JSON as a table: one a line (JSON lines, as Hugging Face's metadata.jsonl), or one list of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dlp_fast.errors import DataError

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")


def json_records(table: Path, where: str) -> tuple[list[str], Iterator[tuple[int, list[Any]]]]:
    """(keys as column names, numbered rows) of `table`; a row is numbered as its line, or by its place in the list.

    Raises DataError: not JSON, or no records of named values.
    """
    try:
        text = table.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: cannot be read as JSON ({error})") from None
    numbered = _list(text, where) if text.lstrip().startswith("[") else _lines(text, where)
    names: dict[str, None] = {}
    for number, record in numbered:
        if not isinstance(record, dict):
            raise DataError(
                f"{where}: line {number} is no record; expected one a line, such as "
                '{"file_name": "a.jpg", "label": "cat"}'
            )
        names |= dict.fromkeys(record)
    if "images" in names and "annotations" in names:
        raise DataError(
            f"{where}: annotations as COCO has them, of parts of pictures; make a CSV of path,label with one label a "
            "picture"
        )
    return list(names), ((number, [record.get(name) for name in names]) for number, record in numbered)


def _lines(text: str, where: str) -> list[tuple[int, Any]]:
    numbered = []
    # `read_text` made each line end "\n"; splitlines would cut strings, too, at U+2028 and U+0085
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            if line.strip():
                numbered.append((number, json.loads(line)))
        except (ValueError, RecursionError):
            if number == 1 and text.lstrip().startswith("{"):  # one record over several lines, such as COCO's
                return [(1, _whole(text, where))]
            raise DataError(f"{where}: line {number} is no JSON") from None
    return numbered


def _list(text: str, where: str) -> list[tuple[int, Any]]:
    return list(enumerate(_whole(text, where), start=1))


def _whole(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON ({error})") from None
