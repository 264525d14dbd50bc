"""Folders of image files, `DIR/<class>/...` or `DIR/train` and `DIR/test`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dlp_fast.config import DataConfig
from dlp_fast.data import appearance
from dlp_fast.data.index import find_splits, index_splits
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.sources.dataset import Dataset, ImageSet
from dlp_fast.data.sources.indexed import ClassOf, choose_loader, data_set, image_set
from dlp_fast.runs.names import printable


def load_folder(
    folder: str,
    options: DataConfig,
    *,
    loader: str = "auto",
    cache: str | Path | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load `folder`, whose splits are found by their names. Arguments and errors as in `load`."""
    splits = find_splits(folder)
    indices, quarantine = index_splits(folder, splits, **_scanning(options), cache=cache, progress=progress)
    return data_set(
        printable(Path(folder).resolve().name) or "images",
        indices,
        quarantine,
        options,
        class_of=_class_of(splits),
        loader=loader,
        progress=progress,
    )


def _class_of(splits: dict[str, str]) -> ClassOf:
    """By the folders that a path leads through: split, then class."""

    def of(path: str) -> tuple[str, str] | None:
        for split, folder in splits.items():
            inside = path.removeprefix(f"{folder}/") if folder else path
            if "/" in inside and (inside != path or not folder):
                return split, inside.split("/", 1)[0]
        return None

    return of


def load_split(
    folder: str | Path,
    options: DataConfig | None = None,
    *,
    classes: Sequence[str],
    size: int | tuple[int, int],
    progress: Progress | None = None,
) -> tuple[ImageSet, list[Quarantined]]:
    """Load `folder/<class>/...` for a model that is trained: labels are positions in `classes`, of which
    some may have no folder; images are brought to `size` (side, or height and width), whatever the image size
    in `options`. Else as `load`.
    """
    options = options or DataConfig()
    indices, quarantine = index_splits(
        folder, {"": ""}, classes=classes, **_scanning(options), progress=progress
    )
    height, width = (size, size) if isinstance(size, int) else size
    pixels = len(indices[""]) * height * width * 3
    kind, _ = choose_loader("auto", pixels, options.resident_megabytes)
    bits = appearance.depth_of(indices[""], options.bit_depth)
    return image_set(indices[""], (height, width), kind, options, bits, progress), quarantine


def _scanning(options: DataConfig) -> dict[str, object]:
    """The arguments of the scan that are options."""
    return options.model_dump(include={"max_megapixels", "max_megabytes", "workers"})
