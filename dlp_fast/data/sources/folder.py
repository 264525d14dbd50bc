"""Folders of image files, `DIR/<class>/...` or `DIR/train` and `DIR/test`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from dlp_fast.config import DataConfig
from dlp_fast.data import dali
from dlp_fast.data.index import ImageIndex, find_conflicts, index_splits
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.sources.dataset import Dataset, Images, ImageSet, target_size, tell_twins
from dlp_fast.data.splits import find_splits, is_split_name
from dlp_fast.data.storage import FileImages, ResidentImages
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
    if options.test is not None and not options.test.is_dir():
        shown = printable(str(options.test))
        raise DataError(f"dataset.test {shown}: no such folder; give one with a folder a class")
    layout = find_splits(
        folder, **options.model_dump(include={"splits", "test_split", "test", "follow_links"})
    )
    indices, quarantine = index_splits(
        folder, layout.splits, left_out=layout.left_out, **_scanning(options), cache=cache, progress=progress
    )
    if options.test is not None:
        classes = indices["train"].classes
        indices["test"], more = _other_folder(options.test, classes, options, cache, progress)
        quarantine += more
    height, width = _common_size(list(indices.values()), options.image_size)
    pixels = sum(len(index) for index in indices.values()) * height * width * 3
    kind, why = choose_loader(loader, pixels, options.resident_megabytes)
    sets = {
        split: _image_set(index, (height, width), kind, options, progress) for split, index in indices.items()
    }
    warnings = [*layout.warnings, *(warning for index in indices.values() for warning in index.warnings)]
    return Dataset(
        name=printable(Path(folder).resolve().name) or "images",
        train=sets["train"],
        test=sets.get("test"),
        quarantine=tuple(quarantine),
        warnings=(*warnings, *tell_twins(sets)),
        loader=f"{kind}: {why}",
    )


def _other_folder(
    folder: Path,
    classes: tuple[str, ...],
    options: DataConfig,
    cache: str | Path | None,
    progress: Progress | None,
) -> tuple[ImageIndex, list[Quarantined]]:
    """The index of a test set in a folder of its own, whose scan has a cache of its own; quarantined by whole paths."""
    names = look(str(folder)).folders
    splits = [name for name in names if is_split_name(name)]
    if splits and len(splits) == len(names) and not set(names) & set(classes):
        shown = printable(str(folder))
        raise DataError(
            f"dataset.test {shown}: it holds {listing(splits)}, which are splits; give the one to test on, such as "
            f"{shown}/{splits[0]}"
        )
    own_cache = None if cache is None else Path(cache).with_name("scan_test.jsonl")
    indices, quarantine = index_splits(
        folder, {"": ""}, classes=classes, **_scanning(options), cache=own_cache, progress=progress
    )
    root = indices[""].root
    return indices[""], [replace(item, path=f"{root}/{item.path}") for item in quarantine]


def load_split(
    folder: str | Path,
    options: DataConfig | None = None,
    *,
    classes: Sequence[str],
    size: int | tuple[int, int],
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[ImageSet, list[Quarantined]]:
    """Load `folder/<class>/...` for a model that is trained: labels are positions in `classes`, of which
    some may have no folder; images are brought to `size` (side, or height and width), whatever the image size
    in `options`. `tell` is given each warning. Else as `load`.
    """
    options = options or DataConfig()
    indices, quarantine = index_splits(
        folder, {"": ""}, classes=classes, **_scanning(options), progress=progress
    )
    for warning in indices[""].warnings if tell else ():
        tell(warning)
    height, width = (size, size) if isinstance(size, int) else size
    pixels = len(indices[""]) * height * width * 3
    kind, _ = choose_loader("auto", pixels, options.resident_megabytes)
    return _image_set(indices[""], (height, width), kind, options, progress), quarantine


def choose_loader(loader: str, pixels: int, limit_mb: float) -> tuple[str, str]:
    """(resident | dali | torchvision, why) for `pixels` bytes of decoded images."""
    if loader != "auto":
        return loader, "as asked for"
    size, limit = f"{pixels / (1 << 20):,.0f} MiB of pixels", f"{limit_mb:,.0f} MiB"
    if pixels <= limit_mb * (1 << 20):
        return "resident", f"{size} fit in {limit} (--dataset.resident-megabytes)"
    missing = dali.available()
    if missing:
        return "torchvision", f"{size} do not fit in {limit}, and {missing}"
    return "dali", f"{size} do not fit in {limit}"


def _scanning(options: DataConfig) -> dict[str, object]:
    """The arguments of the scan that are options."""
    return options.model_dump(include={"max_megapixels", "max_megabytes", "workers", "follow_links"})


def _image_set(
    index: ImageIndex,
    size: tuple[int, int],
    kind: str,
    options: DataConfig,
    progress: Progress | None,
) -> ImageSet:
    reader = dali.DaliImages if kind == "dali" else FileImages
    images: Images = reader(index, size, options.workers, max_megapixels=options.max_megapixels)
    if kind == "resident":
        images = _read_all(images, progress)
    return ImageSet(
        images=images,
        labels=torch.from_numpy(index.labels.copy()),
        paths=index.paths,
        classes=index.classes,
        sha256=index.sha256,
        conflicts=find_conflicts(index.sha256, index.labels),
    )


def _read_all(files: FileImages, progress: Progress | None) -> ResidentImages:
    pixels = torch.empty((len(files), files.height, files.width, 3), dtype=torch.uint8)
    done = 0
    for batch in files.prefetch(torch.arange(len(files)).split(256)):
        pixels[done : done + len(batch)] = batch
        done += len(batch)
        if progress:
            progress("reading images", done, len(files))
    return ResidentImages(pixels)


def _common_size(indices: list[ImageIndex], image_size: int | None) -> tuple[int, int]:
    sizes = {
        (int(width), int(height))
        for index in indices
        for width, height in np.unique(np.stack([index.widths, index.heights]), axis=1).T
    }
    return target_size(sizes, image_size)
