"""What lies in a finished run folder, read back and checked: it may be of another version, edited, or damaged."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from dlp_fast.errors import DataError
from dlp_fast.runs.schema import (
    COLUMNS,
    DECISIONS,
    PREDICTIONS,
    SAMPLES_PARQUET,
    SCHEMA,
    Results,
    samples_name,
)
from dlp_fast.runs.sums import check_sum
from dlp_fast.runs.tables import as_texts, read_columns, read_table

AGAIN = "Run again into another folder."


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read ({error}). {AGAIN}") from None


def read_results(run: Path) -> dict[str, Any]:
    """results.json of a finished run; DataError where there is none, or of another version, or damaged."""
    file = run / "results.json"
    if not file.is_file():
        what = "is no folder" if not run.is_dir() else "holds no finished run (no results.json)"
        raise DataError(f"{run} {what}. Give a run folder; an unfinished run goes on by its own command.")
    results = _read_json(file)
    if not isinstance(results, dict) or results.get("schema") != SCHEMA:
        found = results.get("schema") if isinstance(results, dict) else None
        raise DataError(
            f"{file} is of another version of dlp_fast (schema {found}, this one reads {SCHEMA}): read it with the "
            f"version that wrote it, or run again into another folder."
        )
    try:
        Results.model_validate(results)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{file} is damaged ({where}: {first['msg']}). {AGAIN}") from None
    check_sum(run, "results.json")
    return results


def read_samples(run: Path) -> dict[str, Sequence[Any]]:
    """samples.csv, column by column in the order of the ids; DataError where it is missing or damaged. Cells are text;
    of a large set, whose table is samples.parquet, numbers are arrays.
    """
    file = run / samples_name(run)
    try:
        if file.name == SAMPLES_PARQUET:
            return _read_large(file)
        names, rows = read_table(file)
        place = names.index("sample_id")
        rows.sort(key=lambda row: int(row[place]))  # a spreadsheet may have sorted them otherwise
        if [int(row[place]) for row in rows] != list(range(len(rows))):
            raise ValueError("ids are missing or doubled")
        columns = list(zip(*rows, strict=True))
        table = {name: list(column) for name, column in zip(names, columns, strict=True)}
        for name in ("score", "entropy"):
            list(map(float, table[name]))
        if sorted(map(int, table["rank"])) != list(range(len(rows))):
            raise ValueError("ranks are missing or doubled")
        if not set(table["decision"]) <= set(DECISIONS):
            raise ValueError(f"a decision is none of {', '.join(DECISIONS)}")
        return {name: table[name] for name in COLUMNS} | {"override": table.get("override", [])}
    except KeyError as error:
        raise DataError(f"{file} is damaged (no column {error}). {AGAIN}") from None
    except (OSError, ValueError, IndexError) as error:
        raise DataError(f"{file} is missing or damaged ({error}). {AGAIN}") from None


def _read_large(file: Path) -> dict[str, Sequence[Any]]:
    columns = read_columns(file, (*COLUMNS, "override"))
    order = np.argsort(columns["sample_id"], kind="stable")
    n = len(order)
    table = {name: columns[name] for name in COLUMNS} | {"override": as_texts(columns.get("override", []))}
    if not np.array_equal(order, np.arange(n)):  # somebody has sorted them otherwise
        table = {name: _in_order(column, order) for name, column in table.items()}
    if not np.array_equal(table["sample_id"], np.arange(n)):
        raise ValueError("ids are missing or doubled")
    for name in ("score", "entropy"):
        np.asarray(table[name], dtype=np.float64)
    if not np.array_equal(np.sort(np.asarray(table["rank"], dtype=np.int64)), np.arange(n)):
        raise ValueError("ranks are missing or doubled")
    if not set(table["decision"]) <= set(DECISIONS):
        raise ValueError(f"a decision is none of {', '.join(DECISIONS)}")
    return table


def _in_order(column: Sequence[Any], order: np.ndarray) -> Sequence[Any]:
    return column[order] if isinstance(column, np.ndarray) else [column[i] for i in order if len(column)]


def read_classes(run: Path) -> list[str]:
    """Names of the classes, in the order of the network's outputs."""
    facts = _read_json(run / "classes.json")
    names = facts.get("classes") if isinstance(facts, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{run / 'classes.json'} is damaged (no list `classes`). {AGAIN}")
    check_sum(run, "classes.json")
    return names


def read_predictions(run: Path, images: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(class int64 [n] that the clean model predicts, probability fp32 [n] that it gives the label)."""
    try:
        of = load_file(run / PREDICTIONS)
        prediction, probability = of["prediction"], of["label_probability"]
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{run / PREDICTIONS} is missing or damaged ({error}). {AGAIN}") from None
    if prediction.shape != (images,) or probability.shape != (images,):
        raise DataError(
            f"{run / PREDICTIONS} has {len(prediction)} images, {samples_name(run)} has {images}. {AGAIN}"
        )
    if bool((prediction < 0).any()) or bool((prediction >= classes).any()):
        raise DataError(f"{run / PREDICTIONS} names classes that classes.json does not. {AGAIN}")
    check_sum(run, PREDICTIONS)
    return prediction, probability


def read_batches(file: Path, stages: list[str]) -> dict[str, int]:
    """The batch of each stage that `--batch auto` chose when the run was begun."""
    batches = _read_json(file)
    if not isinstance(batches, dict) or sorted(batches) != sorted(stages):
        raise DataError(f"{file} is damaged (expected the batch of {', '.join(stages)}). {AGAIN}")
    if not all(isinstance(b, int) and b >= 2 for b in batches.values()):
        raise DataError(f"{file} is damaged (expected numbers from 2 on). {AGAIN}")
    return batches


def read_quarantine(run: Path) -> list[dict[str, str]]:
    """Rows of quarantine.csv: path, reason, detail."""
    try:
        text = (run / "quarantine.csv").read_text(encoding="utf-8", errors="backslashreplace")
    except OSError:
        return []
    names = ("path", "reason", "detail")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        return [{name: row.get(name) or "" for name in names} for row in rows]
    except csv.Error as error:
        raise DataError(f"{run / 'quarantine.csv'} is damaged ({error}). {AGAIN}") from None
