"""Folders of image files, `DIR/<class>/...` or `DIR/train` and `DIR/test`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dlp_fast.config import DataConfig
from dlp_fast.data import dali
from dlp_fast.data.index import ImageIndex, find_conflicts, find_splits, index_splits
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.sources.dataset import Dataset, Images, ImageSet, target_size, tell_conflicts
from dlp_fast.data.storage import FileImages, ResidentImages
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
    indices, quarantine = index_splits(
        folder, find_splits(folder), **_scanning(options), cache=cache, progress=progress
    )
    height, width = _common_size(list(indices.values()), options.image_size)
    pixels = sum(len(index) for index in indices.values()) * height * width * 3
    kind, why = choose_loader(loader, pixels, options.resident_megabytes)
    sets = {
        split: _image_set(index, (height, width), kind, options, progress) for split, index in indices.items()
    }
    warnings = [warning for index in indices.values() for warning in index.warnings]
    for split, images in sets.items():
        if images.conflicts:
            warnings.append(tell_conflicts(split, images))
    return Dataset(
        name=printable(Path(folder).resolve().name) or "images",
        train=sets["train"],
        test=sets.get("test"),
        quarantine=tuple(quarantine),
        warnings=tuple(warnings),
        loader=f"{kind}: {why}",
    )


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
    return options.model_dump(include={"max_megapixels", "max_megabytes", "workers"})


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
