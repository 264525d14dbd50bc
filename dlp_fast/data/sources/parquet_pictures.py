"""Parquet files that hold the pictures themselves, as repositories of Hugging Face do: read by pyarrow."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlp_fast.config import DataConfig
from dlp_fast.data.quarantine import IMAGE_SUFFIXES
from dlp_fast.data.shards import IMAGE_KEYS, class_names_in
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.items import from_torchvision, image_and_label
from dlp_fast.data.sources.labels import refuse_unusable_names
from dlp_fast.data.split_names import ROLE_OF, tell_validation
from dlp_fast.errors import DataError
from dlp_fast.runs.names import listing, printable

SUFFIXES = (".parquet", ".pq")
_DEPTH, _MOST = 3, 10_000  # folders below the one that is given, and entries that are looked at


def picture_files(data: str) -> list[Path]:
    """The Parquet files that `data` names, where they hold pictures: the file, or those of a folder that holds no image
    file. None of them where the first one has no column of pictures, or pyarrow is not there.
    """
    if os.path.isfile(data):
        files = [Path(data)] if data.lower().endswith(SUFFIXES) else []
    else:
        files = _below(data)
    return files if files and _has_pictures(files[0]) else []


def load_pictures(data: str, files: list[Path], options: DataConfig) -> Dataset:
    """The data set of `files`, found below `data`; which split a file is of says its name (train-00000-of-00002, as
    Hugging Face writes them) or its folder's. Where none says so, all are training images.

    Raises DataError: a damaged file, files of several data sets, no training file; else as `from_torchvision`.
    """
    where = printable(data)
    splits, told = _splits(data, files, where)
    sets = {split: _Pictures(of, where) for split, of in splits.items()}
    made = from_torchvision(
        sets["train"],
        sets.get("test"),
        options=options,
        name=printable(Path(data).resolve().stem) or "parquet",
    )
    refuse_unusable_names(made.train.classes, where)
    return replace(made, warnings=(*told, *made.warnings))


def _below(folder: str) -> list[Path]:
    found, seen = [], 0
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if place.removeprefix(folder).count(os.sep) >= _DEPTH:
            folders[:] = []
        seen += len(names)
        if seen > _MOST or any(name.lower().endswith(IMAGE_SUFFIXES) for name in names):
            return []
        found += [
            Path(place, name)
            for name in sorted(names)
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return found


def _has_pictures(file: Path) -> bool:
    try:
        import pyarrow as pa
        from pyarrow import parquet

        schema = parquet.read_schema(file)
    except Exception:  # not installed, or whatever a damaged file does to it: told where the file is read
        return False

    def bytes_in(kind: Any) -> bool:
        return (
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or (pa.types.is_struct(kind) and "bytes" in [kind.field(i).name for i in range(kind.num_fields)])
        )

    return any(field.name in IMAGE_KEYS and bytes_in(field.type) for field in schema)


def _splits(data: str, files: list[Path], where: str) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """Files by split: train, and test where there is one (validation where there is no other); what is said of it."""
    parts: dict[str, list[Path]] = {}
    sets = set()
    for file in files:
        *folders, name = file.relative_to(data).parts if os.path.isdir(data) else (file.name,)
        words = [re.split(r"[-_.]", name)[0], *reversed(folders)]
        role = next((ROLE_OF[word.casefold()] for word in words if word.casefold() in ROLE_OF), "")
        parts.setdefault(role, []).append(file)
        sets.add("/".join(folder for folder in folders if folder.casefold() not in ROLE_OF))
    if len(sets) > 1:
        raise DataError(
            f"{where}: Parquet files of {len(sets)} data sets, in {listing(sorted(map(printable, sets)), 4)}; give one "
            "of these folders"
        )
    train = parts.get("train") or parts.get("")
    if not train and len(parts) == 1 and len(files) == 1:
        train, parts = files, {}  # that one file was asked for
    if not train:
        raise DataError(f"{where}: no Parquet file of split train; there are {', '.join(sorted(parts))}")
    if parts.get("train") and parts.get(""):
        raise DataError(
            f"{where}: {listing([printable(file.name) for file in parts['']], 4)} beside files of split train: none of "
            "its words says which split it is of; rename it (train-…, test-…), or take it out"
        )
    validation, test = parts.get("validation", []), parts.get("test", [])
    told = tell_validation(where, len(validation), len(test), "file")
    test = test or validation
    return {"train": train} | ({"test": test} if test else {}), told


class _Pictures:
    """Items {"image": {"bytes": ...}, "label": ...} of Parquet files, with names of the classes where one has them."""

    def __init__(self, files: list[Path], where: str):
        import pyarrow as pa
        from pyarrow import parquet

        try:
            table = pa.concat_tables([parquet.read_table(file) for file in files])
        except Exception as error:  # whatever a damaged file does to the library
            raise DataError(f"{where}: cannot be read as Parquet ({type(error).__name__}: {error})") from None
        image, label = image_and_label(table.column_names, where)
        self._images, self._labels = table[image], table[label]
        self.classes = class_names_in(table.schema.metadata or {}, label)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, row: int) -> dict[str, Any]:
        image, label = self._images[row].as_py(), self._labels[row].as_py()
        return {"image": {"bytes": image} if isinstance(image, bytes) else image, "label": label}
