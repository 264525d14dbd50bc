"""One split for a model that has its classes: a folder, an archive of one, or a table of paths and labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dlp_fast.config import DataConfig
from dlp_fast.data.image_index import ImageIndex
from dlp_fast.data.index import index_splits
from dlp_fast.data.near import TABLE_SUFFIXES
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.sources.archive import shards, unpacked
from dlp_fast.data.sources.table import index_table
from dlp_fast.data.split_names import ROLE_OF
from dlp_fast.data.walk import look


def is_place(place: str | Path) -> bool:
    """Whether `index_split` can read it, by what it is."""
    name = str(place)
    return os.path.isdir(name) or bool(shards(name)) or _is_table(name)


def index_split(
    place: str | Path,
    options: DataConfig,
    classes: Sequence[str],
    *,
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> tuple[ImageIndex, list[Quarantined]]:
    """The images at `place`, whose labels are positions in `classes`, of which some may be missing.

    Of an archive or a table that has splits, the test images are taken. Raises DataError as `index_splits` and
    `load_table` do.
    """
    name = str(place)
    scanning = options.model_dump(include={"max_megapixels", "max_megabytes", "workers"})
    if _is_table(name):
        return index_table(name, options, classes, cache=cache, progress=progress)
    archives = shards(name)
    if not archives:
        scanning["follow_links"] = options.follow_links
        indices, quarantine = index_splits(
            place, {"": ""}, classes=classes, cache=cache, progress=progress, **scanning
        )
        return indices[""], quarantine
    of = unpacked(archives, options, progress)
    root, folders = of.root, look(str(of.root)).folders
    if folders and not of.labeled and not set(folders) & set(classes):
        tests = [one for one in folders if ROLE_OF.get(one.casefold()) == "test"]
        root = root / tests[0] if tests else root
    indices, quarantine = index_splits(
        root, {"": ""}, classes=classes, cache=cache, progress=progress, **scanning
    )
    index = indices[""]
    return replace(index, warnings=(*of.warnings, *index.warnings)), [*of.refused, *quarantine]


def _is_table(name: str) -> bool:
    return name.lower().endswith(TABLE_SUFFIXES) and os.path.isfile(name)
