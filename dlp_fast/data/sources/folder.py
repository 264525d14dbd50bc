"""Folders of image files, `DIR/<class>/...` or `DIR/train` and `DIR/test`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dlp_fast.config import DataConfig
from dlp_fast.data import appearance
from dlp_fast.data.classes import match_names
from dlp_fast.data.image_index import ImageIndex
from dlp_fast.data.index import index_splits
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.sources.dataset import Dataset, ImageSet
from dlp_fast.data.sources.indexed import ClassOf, choose_loader, data_set, image_set
from dlp_fast.data.sources.one_split import index_split, is_place
from dlp_fast.data.split_names import is_split_name
from dlp_fast.data.splits import find_splits
from dlp_fast.data.walk import look
from dlp_fast.errors import DataError
from dlp_fast.runs.names import listing, printable


def load_folder(
    folder: str,
    options: DataConfig,
    *,
    loader: str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load `folder`, whose splits are found by their names. Arguments and errors as in `load`."""
    if options.test is not None and not is_place(options.test):
        shown = printable(str(options.test))
        raise DataError(f"dataset.test {shown}: no such folder; give one with a folder a class")
    layout = find_splits(
        folder, **options.model_dump(include={"splits", "test_split", "test", "follow_links"})
    )
    indices, quarantine = index_splits(
        folder, layout.splits, left_out=layout.left_out, **_scanning(options), cache=cache, progress=progress
    )
    folders = dict(layout.splits)
    if options.test is not None:
        classes = indices["train"].classes
        indices["test"], more = _other_folder(options.test, classes, options, cache, progress)
        folders["test"] = indices["test"].root
        quarantine += more
    return data_set(
        printable(Path(folder).resolve().name) or "images",
        indices,
        quarantine,
        options,
        class_of=_class_of(folders, indices["train"].classes),
        warnings=layout.warnings,
        loader=loader,
        progress=progress,
    )


def _other_folder(
    folder: Path,
    classes: tuple[str, ...],
    options: DataConfig,
    cache: str | Path | None,
    progress: Progress | None,
) -> tuple[ImageIndex, list[Quarantined]]:
    """The index of a test set in a folder of its own, whose scan has a cache of its own; quarantined by whole paths."""
    names = look(str(folder)).folders if folder.is_dir() else []
    splits = [name for name in names if is_split_name(name)]
    if splits and len(splits) == len(names) and not set(names) & set(classes):
        shown = printable(str(folder))
        raise DataError(
            f"dataset.test {shown}: it holds {listing(splits)}, which are splits; give the one to test on, such as "
            f"{shown}/{splits[0]}"
        )
    own_cache = None if cache is None else Path(cache).with_name("scan_test.jsonl")
    index, quarantine = index_split(folder, options, classes, cache=own_cache, progress=progress)
    return index, [replace(item, path=f"{index.root}/{item.path}") for item in quarantine]


def _class_of(folders: dict[str, str], classes: Sequence[str]) -> ClassOf:
    """By the folders that a path leads through: split, then class, by the name that it has in training."""
    inner_first = sorted(folders.items(), key=lambda item: len(item[1]), reverse=True)

    @functools.cache  # it is asked for every lost file, and goes through all classes
    def in_training(name: str) -> str:
        return match_names("", [name], classes)[0].get(name, name)

    def of(path: str) -> tuple[str, str] | None:
        for split, folder in inner_first:
            inside = path.removeprefix(f"{folder}/") if folder else path
            if "/" in inside and (inside != path or not folder):
                name = inside.split("/", 1)[0]
                return split, in_training(name)
        return None

    return of


def load_split(
    folder: str | Path,
    options: DataConfig | None = None,
    *,
    classes: Sequence[str],
    size: int | tuple[int, int],
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[ImageSet, list[Quarantined]]:
    """Load `folder/<class>/...`, an archive of it or a table for a model that is trained: labels are positions in
    `classes`, of which some may have no image; images are brought to `size` (side, or height and width), whatever the
    image size in `options`. `tell` is given each warning. Else as `load`.
    """
    options = options or DataConfig()
    index, quarantine = index_split(folder, options, classes, progress=progress)
    for warning in index.warnings if tell else ():
        tell(warning)
    height, width = (size, size) if isinstance(size, int) else size
    kind, _ = choose_loader("auto", len(index) * height * width * 3, options.resident_megabytes)
    bits = appearance.depth_of(index, options.bit_depth)
    return image_set(index, (height, width), kind, options, bits, progress), quarantine


def _scanning(options: DataConfig) -> dict[str, object]:
    """The arguments of the scan that are options."""
    return options.model_dump(include={"max_megapixels", "max_megabytes", "workers", "follow_links"})
