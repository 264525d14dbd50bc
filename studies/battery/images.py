"""Real images for the battery: a pack of JPEGs, decoded once."""

from __future__ import annotations

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

TEST_IMAGES = 1000


def decoded(pack: Path, part: str, kept: Path) -> tuple[np.ndarray, Tensor, tuple[str, ...]]:
    """(uint8 [n, H, W, 3], mapped from a file; int64 [n]; class names) of `part` (train | test) of a pack.

    A pack is an .npz with {part}_jpeg (uint8, all JPEG bytes end to end), {part}_offsets (int64 [n + 1]), {part}_labels
    and classes. What is decoded is kept in the folder `kept`.
    """
    with np.load(pack) as file:
        labels = torch.from_numpy(file[f"{part}_labels"].astype(np.int64))
        classes = tuple(map(str, file["classes"]))
        target = kept / f"{pack.stem}_{part}.npy"
        if not target.exists():
            data, offsets = file[f"{part}_jpeg"].tobytes(), file[f"{part}_offsets"]
            pictures = [
                np.asarray(Image.open(io.BytesIO(data[a:b])).convert("RGB"))
                for a, b in itertools.pairwise(offsets)
            ]
            kept.mkdir(parents=True, exist_ok=True)
            unfinished = target.with_suffix(".part.npy")
            np.save(unfinished, np.stack(pictures))
            unfinished.rename(target)
    return np.load(target, mmap_mode="r"), labels, classes


def balanced(labels: Tensor, n: int, seed: int) -> Tensor:
    """int64 [n], ascending: ids with equally many of each class, drawn from `seed`."""
    classes = int(labels.max()) + 1
    return drawn(labels, [n // classes] * classes, seed)


def drawn(labels: Tensor, counts: list[int], seed: int) -> Tensor:
    """int64, ascending: `counts[c]` ids of each class c, drawn from `seed`. ValueError where a class has fewer."""
    generator = torch.Generator().manual_seed(seed + 0xBA77)
    parts = []
    for label, count in enumerate(counts):
        pool = (labels == label).nonzero().flatten()
        if count > len(pool):
            raise ValueError(f"class {label}: {count} images wanted, {len(pool)} there")
        parts.append(pool[torch.randperm(len(pool), generator=generator)[:count]])
    return torch.cat(parts).sort().values
