"""Folders that Hugging Face's `datasets` wrote by `save_to_disk`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from dlp_fast.config import DataConfig
from dlp_fast.data.sources.dataset import Dataset
from dlp_fast.data.sources.items import from_torchvision
from dlp_fast.data.sources.labels import refuse_unusable_names
from dlp_fast.errors import DataError
from dlp_fast.runs.names import printable

TESTS = ("test", "testing", "validation", "val", "valid")


def is_saved(folder: str | Path) -> bool:
    """Whether `folder` is one, by the files that `save_to_disk` leaves."""
    folder = Path(folder)
    one = (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file()
    return one or (folder / "dataset_dict.json").is_file()


def load_saved(folder: str | Path, options: DataConfig) -> Dataset:
    """The data set of such a folder; where it has splits, train, and the first there is of TESTS.

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
    train, test = saved, None
    if (Path(folder) / "dataset_dict.json").is_file():
        if "train" not in saved:
            raise DataError(f"{where}: no split train; there are {', '.join(map(str, saved))}")
        train = saved["train"]
        test = next((saved[name] for name in TESTS if name in saved), None)
    made = from_torchvision(train, test, options=options, name=printable(Path(folder).resolve().name))
    refuse_unusable_names(made.train.classes, where)
    return made
