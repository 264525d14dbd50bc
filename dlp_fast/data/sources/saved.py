"""Folders that Hugging Face's `datasets` wrote by `save_to_disk`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from dlp_fast.config import DataConfig
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.items import from_torchvision
from dlp_fast.data.sources.labels import refuse_unusable_names
from dlp_fast.data.split_names import named, tell_validation
from dlp_fast.errors import DataError
from dlp_fast.runs.names import printable


def is_saved(folder: str | Path) -> bool:
    """Whether `folder` is one, by the files that `save_to_disk` leaves."""
    folder = Path(folder)
    one = (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    return one or (folder / "dataset_dict.json").is_file()


def load_saved(folder: str | Path, options: DataConfig) -> Dataset:
    """The data set of such a folder; where it has splits, they are found by their names (see `chosen`).

    Raises DataError: `datasets` is not installed, the folder is damaged, there is no split train; else as
    `from_torchvision`.
    """
    where = printable(str(folder))
    try:
        library: Any = importlib.import_module("datasets")
    except ImportError:
        raise DataError(
            f"{where}: saved by Hugging Face's datasets, which is not installed (pip install datasets); install it, or "
            "save the pictures as files, one folder a class"
        ) from None
    try:
        saved = library.load_from_disk(str(folder))
    except Exception as error:  # whatever a damaged folder does to the library
        raise DataError(f"{where}: cannot be loaded ({type(error).__name__}: {error})") from None
    train, test, told = saved, None, ()
    if (Path(folder) / "dataset_dict.json").is_file():
        train, test, told = chosen(saved, where)
    made = from_torchvision(train, test, options=options, name=printable(Path(folder).resolve().name))
    refuse_unusable_names(made.train.classes, where)
    return replace(made, warnings=(*told, *made.warnings))


def chosen(splits: Mapping[str, Any], where: str) -> tuple[Any, Any, tuple[str, ...]]:
    """(what to train on, what to test with or None, what is to be said of it) of data sets by the names of splits.

    Validation images are the test set where there is no other, as everywhere. Raises DataError: no split train.
    """
    train, test, validation = (named(splits, role) for role in ("train", "test", "validation"))
    if train is None:
        raise DataError(f"{where}: no split train; there are {', '.join(map(str, splits)) or 'none'}")
    counts = [len(splits[name]) if name is not None else 0 for name in (validation, test)]
    test = validation if test is None else test
    return splits[train], None if test is None else splits[test], tell_validation(where, *counts, "image")
