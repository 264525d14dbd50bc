"""From an index of files to a data set: its size and scale, a loader, and what a person should know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch

from dlp_fast.config import DataConfig
from dlp_fast.data import appearance, dali
from dlp_fast.data.image_index import ImageIndex
from dlp_fast.data.index import find_conflicts
from dlp_fast.data.pixel_cache import CachedImages
from dlp_fast.data.quarantine import is_loss, losses_told
from dlp_fast.data.scan import Progress, Quarantined
from dlp_fast.data.shards import ShardImages, ShardIndex
from dlp_fast.data.sources.dataset import Dataset, Images, ImageSet, target_size, tell_twins
from dlp_fast.data.storage import FileImages, ResidentImages
from dlp_fast.runs.cache_folder import cache_folder

ClassOf = Callable[[str], tuple[str, str] | None]
"""(split, class) that a path belongs to; None where it is outside of all."""


def data_set(
    name: str,
    indices: dict[str, ImageIndex],
    quarantine: Sequence[Quarantined],
    options: DataConfig,
    *,
    class_of: ClassOf,
    warnings: Sequence[str] = (),
    loader: str = "auto",
    progress: Progress | None = None,
) -> Dataset:
    """The data set of `indices` ("train", and "test" where there is one); the training set says how all are scaled.

    `warnings`: what is to be said first.
    """
    height, width = _common_size(list(indices.values()), options.image_size)
    bits = appearance.depth_of(indices["train"], options.bit_depth)
    pixels = sum(len(index) for index in indices.values()) * height * width * 3
    kind, why = choose_loader(loader, pixels, options.resident_megabytes)
    if kind == "dali" and isinstance(indices["train"], ShardIndex):
        kind, why = "torchvision", "DALI does not read shards by offset"
    sets = {
        split: image_set(index, (height, width), kind, options, bits, progress)
        for split, index in indices.items()
    }
    warnings = [*warnings, *(warning for index in indices.values() for warning in index.warnings)]
    lost = [class_of(item.path) for item in quarantine if is_loss(item)]
    for split, index in indices.items():
        counts = {index.classes[label]: count for label, count in Counter(index.labels.tolist()).items()}
        missing = [of[1] for of in lost if of is not None and of[0] == split]
        told = [
            losses_told(split, counts, missing),
            *what_is_told(split, index, (height, width), options, bits),
        ]
        warnings += [sentence for sentence in told if sentence]
    return Dataset(
        name=name,
        train=sets["train"],
        test=sets.get("test"),
        quarantine=tuple(quarantine),
        warnings=(*warnings, *tell_twins(sets)),
        loader=f"{kind}: {why}",
        fit=options.fit,
        bit_depth=bits,
        root=indices["train"].root,
    )


def what_is_told(
    split: str, index: ImageIndex, size: tuple[int, int], options: DataConfig, bits: int
) -> list[str]:
    """Sentences about the pictures of a split, as the network sees them."""
    told = [
        appearance.depth_told(split, index, bits, options.bit_depth),
        appearance.flat_told(split, index, bits),
        appearance.transparent_told(split, index),
        appearance.cut_off_told(split, index, size, options.fit),
    ]
    return [sentence for sentence in told if sentence]


def choose_loader(loader: str, pixels: int, limit_mb: float) -> tuple[str, str]:
    """(resident | cached | dali | torchvision, why) for `pixels` bytes of decoded images."""
    if loader == "cached":
        return loader, f"each file is decoded once, and its pixels are kept in {cache_folder() / 'pixels'}"
    if loader != "auto":
        return loader, "as asked for"
    size, limit = f"{pixels / (1 << 20):,.0f} MiB of pixels", f"{limit_mb:,.0f} MiB"
    if pixels <= limit_mb * (1 << 20):
        return "resident", f"{size} fit in {limit} (--dataset.resident-megabytes)"
    again = f"{size} do not fit in {limit}: files are decoded in every pass, with --loader cached once"
    missing = dali.available()
    return ("torchvision", f"{again}; {missing}") if missing else ("dali", again)


def image_set(
    index: ImageIndex,
    size: tuple[int, int],
    kind: str,
    options: DataConfig,
    bits: int,
    progress: Progress | None,
) -> ImageSet:
    """The images of `index` at `size` (height, width), read by the loader `kind`."""
    reader = dali.DaliImages if kind == "dali" else FileImages
    reader = ShardImages if isinstance(index, ShardIndex) else reader
    images: Images = reader(
        index, size, options.workers, max_megapixels=options.max_megapixels, fit=options.fit, bits=bits
    )
    if kind == "resident":
        images = _read_all(images, progress)
    if kind == "cached":
        images = CachedImages(images, cache_folder() / "pixels")
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
