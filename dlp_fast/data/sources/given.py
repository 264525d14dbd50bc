"""Images as a person has them in Python: arrays, lists of pictures or paths, data frames, datasets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from dlp_fast.config import DataConfig
from dlp_fast.data.sources.arrays import from_arrays
from dlp_fast.data.sources.dataset import Dataset, ImageSet
from dlp_fast.data.sources.items import from_torchvision
from dlp_fast.data.sources.saved import chosen
from dlp_fast.data.sources.table_text import find_columns
from dlp_fast.errors import DataError


def from_python(
    data: Any, labels: Any, test: Any, test_labels: Any, classes: Any, *, options: DataConfig, flip: bool
) -> Dataset:
    """The data set of `data` with `labels`, or of items that have theirs.

    Args:
        data, labels: arrays as in `from_arrays`; or a list of Pillow pictures, arrays or paths, of any size; without
            labels a dataset as in `from_torchvision`, several of them by the names of their splits, or a data frame
            with a column of paths and one of labels.
        test, test_labels: the test set in the same form; of a dataset of splits its own where `test` is None.

    Raises DataError: what is given is none of these, or an image or label cannot be used, with its row.
    """
    told: tuple[str, ...] = ()
    if labels is not None:
        if not _is_list_of_pictures(data):
            return from_arrays(data, labels, test, test_labels, classes, flip=flip)
        if (test is None) != (test_labels is None):
            raise DataError("test and test_labels: give both or neither")
        data = _Pairs(data, labels, "labels", classes)
        test = None if test is None else _Pairs(test, test_labels, "test_labels", classes)
    elif isinstance(data, Mapping):
        data, own, told = chosen(data, "dataset")
        test, told = (own, told) if test is None else (test, ())
    data, test = (_of_frame(one) if hasattr(one, "iloc") else one for one in (data, test))
    lists = isinstance(data, _Pairs)
    made = from_torchvision(data, test, options=options, name="images" if lists else None, flip=flip)
    made = replace(made, warnings=(*told, *made.warnings))
    if not lists:
        return made
    named = {"train": _named(made.train, data), "test": made.test and _named(made.test, test)}
    return replace(made, **named)


def _named(images: ImageSet, of: Any) -> ImageSet:
    """The same with the paths that were given, where all were paths, each once."""
    paths = (
        tuple(str(os.fsdecode(one)) for one in of.pictures) if isinstance(of, _Pairs) and of.all_paths else ()
    )
    return replace(images, paths=paths) if paths and len(set(paths)) == len(paths) else images


def _is_list_of_pictures(data: Any) -> bool:
    """Whether it holds pictures or paths, or arrays of different sizes: no array could be made of it."""
    kind = getattr(
        getattr(data, "dtype", None), "kind", ""
    )  # numpy's of objects, and of strings, old and new
    if (
        hasattr(data, "shape")
        and (kind not in ("O", "U", "T") or data.shape == ())
        and not hasattr(data, "iloc")
    ):
        return False
    if not isinstance(data, Sequence) and not hasattr(data, "__len__"):
        return False
    items = list(data)
    if any(isinstance(item, (str, os.PathLike, Image.Image)) for item in items):
        return True
    return len({getattr(item, "shape", None) for item in items}) > 1


class _Pairs:
    """Items (picture or path, label) of two lists."""

    def __init__(self, pictures: Any, labels: Any, name: str, classes: Any):
        self.pictures, self.labels = list(pictures), list(labels)
        self.all_paths = all(isinstance(one, (str, os.PathLike)) for one in self.pictures)
        self.classes = classes
        if len(self.pictures) != len(self.labels):
            raise DataError(
                f"{name}: expected [{len(self.pictures)}], one for each image, got [{len(self.labels)}]"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        picture = self.pictures[row]
        if isinstance(picture, (str, os.PathLike)):
            picture = {"bytes": Path(picture).read_bytes()}
        return picture, self.labels[row]


def _of_frame(frame: Any) -> _Pairs:
    """The items of a data frame of paths and labels; its columns are found by their names, as in a table."""
    names = [str(name) for name in frame.columns]
    columns = find_columns(names)
    if columns is None:
        raise DataError(
            f"data frame: its columns are {', '.join(names[:12]) or 'none'}; expected one of paths (path, file_name, "
            "...) and one of labels (label, class, ...)"
        )
    if columns.split is not None:
        raise DataError(
            f"data frame: column {names[columns.split]} says splits; give its training rows as data, and "
            "the others as test"
        )
    return _Pairs(frame.iloc[:, columns.path], frame.iloc[:, columns.label], "data frame", None)
